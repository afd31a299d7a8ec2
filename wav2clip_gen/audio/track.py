"""From a file to a `Track`: a checked handle on sound, streamed block by block and never held whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wav2clip_gen.audio.readers import DamagedSoundError, Reader, readers_for
from wav2clip_gen.errors import SoundError

Samples = NDArray[np.float32]

ENCODER_RATE = 16_000  # Hz, what Wav2CLIP hears
BLOCK_SECONDS = 10.0


@dataclass(frozen=True, eq=False)
class Track:
    """A span of a sound file that was decoded once from end to end; its samples stay in the file."""

    path: Path
    sample_rate: int  # Hz
    channels: int
    samples: int  # per channel, counted by decoding; at least 1
    start: float  # seconds into the file
    whole: bool  # the span is the whole file
    title: str | None
    reader: Reader

    @property
    def duration(self) -> float:
        """Seconds, exactly `samples / sample_rate`."""
        return self.samples / self.sample_rate

    def blocks(self, seconds: float = BLOCK_SECONDS) -> Iterator[Samples]:
        """Stream the span as (C, n) arrays of at most `seconds`, `samples` in all.

        Raises:
            SoundError: The file no longer gives the samples that it gave when it was opened.
        """
        missing = self.samples
        for block in self.reader.blocks(*_span(self), max(1, round(seconds * self.sample_rate))):
            missing -= block.shape[1]
            yield block
        if missing:
            raise SoundError(
                f"{self.path} ends {missing} samples earlier than when it was opened",
                hint="the file changed while it was read: leave it in peace and start again",
            )

    def mono_blocks(self, rate: int = ENCODER_RATE, *, channel: int | None = None) -> Iterator[Samples]:
        """Stream the channels' mean, or one channel, at `rate` Hz as (n,) arrays, `length_at(rate)` samples in all.

        Sample-aligned: what sounds at t seconds in the file is at sample `t * rate`.
        """
        blocks = self.blocks()
        mono = (block.mean(axis=0, dtype=np.float32) if channel is None else block[channel] for block in blocks)
        if rate == self.sample_rate:
            return mono
        rows = (block[None] for block in mono)
        return (block[0] for block in resampled(rows, self.sample_rate, rate, self.length_at(rate), channels=1))

    def length_at(self, rate: int) -> int:
        """How many samples the span has when it is resampled to `rate` Hz; at least 1."""
        return max(1, round(Fraction(self.samples * rate, self.sample_rate)))

    def read(self) -> Samples:
        """The whole span, (C, samples); only for those who have the memory."""
        return np.concatenate(list(self.blocks()), axis=1)


def open_track(path: Path, *, start: float = 0.0, duration: float | None = None) -> Track:
    """Check a sound file, or the sound of a video file, by decoding the wanted span once.

    Args:
        path: wav, flac, ogg, mp3, m4a, opus, mp4, ...; any rate, any number of channels.
        start: Seconds to skip.
        duration: Seconds to keep, or what there is of them; everything up to the end when None.

    Raises:
        SoundError: There is no such file, it holds no sound, or none that can be used.
        VideoError: ffmpeg is needed for this file and missing.
    """
    _check_span(start, duration)
    reader, samples = survey(path, start=start, duration=duration)
    if samples == 0:
        raise _nothing_heard(reader, start)
    first, stop = _wanted(reader, start, duration)
    return Track(
        path=path,
        sample_rate=reader.sample_rate,
        channels=reader.channels,
        samples=samples,
        start=start,
        whole=first == 0 and (stop is None or samples < stop),
        title=reader.title,
        reader=reader,
    )


def survey(path: Path, *, start: float = 0.0, duration: float | None = None, stream: int = 0) -> tuple[Reader, int]:
    """Decode the wanted span of a file once: what can read it, and how many samples there are, which may be none.

    Args:
        path: The file.
        start: Seconds to skip.
        duration: Seconds wanted; everything up to the end when None.
        stream: Which of the file's sound streams.

    Raises:
        SoundError: There is no such file, or it holds no sound that can be used.
        VideoError: ffmpeg is needed for this file and missing.
    """
    _check_file(path)
    problem: SoundError | None = None
    for reader in readers_for(path, stream):
        try:
            return reader, _count(reader, *_wanted(reader, start, duration))
        except DamagedSoundError as error:  # ffmpeg goes on where libsndfile gives up
            problem = problem or error
    raise problem or SoundError(f"{path} cannot be read")


def resampled(blocks: Iterator[Samples], source: int, rate: int, length: int, *, channels: int) -> Iterator[Samples]:
    """Resample a stream of (C, n) blocks; soxr takes its own delay off, and the end is cut or filled to `length`."""
    import soxr

    stream = soxr.ResampleStream(source, rate, channels, dtype="float32", quality="HQ")
    missing = length
    for block in blocks:
        heard = stream.resample_chunk(np.ascontiguousarray(block.T))[:missing].T
        missing -= heard.shape[1]
        if heard.shape[1]:
            yield heard
    rest = stream.resample_chunk(np.zeros((0, channels), np.float32), last=True)[:missing].T
    if missing:
        yield np.pad(rest, ((0, 0), (0, missing - rest.shape[1])))


def _wanted(reader: Reader, start: float, duration: float | None) -> tuple[int, int | None]:
    """The samples [first, stop) of a span."""
    first = round(start * reader.sample_rate)
    return first, None if duration is None else first + max(1, round(duration * reader.sample_rate))


def _span(track: Track) -> tuple[int, int]:
    first = round(track.start * track.sample_rate)
    return first, first + track.samples


def _check_span(start: float, duration: float | None) -> None:
    if not 0 <= start < float("inf"):
        raise SoundError(f"a track cannot start at {start:g} s", hint="start is 0 s or more")
    if duration is not None and not 0 < duration < float("inf"):
        raise SoundError(f"a track cannot last {duration:g} s", hint="duration is more than 0 s")


def _check_file(path: Path) -> None:
    try:
        if path.is_dir():
            raise SoundError(f"{path} is a folder, not a sound file", hint="name a file inside it")
        if not path.exists():
            raise SoundError(f"{path}: no such file", hint="check the spelling and the folder you are in")
        if not path.is_file():
            raise SoundError(f"{path} is a device or a pipe, not a sound file", hint="save the sound to a file first")
        if path.stat().st_size == 0:
            raise SoundError(f"{path} is empty (0 bytes)", hint="copy or export the sound again")
        with path.open("rb"):
            pass
    except OSError as error:
        raise SoundError(f"{path} cannot be read: {error.strerror}", hint="check its permissions") from error


def _count(reader: Reader, first: int, stop: int | None) -> int:
    """Decode the span; count the samples, refuse what is not a number."""
    samples = 0
    for block in reader.blocks(first, stop, round(BLOCK_SECONDS * reader.sample_rate)):
        if not np.isfinite(block).all():
            column = int(np.argmin(np.isfinite(block).all(axis=0)))
            raise SoundError(
                f"{reader.path} holds samples that are not numbers (NaN or infinite), "
                f"the first at {(first + samples + column) / reader.sample_rate:.3f} s",
                hint="export the sound again, as 16- or 24-bit if need be",
            )
        samples += block.shape[1]
    return samples


def _nothing_heard(reader: Reader, start: float) -> SoundError:
    path = reader.path
    if start == 0:
        return SoundError(f"{path} holds no samples (0 s of sound)", hint="copy or export the sound again")
    length = _count(reader, 0, None)
    return SoundError(
        f"{path} lasts {length / reader.sample_rate:.3f} s, so nothing is left after {start:g} s",
        hint="choose an earlier start",
    )
