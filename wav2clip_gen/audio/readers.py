"""Two ways to decode a file: libsndfile where it can, ffmpeg for the rest. Both give the same blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from wav2clip_gen import ffmpeg
from wav2clip_gen.errors import SoundError, VideoError

if TYPE_CHECKING:
    from soundfile import SoundFile


class DamagedSoundError(SoundError):
    """A file broke off while it was decoded, in a way that this reader cannot go past."""


class Reader(Protocol):
    """Knows one sound file and streams any span of it."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def sample_rate(self) -> int:
        """Samples per second and channel."""

    @property
    def channels(self) -> int:
        """Number of channels."""

    @property
    def title(self) -> str | None:
        """Title from the file's own metadata."""

    def blocks(self, first: int, stop: int | None, size: int) -> Iterator[NDArray[np.float32]]:
        """Stream samples [first, stop) as (C, n) arrays, 0 < n <= size; up to the end when `stop` is None.

        Raises:
            DamagedSoundError: The file is broken in a way that this reader cannot go past.
        """


@dataclass(frozen=True)
class SoundfileReader:
    """Decodes with libsndfile: fast, and in our own process."""

    path: Path
    sample_rate: int  # Hz
    channels: int
    title: str | None

    @classmethod
    def open(cls, path: Path) -> SoundfileReader | None:
        """A reader for `path`, or None when libsndfile does not know this kind of file well enough."""
        import soundfile

        if _is_mpeg(path):
            return None
        try:
            with soundfile.SoundFile(path) as sound:
                # libsndfile leaves surround Vorbis and Opus in their own channel order, not in everybody's
                if sound.format == "OGG" and sound.channels > 2:
                    return None
                title = sound.copy_metadata().get("title", "").strip() or None
                return cls(path, sound.samplerate, sound.channels, title)
        except (soundfile.SoundFileError, OSError):
            return None

    def blocks(self, first: int, stop: int | None, size: int) -> Iterator[NDArray[np.float32]]:
        """See `Reader`."""
        import soundfile

        try:
            with soundfile.SoundFile(self.path) as sound:
                left = _left_after_seek(sound, first, stop)
                while left > 0:
                    block = sound.read(min(size, left), dtype="float32", always_2d=True)
                    if len(block) == 0:
                        return
                    left -= len(block)
                    yield np.ascontiguousarray(block.T)
        except soundfile.SoundFileError as error:
            raise DamagedSoundError(
                f"{self.path} is damaged: {error}", hint="copy or export the sound again"
            ) from error


def _is_mpeg(path: Path) -> bool:
    """Whether this is an mp3, which libsndfile reads, writing on the terminal where a file is cut short."""
    with path.open("rb") as file:
        head = file.read(3)
    return head == b"ID3" or (head[:1] == b"\xff" and head[1:2] >= b"\xe0")


def _left_after_seek(sound: SoundFile, first: int, stop: int | None) -> int:
    """Go to `first` and return how many samples to read from there; the header may promise too many."""
    end = sound.frames if stop is None else min(stop, sound.frames)
    if end > first:
        sound.seek(first)
    return end - first


@dataclass(frozen=True)
class FFmpegReader:
    """Decodes the rest with ffmpeg, always from the beginning of the file, so that spans are exact."""

    path: Path
    sample_rate: int  # Hz
    channels: int
    title: str | None
    layout: str  # ffmpeg's name for the loudspeakers, such as 5.1(side)
    stream: int = 0  # which of the file's sound streams

    @classmethod
    def open(cls, path: Path, stream: int = 0) -> FFmpegReader:
        """A reader for a sound stream of `path`.

        Raises:
            SoundError: ffmpeg finds no sound in it.
            VideoError: ffmpeg is missing.
        """
        ffmpeg.find_ffmpeg()  # a missing ffmpeg is no fault of the file
        try:
            sound = ffmpeg.read_sound(path, stream=stream)
        except VideoError as error:
            raise _not_sound(path, error) from error
        if sound.channels == 0:
            raise SoundError(f"{path} holds no samples (0 s of sound)", hint="copy or export the sound again")
        layout = sound.header.get("channel_layout_name", "")
        return cls(path, sound.sample_rate, sound.channels, ffmpeg.read_title(path), layout, stream)

    def blocks(self, first: int, stop: int | None, size: int) -> Iterator[NDArray[np.float32]]:
        """See `Reader`."""
        # every layout is named, for where ffmpeg has to guess one it mixes the channels to fit
        same = f"aformat=sample_rates={self.sample_rate}"
        if " " not in self.layout:  # unlike "9 channels", which have no names
            same += f":channel_layouts={self.layout}"
        trim = f"atrim=start_sample={first}" + ("" if stop is None else f":end_sample={stop}")
        command = ["-i", ffmpeg.file_url(self.path), "-map", f"0:a:{self.stream}", "-af", f"{same},{trim}"]
        purpose = f"decode {self.path}"
        try:
            with ffmpeg.reading([*command, "-c:a", "pcm_f32le", "-f", "f32le", "pipe:1"], purpose=purpose) as pipe:
                while content := pipe.read(size * self.channels * 4):
                    interleaved = np.frombuffer(content, dtype="<f4").reshape(-1, self.channels)
                    yield np.ascontiguousarray(interleaved.T, dtype=np.float32)
        except VideoError as error:
            raise DamagedSoundError(error.what, hint="the file seems damaged: copy or export it again") from error


def _not_sound(path: Path, error: VideoError) -> SoundError:
    message = error.message if isinstance(error, ffmpeg.FFmpegError) else error.what
    if "matches no streams" in message:
        return SoundError(f"{path} holds no sound", hint="give a sound file, or a video file with sound")
    return SoundError(
        f"{path} is not a sound file that can be read ({message})",
        hint="give a wav, flac, ogg, mp3, m4a, opus or video file",
    )


def readers_for(path: Path, stream: int = 0) -> Iterator[Reader]:
    """The readers to try, best first; the last one raises when there is no sound. Only ffmpeg knows a second stream.

    Raises:
        SoundError: ffmpeg, the last resort, finds no sound in the file.
        VideoError: ffmpeg is needed and missing.
    """
    if stream == 0 and (quick := SoundfileReader.open(path)):
        yield quick
    yield FFmpegReader.open(path, stream)
