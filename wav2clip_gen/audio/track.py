"""From a file to a `Track`: a checked handle on audio, decoded block by block and never held whole.

Every format is decoded by ffmpeg. For 4 minutes of stereo that takes 0.2 s (wav) to 0.4 s (flac) where libsndfile takes
0.05 to 0.2 s, with the same samples and the same memory: not worth a second decoder.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import IO

import numpy as np

from wav2clip_gen import ffmpeg
from wav2clip_gen.audio import stamps
from wav2clip_gen.audio.downmix import ChannelMeter, Weights, mix_down
from wav2clip_gen.errors import SoundError

Samples = stamps.Samples

ENCODER_RATE = 16_000  # Hz, the input of Wav2CLIP
BLOCK_SECONDS = 10.0
RESAMPLING_SLACK = 2  # samples by which a resampled stream may end early
CHANGED = "the file changed while it was read: leave it unchanged and start again"


@dataclass(frozen=True, eq=False, kw_only=True)
class Track:
    """A span of an audio file that was decoded once from end to end; its samples stay in the file.

    Sample `n` of the file is the one played at `n / rate` seconds by the file's presentation time stamps, counted from
    the file's zero, which in a video is the start of its picture or of its sound, whichever comes first.
    """

    path: Path
    stream: int = 0  # which of the file's audio streams
    file_rate: int  # Hz
    channels: int
    layout: str  # ffmpeg's name for the channels, such as 5.1(side)
    sample_rate: int  # Hz; the samples are resampled if the file has another one
    samples: int  # per channel, counted by decoding; at least 1
    decoded: int  # of these, how many the file holds; silence follows
    start: float  # seconds into the file
    whole: bool  # the span is the whole file
    title: str | None = None
    edits: tuple[stamps.Edit, ...] = ()  # where the decoded samples are not what is played
    contiguous: bool = True  # the stamps begin at 0 and have no holes, and the format never changes
    notes: tuple[str, ...] = ()  # for the user, a line each
    mono_weights: Weights | None = None  # of the channels in the mono signal; None for their mean

    @property
    def duration(self) -> float:
        """Seconds, exactly `samples / sample_rate`."""
        return self.samples / self.sample_rate

    def blocks(self, seconds: float = BLOCK_SECONDS) -> Iterator[Samples]:
        """Stream the span as (C, n) arrays of at most `seconds`, `samples` in all.

        Raises:
            SoundError: The file is damaged, or no longer has the samples that it had when it was opened.
        """
        size, first = max(1, round(seconds * self.sample_rate)), round(self.start * self.sample_rate)
        decoded = missing = min(self.decoded, self.samples)
        for block in self.decode(first, first + decoded, size):
            missing -= block.shape[1]
            yield block
        if missing > (RESAMPLING_SLACK if self.sample_rate != self.file_rate else 0):
            raise SoundError(f"{self.path} ends {missing} samples earlier than when it was opened", hint=CHANGED)
        for position in range(decoded - missing, self.samples, size):
            yield np.zeros((self.channels, min(size, self.samples - position)), np.float32)

    def decode(self, first: int, stop: int | None, size: int) -> Iterator[Samples]:
        """Stream samples [first, stop) of the file as (C, n) arrays, 0 < n <= size; up to its end if `stop` is None.

        The file is always decoded from its beginning, so that spans are exact.
        """
        filters = self._filters()
        if self.sample_rate != self.file_rate:
            filters.append(f"aresample={self.sample_rate}")
        if not self.edits and self.contiguous:
            filters.append(f"atrim=start_sample={first}" + ("" if stop is None else f":end_sample={stop}"))
            yield from self._read(filters, size)
            return
        edits = [edit.at_rate(self.sample_rate, self.file_rate) for edit in self.edits]
        yield from stamps.place(self._read(filters, size), edits, first, stop, size)

    def _filters(self) -> list[str]:
        """The layout is named, because where ffmpeg has to guess one it mixes the channels to fit."""
        named = "" if " " in self.layout else f":channel_layouts={self.layout}"  # "9 channels" have no names
        return [f"aformat=sample_rates={self.file_rate}{named}"]

    def _read(self, filters: list[str], size: int, log: IO[bytes] | None = None) -> Generator[Samples, None, None]:
        """Stream what ffmpeg decodes."""
        logged = [] if log is None else ["-loglevel", "level+info", "-nostats", "-copyts"]
        command = [*logged, "-i", ffmpeg.file_url(self.path), "-map", f"0:a:{self.stream}", "-af", ",".join(filters)]
        raw = ["-c:a", "pcm_f32le", "-f", "f32le", "pipe:1"]
        try:
            with ffmpeg.reading([*command, *raw], purpose=f"decode {self.path}", log=log) as pipe:
                while content := pipe.read(size * self.channels * 4):
                    interleaved = np.frombuffer(content, dtype="<f4").reshape(-1, self.channels)
                    yield np.ascontiguousarray(interleaved.T, dtype=np.float32)
        except ffmpeg.FFmpegError as error:
            raise SoundError(error.what, hint="the file seems damaged: copy or export it again") from error

    def scan(self, first: int, stop: int | None, tolerance: float) -> Track:
        """This track with the time line of its stamps and its samples in [first, stop), by decoding up to there.

        Raises:
            SoundError: The file is damaged, or holds what is not a number.
        """
        size, meter = round(BLOCK_SECONDS * self.file_rate), ChannelMeter(self.file_rate)
        with stamps.temporary_log() as (written, read):
            reader = stamps.StampReader(read, self.file_rate, str(self.path), tolerance)
            with closing(self._read([*self._filters(), stamps.SHOWN], size, written)) as decoded:
                placed = stamps.place(reader.follow(decoded), reader.edits, first, stop, size)
                samples = _count(placed, first, self, meter)
            reader.finish()
        return replace(
            self,
            samples=samples,
            decoded=samples,
            whole=first == 0 and (stop is None or samples < stop),
            edits=tuple(reader.edits),
            contiguous=reader.contiguous,
            notes=reader.notes(),
            mono_weights=meter.weights(),
        )

    def mono_blocks(self, rate: int = ENCODER_RATE, *, channel: int | None = None) -> Iterator[Samples]:
        """Stream the mono signal, or one channel, at `rate` Hz as (n,) arrays, `length_at(rate)` samples in all.

        Sample-aligned: the sound at t seconds in the file is at sample `t * rate`.
        """
        resampler = Resampler(self, rate)
        for block in self.blocks():
            yield resampler.push(mix_down(block, self.mono_weights) if channel is None else block[channel])
        yield resampler.finish()

    def length_at(self, rate: int) -> int:
        """How many samples the span has when it is resampled to `rate` Hz; at least 1."""
        return max(1, round(Fraction(self.samples * rate, self.sample_rate)))

    def read(self) -> Samples:
        """The whole span, (C, samples), in memory."""
        return np.concatenate(list(self.blocks()), axis=1)


class Resampler:
    """Resamples a mono signal of a track's length, block by block; soxr compensates its own delay.

    Not by ffmpeg, so that a signal that was decoded once can be resampled to several rates.
    """

    def __init__(self, track: Track, rate: int) -> None:
        self._missing = track.length_at(rate)
        self._stream = None
        if rate != track.sample_rate:
            import soxr

            self._stream = soxr.ResampleStream(track.sample_rate, rate, 1, dtype="float32", quality="HQ")

    def push(self, block: Samples, *, last: bool = False) -> Samples:
        """Add (n,) samples; return those that are ready, which may be none."""
        ready = self._stream.resample_chunk(block, last=last) if self._stream else block
        ready = ready[: self._missing]
        self._missing -= len(ready)
        return ready

    def finish(self) -> Samples:
        """The remaining samples, padded to the exact length."""
        return np.pad(self.push(np.zeros(0, np.float32), last=True), (0, self._missing))


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
    if not 0 <= start < float("inf"):
        raise SoundError(f"a track cannot start at {start:g} s", hint="start is 0 s or more")
    if duration is not None and not 0 < duration < float("inf"):
        raise SoundError(f"a track cannot last {duration:g} s", hint="duration is more than 0 s")
    stems = ".stem" in path.name.casefold()  # the others of a .stem.mp4 are no choice
    stream, streams = (0, 1) if stems else ffmpeg.default_sound(path)
    track = survey(path, start=start, duration=duration, stream=stream)
    if streams > 1:
        which = f"{path} holds {streams} sounds; the {'default' if stream else 'first'} one, {stream + 1}, is used"
        track = replace(track, notes=(which, *track.notes))
    if track.samples == 0 and start == 0:
        raise _no_samples(path)
    if track.samples == 0:
        raise SoundError(
            f"{path} lasts {survey(path, stream=stream).duration:.3f} s, so nothing is left after {start:g} s",
            hint="choose an earlier start",
        )
    return replace(track, title=ffmpeg.read_title(path))


def survey(
    path: Path,
    *,
    start: float = 0.0,
    duration: float | None = None,
    stream: int = 0,
    tolerance: float = stamps.TOLERANCE,
) -> Track:
    """As `open_track`, of any audio stream of the file, without its title, and there may be no samples.

    Smaller deviations of the stamps than `tolerance`, in seconds, are left as they are.
    """
    _check_file(path)
    try:
        sound = ffmpeg.read_sound(path, stream=stream)
    except ffmpeg.FFmpegError as error:
        if "matches no streams" in error.message:
            raise SoundError(f"{path} holds no sound", hint="give a sound file, or a video file with sound") from error
        raise SoundError(
            f"{path} is not a sound file that can be read ({error.message})",
            hint="give a wav, flac, ogg, mp3, m4a, opus or video file",
        ) from error
    if sound.channels == 0:
        raise _no_samples(path)
    rate = sound.sample_rate
    first = round(start * rate)
    stop = None if duration is None else first + max(1, round(duration * rate))
    track = Track(
        path=path,
        stream=stream,
        file_rate=rate,
        channels=sound.channels,
        layout=sound.header.get("channel_layout_name", ""),
        sample_rate=rate,
        samples=0,
        decoded=0,
        start=start,
        whole=False,
    )
    return track.scan(first, stop, tolerance)


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


def _count(blocks: Iterable[Samples], first: int, track: Track, meter: ChannelMeter) -> int:
    """Count and measure samples, the first of which is sample `first` of the file; refuse what is not a number."""
    samples = 0
    for block in blocks:
        if not np.isfinite(block).all():
            column = int(np.argmin(np.isfinite(block).all(axis=0)))
            raise SoundError(
                f"{track.path} holds samples that are not numbers (NaN or infinite), "
                f"the first at {(first + samples + column) / track.file_rate:.3f} s",
                hint="export the sound again, as 16- or 24-bit if need be",
            )
        meter.add(block)
        samples += block.shape[1]
    return samples


def _no_samples(path: Path) -> SoundError:
    return SoundError(f"{path} holds no samples (0 s of sound)", hint="copy or export the sound again")
