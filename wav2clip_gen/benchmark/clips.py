"""Clips of a data set: what is known of each, and its samples."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wav2clip_gen import ffmpeg
from wav2clip_gen.errors import SoundError

Samples = NDArray[np.float32]

BY_FFMPEG = {".m4a", ".mp4", ".webm", ".mkv", ".aac"}  # libsndfile reads the others, and faster


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A sound of a data set."""

    key: str  # unique in its set, as the set's table names it
    path: Path
    offset: int | None = None  # bytes into a shard; None if the file is the sound
    length: int = 0  # bytes in the shard
    stream: int = 0  # which audio stream of the file
    start: float = 0.0  # seconds
    duration: float | None = None  # seconds; None to the end
    labels: tuple[str, ...] = ()  # one, many, or none
    split: str = ""  # a fold's number, or train, val, test
    recording: str = ""  # that it was cut from: a fold must not share it with another
    captions: tuple[str, ...] = ()

    def read(self) -> bytes:
        """The bytes of the encoded sound.

        Raises:
            SoundError: They cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset or 0)
                content = file.read() if self.offset is None else file.read(self.length)
        except OSError as error:
            raise SoundError(f"{self.path}: cannot be read ({error.strerror})", hint="fetch the data again") from None
        return content

    def hash(self, content: bytes) -> str:
        """What names the sound in a cache: a digest (32 hexadecimal digits) of its bytes and the part that is used."""
        part = f"{self.stream} {self.start} {self.duration}".encode()
        return hashlib.sha256(part + content).hexdigest()[:32]

    def decode(self, content: bytes, rate: int) -> Samples:
        """The samples (N,) at `rate` Hz, float32 in [-1, 1], the mean of the channels; at least one.

        Raises:
            SoundError: The sound is damaged or empty.
        """
        by_ffmpeg = self.path.suffix.lower() in BY_FFMPEG
        samples = _decode_by_ffmpeg(self, rate) if by_ffmpeg else _decode(content, self.name, rate)
        first = round(self.start * rate)
        last = len(samples) if self.duration is None else first + max(round(self.duration * rate), 1)
        samples = samples[first:last]
        if not len(samples) or not np.isfinite(samples).all():
            raise SoundError(f"{self.name}: holds no usable sound", hint="fetch the data again")
        return samples

    @property
    def name(self) -> str:
        """Its name in messages."""
        return str(self.path) if self.offset is None else f"{self.path.name}:{self.key}"


def _decode(content: bytes, name: str, rate: int) -> Samples:
    import soundfile
    import soxr

    try:
        samples, own = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise SoundError(f"{name}: cannot be decoded ({error})", hint="fetch the data again") from None
    mono = samples.mean(axis=1)
    return np.asarray(mono if own == rate or not len(mono) else soxr.resample(mono, own, rate), np.float32)


def _decode_by_ffmpeg(clip: Clip, rate: int) -> Samples:
    command = ["-i", ffmpeg.file_url(clip.path), "-map", f"0:a:{clip.stream}", "-ac", "1", "-ar", str(rate)]
    try:
        with ffmpeg.reading([*command, "-f", "f32le", "pipe:1"], purpose=f"decode {clip.path}") as pipe:
            return np.frombuffer(bytearray(pipe.read()), np.float32)  # writable, for torch
    except ffmpeg.FFmpegError as error:
        raise SoundError(error.what, hint="fetch the data again") from error


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Clips with labels or captions, in their official splits."""

    name: str  # as in results
    clips: tuple[Clip, ...]
    classes: tuple[str, ...] = ()  # all labels, in the set's own order
    folds: bool = False  # the splits are folds for cross-validation, not train, val and test
    many_labels: bool = False  # a clip may have more than one label
    notes: list[str] = field(default_factory=list)  # for the user: what was left out, and why

    def split(self, *names: str) -> list[Clip]:
        """The clips of some splits, in order."""
        return [clip for clip in self.clips if clip.split in names]

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits that have clips, folds by their numbers."""
        found = {clip.split for clip in self.clips}
        return tuple(sorted(found, key=lambda name: (len(name), name) if self.folds else (0, name)))


def spoken(label: str) -> str:
    """A label as it is written in a text: `dog_bark` as `dog bark`."""
    return label.replace("_", " ").strip().lower()


def shared_recordings(parts: Sequence[Sequence[Clip]]) -> set[str]:
    """The recordings that clips of more than one part were cut from."""
    seen: dict[str, int] = {}
    shared = set()
    for number, clips in enumerate(parts):
        for clip in clips:
            if clip.recording and seen.setdefault(clip.recording, number) != number:
                shared.add(clip.recording)
    return shared
