from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wav2clip_gen.audio.timeline import Timeline, exact_fps, iterate_windows
from wav2clip_gen.errors import SettingsError, SoundError

FPS = st.sampled_from([Fraction(1), Fraction(12), Fraction(24_000, 1001), Fraction(30), Fraction(120), Fraction(7, 3)])


def in_blocks(song: NDArray[np.float32], size: int) -> Iterator[NDArray[np.float32]]:
    return (song[first : first + size] for first in range(0, len(song), size))


def plain_windows(song: NDArray[np.float32], timeline: Timeline, rate: int) -> NDArray[np.float32]:
    """The same, with the whole song in memory and numpy's own mirror."""
    spans = [timeline.window_span(index, rate) for index in range(timeline.windows)]
    before, after = max(0, -spans[0][0]), max(0, spans[-1][1] - len(song))
    padded = np.pad(song, (before, after), mode="reflect") if len(song) > 1 else np.full(before + 1 + after, song[0])
    return np.stack([padded[start + before : stop + before] for start, stop in spans])


@settings(deadline=None, max_examples=60)
@given(
    length=st.integers(1, 3000),
    window=st.floats(0.001, 3.0),
    hop=st.floats(0.0005, 5.0),
    fps=FPS,
    block=st.integers(1, 1000),
    batch=st.integers(1, 70),
)
def test_windows_in_a_stream_are_those_of_the_whole_song(
    length: int, window: float, hop: float, fps: Fraction, block: int, batch: int
) -> None:
    rate = 1000
    timeline = Timeline(samples=length, sample_rate=rate, fps=fps, window=window, hop=hop)
    song = np.random.default_rng(length).standard_normal(length).astype(np.float32)
    batches = list(iterate_windows(in_blocks(song, block), timeline, rate=rate, batch=batch))
    assert all(len(rows) == batch for rows in batches[:-1])
    np.testing.assert_array_equal(np.concatenate(batches), plain_windows(song, timeline, rate))


def test_a_window_is_centred_at_its_time() -> None:
    timeline = Timeline(samples=48_000, sample_rate=16_000, fps=Fraction(10))
    song = np.zeros(48_000, np.float32)
    song[[1_600 * w for w in (5, 12, 20)]] = 1
    windows = np.concatenate(list(iterate_windows(in_blocks(song, 999), timeline)))
    assert windows.shape == (30, 16_000)
    assert windows[[5, 12, 20], 8_000].tolist() == [1, 1, 1]


@settings(deadline=None)
@given(
    samples=st.integers(1, 10**7),
    rate=st.sampled_from([8_000, 44_100, 48_000]),
    fps=FPS,
    hop=st.floats(0.01, 10),
)
def test_frames_cover_the_song_and_windows_cover_the_frames(samples: int, rate: int, fps: Fraction, hop: float) -> None:
    timeline = Timeline(samples=samples, sample_rate=rate, fps=fps, hop=hop)
    assert (timeline.frames - 1) / fps < timeline.duration <= timeline.frames / fps
    last = Fraction(timeline.windows - 1) * Fraction(str(hop))
    assert last >= (timeline.frames - 1) / fps
    assert timeline.windows == 1 or last - Fraction(str(hop)) < (timeline.frames - 1) / fps


def test_frame_edges_tile_the_track() -> None:
    timeline = Timeline(samples=100_001, sample_rate=44_100, fps=exact_fps(29.97))
    edges = timeline.frame_edges()
    assert (edges[0], edges[-1], len(edges)) == (0, 100_001, timeline.frames + 1)
    assert (np.diff(edges) > 0).all()


def test_times_do_not_drift_in_a_long_song() -> None:
    timeline = Timeline(samples=16_000 * 36_000, sample_rate=16_000, fps=exact_fps(23.976))
    assert timeline.frames == 863_137  # ten hours: ceil(36000 * 24000 / 1001)
    assert timeline.frame_times()[-1] == pytest.approx(863_136 * 1001 / 24_000, abs=1e-12)
    assert timeline.window_span(300_000) == (480_000_000 - 8_000, 480_000_000 + 8_000)


@pytest.mark.parametrize(
    ("fps", "painted", "expected"),
    [
        (24, 12, [0, 2, 4, 6, 8, 10]),
        (24, 8, [0, 3, 6, 9, 10]),
        (24, 10, [0, 2, 5, 7, 10]),
        (10, 12, range(11)),
        (24, 24, range(11)),
        (24, 0.5, [0, 10]),
        ("29.97", "23.976", [0, 1, 2, 4, 5, 6, 8, 9, 10]),
    ],
)
def test_painted_frames_are_spread_evenly_and_include_both_ends(
    fps: float, painted: float, expected: Sequence[int]
) -> None:
    line = Timeline(samples=round(10.5 * 1_000 / exact_fps(fps)), sample_rate=1_000, fps=exact_fps(fps))
    assert line.painted_frames(painted).tolist() == list(expected)


def test_a_film_of_one_frame_is_painted() -> None:
    assert Timeline(samples=1, sample_rate=8_000, fps=Fraction(24)).painted_frames(12).tolist() == [0]


def test_a_whole_number_of_frames_is_not_one_more() -> None:
    assert (
        Timeline(samples=11 * 4_410, sample_rate=44_100, fps=exact_fps(30)).frames == 33
    )  # 1.1 * 30 = 33.000000000000004
    assert Timeline(samples=1, sample_rate=44_100, fps=exact_fps(12)).frames == 1


@pytest.mark.parametrize(
    ("number", "meant"),
    [
        (23.976, Fraction(24_000, 1001)),
        ("23.98", Fraction(24_000, 1001)),
        (29.97, Fraction(30_000, 1001)),
        (59.94, Fraction(60_000, 1001)),
        ("30000/1001", Fraction(30_000, 1001)),
        (12, Fraction(12)),
        (12.5, Fraction(25, 2)),
    ],
)
def test_broadcast_rates_are_exact(number: float | str, meant: Fraction) -> None:
    assert exact_fps(number) == meant


@pytest.mark.parametrize("number", [0, -1, "fast", float("nan"), float("inf"), "1/0"])
def test_impossible_frame_rates_are_refused(number: float | str) -> None:
    with pytest.raises(SettingsError, match="cannot be shown"):
        exact_fps(number)


@pytest.mark.parametrize("name", ["window", "hop"])
def test_impossible_windows_are_refused(name: str) -> None:
    for seconds in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(SettingsError, match=name):
            Timeline(samples=1, sample_rate=1, fps=Fraction(1), **{name: seconds})
    with pytest.raises(SoundError, match="no sound"):
        Timeline(samples=0, sample_rate=1, fps=Fraction(1))


def test_a_stream_that_ends_early_is_noticed() -> None:
    timeline = Timeline(samples=16_000, sample_rate=16_000, fps=Fraction(10))
    with pytest.raises(SoundError, match="ends at sample 9000"):
        list(iterate_windows(in_blocks(np.zeros(9_000, np.float32), 1_000), timeline))


def test_memory_does_not_grow_with_the_song() -> None:
    def peak(seconds: int) -> int:
        timeline = Timeline(samples=1_000 * seconds, sample_rate=1_000, fps=Fraction(2), window=1.0, hop=0.5)
        blocks = (np.zeros(10_000, np.float32) for _ in range(seconds // 10))
        tracemalloc.start()
        for _ in iterate_windows(blocks, timeline, rate=1_000):
            pass
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    assert peak(3_000) < 1.05 * peak(100)


@given(
    st.sampled_from(["8", "12", "23.976", "24", "25", "29.97", "60", "12.3456789"]),
    st.sampled_from([8_000, 16_000, 22_050, 44_100, 48_000]),
    st.integers(1, 2_000),
)
def test_a_timeline_cut_after_some_frames_has_just_these(fps: str, rate: int, frames: int) -> None:
    whole = Timeline(samples=rate * 600, sample_rate=rate, fps=exact_fps(fps))
    assert whole.until(frames).frames == frames


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("23.97602397602", "24000/1001"),
        ("23.98", "24000/1001"),
        ("29.97", "30000/1001"),
        ("24", "24"),
        ("12.5", "25/2"),
    ],
)
def test_rates_of_television_are_known_however_they_are_written(written: str, meant: str) -> None:
    assert exact_fps(written) == Fraction(meant)


def test_rates_with_many_digits_become_fractions_that_a_film_can_hold() -> None:
    fps = exact_fps(12.3456789)
    assert fps.denominator <= 1001
    assert float(fps) == pytest.approx(12.3456789, rel=1e-5)
