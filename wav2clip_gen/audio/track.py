"""From a file to a `Track`: a checked handle on audio, decoded block by block and never held whole.

Every format is decoded by ffmpeg. For 4 minutes of stereo that takes 0.2 s (wav) to 0.4 s (flac) where libsndfile takes
0.05 to 0.2 s, with the same samples and the same memory: not worth a second decoder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wav2clip_gen import ffmpeg
from wav2clip_gen.errors import SoundError

Samples = NDArray[np.float32]

ENCODER_RATE = 16_000  # Hz, the input of Wav2CLIP
BLOCK_SECONDS = 10.0
RESAMPLING_SLACK = 2  # samples by which a resampled stream may end early
CHANGED = "the file changed while it was read: leave it unchanged and start again"


@dataclass(frozen=True)
class Source:
    """An audio stream of a file as ffmpeg decodes it, always from the beginning, so that spans are exact."""

    path: Path
    stream: int  # which of the file's audio streams
    sample_rate: int  # Hz
    channels: int
    layout: str  # ffmpeg's name for the channels, such as 5.1(side)

    @classmethod
    def open(cls, path: Path, stream: int = 0) -> Source:
        """Find an audio stream of a file.

        Raises:
            SoundError: ffmpeg finds no audio in it.
            VideoError: ffmpeg is missing.
        """
        try:
            sound = ffmpeg.read_sound(path, stream=stream)
        except ffmpeg.FFmpegError as error:
            raise _not_audio(path, error.message) from error
        if sound.channels == 0:
            raise _no_samples(path)
        return cls(path, stream, sound.sample_rate, sound.channels, sound.header.get("channel_layout_name", ""))

    def blocks(self, first: int, stop: int | None, size: int, *, rate: int | None = None) -> Iterator[Samples]:
        """Stream samples [first, stop) as (C, n) arrays, 0 < n <= size; up to the end when `stop` is None.

        Args:
            first: In samples at `rate`.
            stop: In samples at `rate`.
            size: At most so many samples at a time.
            rate: Resample to this rate in Hz; the file's own when None.

        Raises:
            SoundError: The file is damaged.
        """
        # the layout is named, because where ffmpeg has to guess one it mixes the channels to fit
        filters = f"aformat=sample_rates={self.sample_rate}"
        if " " not in self.layout:  # unlike "9 channels", which have no names
            filters += f":channel_layouts={self.layout}"
        if rate not in (None, self.sample_rate):
            filters += f",aresample={rate}"
        filters += f",atrim=start_sample={first}" + ("" if stop is None else f":end_sample={stop}")
        command = ["-i", ffmpeg.file_url(self.path), "-map", f"0:a:{self.stream}", "-af", filters]
        raw = ["-c:a", "pcm_f32le", "-f", "f32le", "pipe:1"]
        try:
            with ffmpeg.reading([*command, *raw], purpose=f"decode {self.path}") as pipe:
                while content := pipe.read(size * self.channels * 4):
                    interleaved = np.frombuffer(content, dtype="<f4").reshape(-1, self.channels)
                    yield np.ascontiguousarray(interleaved.T, dtype=np.float32)
        except ffmpeg.FFmpegError as error:
            raise SoundError(error.what, hint="the file seems damaged: copy or export it again") from error


@dataclass(frozen=True, eq=False)
class Track:
    """A span of an audio file that was decoded once from end to end; its samples stay in the file."""

    source: Source
    sample_rate: int  # Hz; the samples are resampled if the file has another one
    samples: int  # per channel, counted by decoding; at least 1
    decoded: int  # of these, how many the file holds; silence follows
    start: float  # seconds into the file
    whole: bool  # the span is the whole file
    title: str | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return self.source.path

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.source.channels

    @property
    def duration(self) -> float:
        """Seconds, exactly `samples / sample_rate`."""
        return self.samples / self.sample_rate

    def blocks(self, seconds: float = BLOCK_SECONDS) -> Iterator[Samples]:
        """Stream the span as (C, n) arrays of at most `seconds`, `samples` in all.

        Raises:
            SoundError: The file no longer has the samples that it had when it was opened.
        """
        size, first = max(1, round(seconds * self.sample_rate)), round(self.start * self.sample_rate)
        decoded = min(self.decoded, self.samples)
        missing = decoded
        for block in self.source.blocks(first, first + decoded, size, rate=self.sample_rate):
            missing -= block.shape[1]
            yield block
        if missing > (RESAMPLING_SLACK if self.sample_rate != self.source.sample_rate else 0):
            raise SoundError(f"{self.path} ends {missing} samples earlier than when it was opened", hint=CHANGED)
        for position in range(decoded - missing, self.samples, size):
            yield np.zeros((self.channels, min(size, self.samples - position)), np.float32)

    def mono_blocks(self, rate: int = ENCODER_RATE, *, channel: int | None = None) -> Iterator[Samples]:
        """Stream the channels' mean, or one channel, at `rate` Hz as (n,) arrays, `length_at(rate)` samples in all.

        Sample-aligned: the sound at t seconds in the file is at sample `t * rate`.
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
        """The whole span, (C, samples), in memory."""
        return np.concatenate(list(self.blocks()), axis=1)


def open_track(path: Path, *, start: float = 0.0, duration: float | None = None) -> Track:
    """Check an audio file, or the audio of a video file, by decoding the wanted span once.

    Args:
        path: wav, flac, ogg, mp3, m4a, opus, mp4, ...; any rate, any number of channels.
        start: Seconds to skip.
        duration: Seconds to keep, or what there is of them; everything up to the end when None.

    Raises:
        SoundError: There is no such file, it holds no audio, or none that can be used.
        VideoError: ffmpeg is missing.
    """
    _check_span(start, duration)
    source, samples = survey(path, start=start, duration=duration)
    if samples == 0:
        raise _empty_span(source, start)
    first, stop = _wanted(source, start, duration)
    return Track(
        source=source,
        sample_rate=source.sample_rate,
        samples=samples,
        decoded=samples,
        start=start,
        whole=first == 0 and (stop is None or samples < stop),
        title=ffmpeg.read_title(path),
    )


def survey(path: Path, *, start: float = 0.0, duration: float | None = None, stream: int = 0) -> tuple[Source, int]:
    """Decode the wanted span of a file once: its source, and how many samples there are, which may be none.

    Args:
        path: The file.
        start: Seconds to skip.
        duration: Seconds wanted; everything up to the end when None.
        stream: Which of the file's audio streams.

    Raises:
        SoundError: There is no such file, or it holds no audio that can be used.
        VideoError: ffmpeg is missing.
    """
    _check_file(path)
    source = Source.open(path, stream)
    return source, _count(source, *_wanted(source, start, duration))


def resampled(blocks: Iterator[Samples], source: int, rate: int, length: int, *, channels: int) -> Iterator[Samples]:
    """Resample a stream of (C, n) blocks; soxr compensates its own delay, and the end is cut or padded to `length`.

    Not by ffmpeg, so that a stream that was decoded once can be resampled to several rates.
    """
    import soxr

    stream = soxr.ResampleStream(source, rate, channels, dtype="float32", quality="HQ")
    missing = length
    for block in blocks:
        ready = stream.resample_chunk(np.ascontiguousarray(block.T))[:missing].T
        missing -= ready.shape[1]
        if ready.shape[1]:
            yield ready
    rest = stream.resample_chunk(np.zeros((0, channels), np.float32), last=True)[:missing].T
    if missing:
        yield np.pad(rest, ((0, 0), (0, missing - rest.shape[1])))


def _wanted(source: Source, start: float, duration: float | None) -> tuple[int, int | None]:
    """The samples [first, stop) of a span."""
    first = round(start * source.sample_rate)
    return first, None if duration is None else first + max(1, round(duration * source.sample_rate))


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


def _count(source: Source, first: int, stop: int | None) -> int:
    """Decode the span; count the samples, refuse what is not a number."""
    samples = 0
    for block in source.blocks(first, stop, round(BLOCK_SECONDS * source.sample_rate)):
        if not np.isfinite(block).all():
            column = int(np.argmin(np.isfinite(block).all(axis=0)))
            raise SoundError(
                f"{source.path} holds samples that are not numbers (NaN or infinite), "
                f"the first at {(first + samples + column) / source.sample_rate:.3f} s",
                hint="export the sound again, as 16- or 24-bit if need be",
            )
        samples += block.shape[1]
    return samples


def _empty_span(source: Source, start: float) -> SoundError:
    if start == 0:
        return _no_samples(source.path)
    length = _count(source, 0, None) / source.sample_rate
    return SoundError(
        f"{source.path} lasts {length:.3f} s, so nothing is left after {start:g} s", hint="choose an earlier start"
    )


def _no_samples(path: Path) -> SoundError:
    return SoundError(f"{path} holds no samples (0 s of sound)", hint="copy or export the sound again")


def _not_audio(path: Path, message: str) -> SoundError:
    if "matches no streams" in message:
        return SoundError(f"{path} holds no sound", hint="give a sound file, or a video file with sound")
    return SoundError(
        f"{path} is not a sound file that can be read ({message})",
        hint="give a wav, flac, ogg, mp3, m4a, opus or video file",
    )
