"""A stem that was given, brought to its song: the same span, sample rate and number of samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wav2clip_gen.audio.track import Samples, Track, resampled, survey
from wav2clip_gen.errors import SoundError

SECONDS_OFF = 1.0  # by which a stem may be shorter or longer than its song, ...
SHARE_OFF = 0.01  # ... or, where that is more, this share of what is heard of the song
SAME_LENGTH = "a stem lasts as long as its song: export both from the same project, or choose the right file"
AFTER = 0.5  # seconds after a span that resampling may look at


def fit_stem(path: Path, song: Track, *, stream: int = 0) -> Track:
    """Open a stem as a track of exactly the song's span, sample rate and samples, so that one timeline holds for both.

    What is missing at its end is silence, what is too much is cut. Its channels stay as they are.

    Args:
        path: The stem's file, as long as the song's, at any rate.
        song: The span to fit.
        stream: Which of the file's sound streams.

    Raises:
        SoundError: The file cannot be read, or is no recording of this song's length.
        VideoError: ffmpeg is needed for this file and missing.
    """
    duration = None if song.whole else song.duration + AFTER
    reader, samples = survey(path, start=song.start, duration=duration, stream=stream)
    rate = reader.sample_rate
    if samples == 0 or not _alike(samples / rate, song.duration):
        length, song_end = _length(path, stream), song.start + song.duration
        raise SoundError(
            f"{path} lasts {length:.3f} s, but the song {song.path} is heard up to {song_end:.3f} s", hint=SAME_LENGTH
        )
    heard = Track(
        path=path, sample_rate=rate, channels=reader.channels, samples=samples, start=song.start, whole=song.whole,
        title=reader.title, reader=reader,
    )  # fmt: skip
    fitted = FittedReader(path, song.sample_rate, reader.channels, reader.title, heard)
    return replace(heard, sample_rate=song.sample_rate, samples=song.samples, whole=False, reader=fitted)


def check_whole_length(path: Path, song: Path) -> None:
    """Make sure that a file is as long as the whole song, where only a span of that is heard.

    Raises:
        SoundError: It is not: it may begin at another place of the song.
    """
    length, whole = _length(path), _length(song)
    if not _alike(length, whole):
        raise SoundError(f"{path} lasts {length:.3f} s, but the song {song} lasts {whole:.3f} s", hint=SAME_LENGTH)


def _length(path: Path, stream: int = 0) -> float:
    reader, samples = survey(path, stream=stream)
    return samples / reader.sample_rate


def _alike(seconds: float, wanted: float) -> bool:
    return abs(seconds - wanted) <= max(SECONDS_OFF, SHARE_OFF * wanted)


@dataclass(frozen=True, eq=False)
class FittedReader:
    """Streams a track at the sample rate of a song, followed by silence."""

    path: Path
    sample_rate: int  # Hz, of the song
    channels: int
    title: str | None
    heard: Track  # the stem as it is in its file

    def blocks(self, first: int, stop: int | None, size: int) -> Iterator[Samples]:
        """See `Reader`."""
        end = self._rescaled(self._heard_end)  # silence follows
        stop = end if stop is None else stop
        sounding = max(0, min(stop, end) - first)
        if sounding:
            yield from _sliced(self._sound(first, sounding), size)
        for position in range(first + sounding, stop, size):
            yield np.zeros((self.channels, min(size, stop - position)), np.float32)

    @property
    def _heard_end(self) -> int:
        """Where the sound ends, in samples of its own file."""
        return round(self.heard.start * self.heard.sample_rate) + self.heard.samples

    def _rescaled(self, samples: int) -> int:
        return round(samples * self.sample_rate / self.heard.sample_rate)

    def _sound(self, first: int, length: int) -> Iterator[Samples]:
        """Samples [first, first + length) at the song's rate.

        Resampled from a whole second, which is a whole sample at every rate, at least a second before.
        """
        rate = self.heard.sample_rate
        if rate == self.sample_rate:
            return _part(self.heard, first, first + length).blocks()
        second = max(0, first // self.sample_rate - 1)
        skipped = first - second * self.sample_rate
        enough = -(-(first + length) * rate // self.sample_rate) + rate  # a second more, for the filter
        source = _part(self.heard, second * rate, min(enough, self._heard_end))
        blocks = resampled(source.blocks(), rate, self.sample_rate, skipped + length, channels=self.channels)
        return _without_first(blocks, skipped)


def _part(track: Track, first: int, stop: int) -> Track:
    """Samples [first, stop) of a track's file."""
    return replace(track, start=first / track.sample_rate, samples=stop - first)


def _without_first(blocks: Iterator[Samples], skipped: int) -> Iterator[Samples]:
    for block in blocks:
        rest = block[:, skipped:]
        skipped = max(0, skipped - block.shape[1])
        if rest.shape[1]:
            yield rest


def _sliced(blocks: Iterator[Samples], size: int) -> Iterator[Samples]:
    for block in blocks:
        for first in range(0, block.shape[1], size):
            yield block[:, first : first + size]
