"""The division of a film into segments, and the crossfade between neighbours."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.synthesis import segments
from wav2clip_gen.synthesis.camera import similarity_transform
from wav2clip_gen.synthesis.segments import (
    Segment,
    Shown,
    crossfade_weight,
    divide,
    interpolate,
    pack,
    segment_length,
    unpack,
)

RATE = 1000
FPS = st.sampled_from([Fraction(1), Fraction(4), Fraction(12), Fraction(24_000, 1001), Fraction(24), Fraction(60)])
TIMES = st.lists(st.floats(0, 400), max_size=40)


@dataclass(frozen=True)
class Song:
    """In place of the features of a song."""

    duration: float
    inner: tuple[float, ...] = ()
    beats: Any = field(default_factory=lambda: np.zeros(0))

    @property
    def sections(self) -> Any:
        return np.array([0.0, *self.inner, self.duration])


def divided(
    song: Song, length: float | None, fps: float | Fraction = 12, painted_fps: float = 6
) -> tuple[Segment, ...]:
    timeline = Timeline(samples=max(1, round(song.duration * RATE)), sample_rate=RATE, fps=Fraction(fps))
    return divide(timeline, song, length, timeline.painted_frames(painted_fps))  # type: ignore[arg-type]


def seconds(song: Song, length: float, fps: float = 100) -> list[float]:
    """Where the segments after the first begin."""
    return [one.start / fps for one in divided(song, length, fps)[1:]]


@settings(deadline=None)
@given(duration=st.floats(0.01, 400), length=st.floats(1, 100), fps=FPS, sections=TIMES, beats=TIMES)
def test_segments_cover_a_film_once_and_none_is_short_or_long(
    duration: float, length: float, fps: Fraction, sections: list[float], beats: list[float]
) -> None:
    inner = tuple(sorted({second for second in sections if 0 < second < duration}))
    found = divided(Song(duration, inner, np.unique(beats)), length, fps)
    frames = -(-max(1, round(duration * RATE)) * fps.numerator // (RATE * fps.denominator))
    assert [one.number for one in found] == list(range(len(found)))
    assert [found[0].start, *(one.stop for one in found)] == [*(one.start for one in found), frames]
    for one in found:
        span = (one.stop - one.start) / float(fps)
        assert span <= 1.5 * length + 1 / fps
        assert span >= 0.5 * length - 1 / fps or len(found) == 1
    shown = [frame for one in found for frame in (*one.alone, *one.seam)]
    assert shown == list(range(frames))


@settings(deadline=None)
@given(duration=st.floats(0.01, 400), length=st.floats(1, 100), fps=FPS)
def test_what_is_painted_covers_run_in_and_crossfades(duration: float, length: float, fps: Fraction) -> None:
    found = divided(Song(duration), length, fps)
    frames = found[-1].stop
    for one in found:
        assert one.span.start >= 0
        assert one.span.stop <= frames
        assert set(one.alone) <= set(one.span)
    for before, after in pairwise(found):
        assert set(before.seam) <= set(before.span) & set(after.span)
        assert before.fade_out == after.fade_in <= round(segments.CROSSFADE * fps / 2)
        assert after.span.start + after.run_in == before.seam.start
    assert (found[0].fade_in, found[0].run_in, found[-1].fade_out) == (0, 0, 0)


@settings(deadline=None)
@given(
    duration=st.floats(0.1, 200), length=st.floats(1, 100), fps=FPS, painted_fps=st.sampled_from([0.5, 3, 8, 12.5, 30])
)
def test_the_painted_frames_enclose_all_that_is_shown(
    duration: float, length: float, fps: Fraction, painted_fps: float
) -> None:
    timeline = Timeline(samples=max(1, round(duration * RATE)), sample_rate=RATE, fps=fps)
    frames = timeline.painted_frames(painted_fps)
    for one in divide(timeline, Song(duration), length, frames):  # type: ignore[arg-type]
        painted = one.painted(frames)
        assert set(painted) <= set(frames)
        assert painted[0] <= one.span.start <= one.span.stop - 1 <= painted[-1]
        assert painted[0] == one.span.start
        run_in = [frame for frame in painted if frame <= one.span.start + one.run_in][:-1]
        assert len(run_in) in (segments.RUN_IN, int(np.searchsorted(frames, painted[len(run_in)])))
        assert sum(frame >= one.span.stop - 1 for frame in painted) == 1


def test_cuts_are_at_section_boundaries_else_at_beats_else_after_equal_times() -> None:
    beats = np.arange(0, 120, 0.7)
    assert seconds(Song(90), 30) == [30, 60]
    assert seconds(Song(100), 30) == [33.33, 66.67]
    assert seconds(Song(90, (), beats), 30) == pytest.approx([30.1, 60.2])
    assert seconds(Song(90, (41.0,), beats), 30) == pytest.approx([41, 65.8])
    assert seconds(Song(90, (14.0, 20.0, 33.0, 89.0)), 30) == [33, 61.5]  # the nearest; none is too near to an end
    assert seconds(Song(90, (), np.array([20.0, 31.0])), 30) == [31, 60.5]  # a beat far away is no better than none


def test_a_short_film_is_one_segment() -> None:
    for song, length in ((Song(44.9, (20.0,)), 30), (Song(3600, (20.0,)), None), (Song(0.001), 1)):
        (only,) = divided(song, length)
        assert (only.start, only.run_in, only.fade_in, only.fade_out) == (0, 0, 0, 0)
        assert only.span == only.alone == range(only.stop)
        assert only.seam == range(only.stop, only.stop)


def test_the_lengths_of_run_in_and_crossfade() -> None:
    first, second = divided(Song(60), 30, 24)
    run_in = 4 * segments.RUN_IN  # at 6 painted frames a second
    assert second == Segment(number=1, start=720, stop=1440, fade_in=12, fade_out=0, run_in=run_in)
    assert first.seam == range(708, 732)
    assert second.span == range(708 - run_in, 1440)
    quick = divided(Song(4), 1, 24)  # a crossfade is at most half of a segment
    assert [(one.fade_in, one.fade_out) for one in quick] == [(0, 6), (6, 6), (6, 6), (6, 0)]


@pytest.mark.parametrize(
    ("written", "duration", "length"),
    [("auto", 60, None), ("auto", 61, 30), ("none", 3600, None), ("20", 61, 20), ("1:15", 10, 75)],
)
def test_the_setting(written: str, duration: float, length: float | None) -> None:
    assert segment_length(written, duration) == length


def test_the_division_depends_on_song_and_settings_alone() -> None:
    song = Song(200, (30.5, 77.0), np.arange(0, 200, 0.5))
    assert divided(song, 25) == divided(song, 25)


@pytest.mark.parametrize("reach", [0, 1, 6, 12])
def test_the_later_segment_takes_over_in_a_crossfade(reach: int) -> None:
    weights = [crossfade_weight(frame, 100, reach) for frame in range(100 - reach, 100 + reach)]
    assert weights == sorted(weights)
    assert np.add(weights, weights[::-1]).tolist() == pytest.approx([1] * len(weights))
    assert all(0 < weight < 1 for weight in weights)
    assert (crossfade_weight(99 - reach, 100, reach), crossfade_weight(100 + reach, 100, reach)) == (0, 1)
    assert max(np.diff([0, *weights, 1]), default=1) <= (np.pi / 4 / reach if reach else 1)


def test_states_are_interpolated() -> None:
    residual = torch.ones(1, 3, 8, 8)
    before = Shown(torch.zeros(1, 2, 2, 2), similarity_transform(1.02, 0.01))
    after = Shown(torch.ones(1, 2, 2, 2), np.eye(3), residual)
    third = interpolate(before, after, 0.25)
    assert third.codes.unique().tolist() == [0.25]
    np.testing.assert_allclose(third.offset, similarity_transform(1.015, 0.0075), atol=1e-12)
    assert third.residual is not None
    assert third.residual.unique().tolist() == [0.25]
    back = interpolate(after, before, 0.25).residual
    assert back is not None
    assert back.unique().tolist() == [0.75]
    both = interpolate(after, after, 0.25).residual
    assert both is not None
    assert both.unique().tolist() == [1]
    assert interpolate(before, before, 0.5).residual is None
    assert interpolate(before, after, 0.0) is before
    assert interpolate(before, after, 1.0) is after


def test_states_are_kept_and_a_residual_once() -> None:
    codes, residual, offset = torch.rand(4, 2, 3, 3), torch.rand(1, 3, 8, 8), similarity_transform(1.02, 0.01)
    residuals = [None, residual, residual, torch.rand(1, 3, 8, 8)]
    shown = [Shown(one[None], offset, each) for one, each in zip(codes, residuals, strict=True)]
    kept = pack(shown)
    assert len(kept["residuals"]) == 2
    for found, expected in zip(unpack(kept, torch.device("cpu")), shown, strict=True):
        torch.testing.assert_close(found.codes, expected.codes, rtol=0, atol=0)
        np.testing.assert_array_equal(found.offset, expected.offset)
        assert (found.residual is None) == (expected.residual is None)
        if expected.residual is not None:
            torch.testing.assert_close(found.residual, expected.residual, rtol=0, atol=0)
    assert "residuals" not in pack(shown[:1])
