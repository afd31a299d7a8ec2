"""A track decoded once: levels per frame, and mono signals that can be read again."""

from __future__ import annotations

import gc
import io
import tempfile
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.audio.conftest import Save, noise
from tests.conftest import SAMPLES
from wav2clip_gen.audio.decode import FEATURE_RATE, DecodedTrack, decode
from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.audio.track import ENCODER_RATE, Samples, Track, open_track
from wav2clip_gen.errors import OutputError, SoundError

RATES = (ENCODER_RATE, FEATURE_RATE)


def decoded(track: Track, fps: float = 12) -> DecodedTrack:
    return decode(track, Timeline.of(track, fps=fps), RATES)


def joined(blocks: Iterator[Samples]) -> Samples:
    return np.concatenate(list(blocks))


@pytest.mark.parametrize(
    ("rate", "channels", "seconds"),
    [(16_000, 1, 2.0), (44_100, 2, 12.3), (22_050, 6, 1.0), (8_000, 1, 0.3), (48_000, 2, 1 / 48_000)],
)
def test_signals_equal_those_of_the_track_sample_for_sample(
    rate: int, channels: int, seconds: float, save: Save
) -> None:
    track = open_track(save("song.wav", noise(seconds, rate, channels), rate))
    signal = decoded(track)
    for target in RATES:
        expected = joined(track.mono_blocks(target))
        assert expected.dtype == np.float32
        np.testing.assert_array_equal(joined(signal.mono_blocks(target)), expected)
        assert len(expected) == track.length_at(target)


def test_a_span_of_a_compressed_song_is_decoded_exactly() -> None:
    track = open_track(SAMPLES / "africa.ogg", start=1.37, duration=2.6)
    signal = decoded(track)
    for target in RATES:
        np.testing.assert_array_equal(joined(signal.mono_blocks(target)), joined(track.mono_blocks(target)))


def test_a_signal_is_read_again_while_the_file_is_gone_and_the_track_is_decoded_once(
    save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, blocks = Counter[Path](), Track.blocks

    def counted(self: Track, *arguments: Any) -> Iterator[Samples]:
        counts[self.path] += 1
        return blocks(self, *arguments)

    path = save("song.wav", noise(1.0))
    monkeypatch.setattr(Track, "blocks", counted)
    signal = decoded(open_track(path))
    path.unlink()
    first, second = (joined(signal.mono_blocks()) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    both = zip(signal.mono_blocks(), signal.mono_blocks(), strict=True)  # two readers at a time
    assert all(np.array_equal(one, other) for one, other in both)
    assert counts == {path: 1}


@pytest.mark.parametrize("channels", [1, 2])
def test_levels_are_the_rms_of_each_frame_over_all_channels(channels: int, save: Save) -> None:
    square = np.where(np.arange(16_000) % 2, 0.5, -0.5)
    square[8_000:] *= 0.1
    sound = np.zeros((16_000, channels), np.float32)
    sound[:, 0] = square
    levels = decoded(open_track(save("song.wav", sound, 16_000)), fps=4).levels
    np.testing.assert_allclose(levels, np.array([0.5, 0.5, 0.05, 0.05]) / np.sqrt(channels), rtol=1e-6)


def test_levels_equal_those_of_the_samples(save: Save) -> None:
    track = open_track(save("song.wav", noise(11.3), 44_100))  # more than a block
    line = Timeline.of(track, fps=23.976)
    edges, samples = line.frame_edges(), track.read().astype(np.float64)
    plain = [np.sqrt(np.square(samples[:, a:b]).mean()) for a, b in pairwise(edges)]
    np.testing.assert_allclose(decode(track, line, ()).levels, plain, rtol=1e-9)


def test_silence_and_a_single_sample_have_levels(save: Save) -> None:
    silence = decoded(open_track(save("silence.wav", np.zeros((8_000, 2), np.float32), 8_000)))
    assert silence.levels.tolist() == [0.0] * 12
    assert not joined(silence.mono_blocks()).any()
    dot = decoded(open_track(save("dot.wav", np.full((1, 1), 0.25, np.float32), 8_000)))
    np.testing.assert_allclose(dot.levels, [0.25])


def test_memory_does_not_grow_with_the_track(save: Save) -> None:
    def peak(seconds: float) -> int:
        track = open_track(save("song.wav", np.zeros((round(seconds * 8_000), 1), np.float32), 8_000))
        decode(track, Timeline.of(track, fps=1), RATES)
        tracemalloc.start()
        signal = decode(track, Timeline.of(track, fps=1), RATES)
        for rate in RATES:
            for _ in signal.mono_blocks(rate):
                pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(240) < 1.2 * peak(60)


def test_temporary_files_are_closed_with_the_signal(save: Save) -> None:
    track = open_track(save("song.wav", noise(0.2)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        signal = decoded(track)
        files = [one.file for one in signal.signals.values()]
        del signal
        gc.collect()
    assert [file.closed for file in files] == [True, True]


class FullDisk(io.BytesIO):
    """A file on a full disk."""

    def write(self, content: Any) -> int:
        raise OSError(28, "No space left on device")


def test_a_full_disk_is_reported_with_its_folder(save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    track = open_track(save("song.wav", noise(0.2)))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    real = tempfile.TemporaryFile  # which ffmpeg needs for its messages
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **options: FullDisk() if "prefix" in options else real())
    with pytest.raises(OutputError, match=f"cannot write temporary audio to {tmp_path}: No space left") as caught:
        decoded(track)
    assert "TMPDIR" in caught.value.hint


def test_a_song_that_shrinks_meanwhile_is_noticed(save: Save) -> None:
    track = open_track(save("song.wav", noise(1.0)))
    save("song.wav", noise(0.5))
    with pytest.raises(SoundError, match="samples earlier"):
        decoded(track)
