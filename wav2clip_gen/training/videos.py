"""Sounds with what was seen while they were heard: videos, decoded and embedded once, then read from a cache.

A clip in the cache is one safetensors file: `sound` (N,) int16 mono at 16 kHz, `frames` (F, D) float16, CLIP's unit
vectors of one frame a second. Training reads of a sound only the part it needs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from wav2clip_gen import ffmpeg
from wav2clip_gen.audio.track import ENCODER_RATE
from wav2clip_gen.errors import OutputError, TrainingError, VideoError
from wav2clip_gen.files import appear_whole, hash_file
from wav2clip_gen.models import checkpoints
from wav2clip_gen.models.clip import Perceptor
from wav2clip_gen.training.clips import CLIP_SECONDS, Clip, find_clips, split
from wav2clip_gen.training.distributed import ALONE, Group
from wav2clip_gen.training.keeping import make_room
from wav2clip_gen.training.plan import Prepared

FRAME_RATE = 1  # frames a second that CLIP sees
CLIP_BYTES = 360_000  # of a clip in the cache, at the most
SHORTEST = ENCODER_RATE  # samples of sound that a clip must have
REPORT_EVERY = 10  # clips


@dataclass(frozen=True, eq=False)
class Pair:
    """A clip in the cache."""

    name: str
    path: Path
    samples: int  # of its sound, at 16 kHz

    def sound(self, start: int, length: int) -> Tensor:
        """Part of its sound (length,) or what there is of it, float32 in [-1, 1]."""
        with safe_open(self.path, framework="np") as file:
            part = file.get_slice("sound")[start : min(start + length, self.samples)]
        return torch.from_numpy(part.astype(np.float32) / 32768)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Sounds and what was seen with them, on one side of the split."""

    pairs: tuple[Pair, ...]
    targets: Tensor  # (N, D) unit vectors, the mean over each clip's frames

    def __len__(self) -> int:
        return len(self.pairs)


class Videos:
    """A folder or table of videos, and the cache of what one frozen CLIP saw in them."""

    def __init__(self, source: Path, clip: Path, cache: Path, *, group: Group = ALONE) -> None:
        """Find the videos; nothing is decoded yet.

        Raises:
            TrainingError: There are none.
        """
        self.source, self.clip, self.group = source, clip, group
        self.clips = find_clips(source)
        self.clip_digest = hash_file(clip)
        self._cache = cache / f"clips-{self.clip_digest[:12]}"
        self._places = [self._cache / f"{_identity(clip)}.safetensors" for clip in self.clips]

    def prepare(self, device: torch.device) -> Iterator[Prepared]:
        """Decode and embed what is not in the cache, this process its share of it, telling how it goes.

        Raises:
            VideoError: There is no ffmpeg.
            OutputError: The disk is too small, or does not take the files.
        """
        ffmpeg.find_ffmpeg()
        lacking = [
            (clip, place)
            for clip, place in zip(self.clips, self._places, strict=True)
            if clip.path.is_file() and _read(clip, place) is None
        ]
        make_room(self._cache, CLIP_BYTES * len(lacking), what="the decoded clips")
        self.group.wait()  # before the first file is written, so that all see the same ones lacking
        mine, skipped = lacking[self.group.rank :: self.group.size], 0
        perceptor = checkpoints.load(self.clip, role="clip").to(device) if mine else None
        for number, (clip, place) in enumerate(mine, 1):
            assert isinstance(perceptor, Perceptor)
            try:
                sound, frames = decode(clip, perceptor.size)
            except (VideoError, TrainingError):
                skipped += 1
            else:
                _write(place, sound, _embedded(perceptor, frames))
            if number % REPORT_EVERY == 0 or number == len(mine):
                yield Prepared(number, len(mine), skipped)
        self.group.wait()

    def pairs(self) -> tuple[Pairs, Pairs, tuple[str, ...]]:
        """Those to train on, those held out, and the names of the clips that could not be read.

        Raises:
            TrainingError: Too few could.
        """
        found: dict[Clip, tuple[Pair, Tensor]] = {}
        for clip, place in zip(self.clips, self._places, strict=True):
            if (entry := _read(clip, place)) is not None:
                found[clip] = entry
        skipped = tuple(clip.name for clip in self.clips if clip not in found)
        if not found:
            raise TrainingError(
                f"{self.source}: none of its {len(self.clips)} clips can be read, not even {skipped[0]}",
                hint="give clips with a picture and a second of sound, or another folder",
            )
        train, held_out = (
            Pairs(tuple(found[clip][0] for clip in side), torch.stack([found[clip][1] for clip in side]))
            for side in split(list(found))
        )
        return train, held_out, skipped


def decode(clip: Clip, size: int) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Sound (N,) at 16 kHz and frames (F, size, size, 3), the middle square of each, of a clip.

    Raises:
        VideoError: ffmpeg cannot read it.
        TrainingError: It has no frame, or no second of sound that is not silence.
    """
    span = ["-ss", str(clip.start), "-t", str(CLIP_SECONDS), "-i", ffmpeg.file_url(clip.path)]
    wanted = ["-map", "0:a:0", "-ac", "1", "-ar", str(ENCODER_RATE), "-f", "s16le", "pipe:1"]
    heard = ffmpeg.run([*span, *wanted], purpose=f"read the sound of {clip.path}")
    sound = np.frombuffer(heard[: len(heard) // 2 * 2], dtype="<i2").astype(np.int16)
    if len(sound) < SHORTEST or not sound.any():
        raise TrainingError(f"{clip.name}: has no second of sound")
    square = f"scale={size}:{size}:force_original_aspect_ratio=increase:flags=bicubic,crop={size}:{size}"
    wanted = ["-map", "0:v:0", "-vf", f"fps={FRAME_RATE},{square}", "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"]
    seen = ffmpeg.run([*span, *wanted], purpose=f"read the picture of {clip.path}")
    count = len(seen) // (3 * size**2)
    if count == 0:
        raise TrainingError(f"{clip.name}: has no picture")
    return sound, np.frombuffer(seen, np.uint8)[: count * 3 * size**2].reshape(count, size, size, 3)


@torch.no_grad()
def _embedded(perceptor: Perceptor, frames: NDArray[np.uint8]) -> NDArray[np.float16]:
    pictures = torch.from_numpy(frames.copy()).to(perceptor.device).permute(0, 3, 1, 2).float() / 255
    return perceptor.encode_images(pictures).cpu().numpy().astype(np.float16)


def _write(place: Path, sound: NDArray[np.int16], frames: NDArray[np.float16]) -> None:
    try:
        with appear_whole(place, option="--runs") as part:
            save_file({"sound": sound, "frames": frames}, part)
    except (OSError, SafetensorError) as error:
        raise OutputError(
            f"cannot write {place}: {error}", hint="free some disk space, or choose another folder with --runs"
        ) from error


def _read(clip: Clip, place: Path) -> tuple[Pair, Tensor] | None:
    """A clip of the cache and the mean (D,) of its frames; None if it is not there or damaged."""
    if not place.is_file():
        return None
    try:
        with safe_open(place, framework="np") as file:
            frames = torch.from_numpy(file.get_tensor("frames")).float()
            samples = file.get_slice("sound").get_shape()[0]
    except (SafetensorError, OSError):
        return None
    return Pair(clip.name, place, samples), F.normalize(frames.mean(dim=0), dim=-1)


def _identity(clip: Clip) -> str:
    """What changes when a clip does: its file's place, size and date, and where it starts."""
    facts = clip.path.stat() if clip.path.is_file() else None
    told = [str(clip.path.absolute()), clip.start, facts and facts.st_size, facts and facts.st_mtime_ns]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:24]
