"""Videos to distill from: decoded and embedded with CLIP once, then read from a cache.

A source is a folder of videos, a table with their paths, or VGGSound's own table, whose clips are files ID_START.mp4
(start with six digits) anywhere below the table's folder:

    path,start,split              youtube_id,start,label,split   (VGGSound, without this line)
    concerts/a.mp4,30,train       ---g-f_I2yQ,1,people marching,test

A clip in the cache is a safetensors file: `sound` (N,) int16 mono at 16 kHz, `frames` (F, D) float16, CLIP's unit
vectors of one frame per second.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
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
from wav2clip_gen.errors import TrainingError, VideoError
from wav2clip_gen.files import appear_whole, hash_file
from wav2clip_gen.models import checkpoints
from wav2clip_gen.models.clip import Perceptor
from wav2clip_gen.training.distributed import SINGLE, World
from wav2clip_gen.training.schedule import ensure_space, writing
from wav2clip_gen.training.settings import CLIP_SECONDS
from wav2clip_gen.training.trainer import TrainingProgress

SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
SPLITS = {"train": "train", "test": "held out", "val": "held out", "valid": "held out", "validation": "held out"}
HELD_OUT_SHARE = 0.05  # of the videos, if the source does not give a split
FEWEST = 2  # clips on either side: a contrastive loss needs a negative
LAYOUT = "a table has the columns path[,start][,split], or is VGGSound's: youtube_id,start,label,split"
FRAME_RATE = 1  # frames per second that CLIP embeds
CLIP_BYTES = 360_000  # of a clip in the cache, at most
SHORTEST = ENCODER_RATE  # samples of sound that a clip must have
REPORT_EVERY = 10  # clips


@dataclass(frozen=True, kw_only=True)
class VideoClip:
    """Ten seconds of a video."""

    path: Path
    start: float = 0.0  # seconds into the file
    video: str  # what it was cut from: clips of one video are on one side of the split
    split: str = ""  # "train", "held out", or empty if the source does not give it

    @property
    def name(self) -> str:
        """Its name in messages."""
        return f"{self.path.name} at {self.start:g} s" if self.start else self.path.name


def find_clips(source: Path) -> list[VideoClip]:
    """The clips of a folder or table, readable or not, in a fixed order.

    Raises:
        TrainingError: There is no such folder or table, it names no video, or its layout is unknown.
    """
    another = "give another one with --videos"
    if source.is_dir():
        paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        found = [VideoClip(path=path, video=_video_of(path.relative_to(source))) for path in paths]
    elif source.is_file():
        found = _read_clip_table(source)
    else:
        raise TrainingError(f"{source}: no such folder or table of videos", hint=another)
    if not found:
        raise TrainingError(f"{source}: there is no video ({', '.join(SUFFIXES)}) in it", hint=another)
    return found


def split_clips(clips: Sequence[VideoClip]) -> tuple[list[VideoClip], list[VideoClip]]:
    """Training and held-out clips: as the source says, or by the hashes of the videos' names.

    Raises:
        TrainingError: Either side has too few.
    """
    if any(clip.split for clip in clips):
        held_out = {clip.video for clip in clips if clip.split == "held out"}
    else:
        videos = sorted({clip.video for clip in clips}, key=lambda name: hashlib.sha1(name.encode()).digest())
        held_out = set(videos[: max(round(HELD_OUT_SHARE * len(videos)), FEWEST)])
    train = [clip for clip in clips if clip.video not in held_out]
    rest = [clip for clip in clips if clip.video in held_out]
    if min(len(train), len(rest)) < FEWEST:
        raise TrainingError(
            f"{len(train)} clips to train on and {len(rest)} held out are too few",
            hint=f"give more: {FEWEST} of different videos at least on either side",
        )
    return train, rest


def _read_clip_table(table: Path) -> list[VideoClip]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(f"{table}: cannot be read as a table ({error})", hint=LAYOUT) from None
    if rows and "path" in rows[0]:
        entries = [dict(zip(rows[0], row, strict=False)) for row in rows[1:]]
    elif rows and all(len(row) == 4 and row[1].isdigit() for row in rows):
        files = {path.name: path for path in sorted(table.parent.rglob("*")) if path.suffix.lower() in SUFFIXES}
        names = [f"{row[0]}_{int(row[1]):06d}.mp4" for row in rows]
        entries = [
            {"path": str(files.get(name, name)), "split": row[3], "youtube_id": row[0]}
            for name, row in zip(names, rows, strict=True)
        ]
    else:
        raise TrainingError(f"{table}: not a table of videos", hint=LAYOUT)
    first = len(rows) - len(entries) + 1
    return [_clip_of_row(table, entry, line) for line, entry in enumerate(entries, first)]


def _clip_of_row(table: Path, row: dict[str, str], line: int) -> VideoClip:
    try:
        start = float(row.get("start") or 0)
    except ValueError:
        start = -1.0
    if not row["path"] or not 0 <= start < float("inf"):
        raise TrainingError(f"{table}, line {line}: needs a path, and a start in seconds if any", hint=LAYOUT)
    word = row.get("split", "")
    if word and word.lower() not in SPLITS:
        raise TrainingError(f"{table}, line {line}: {word!r} is no split", hint=f"choose from: {', '.join(SPLITS)}")
    video = row.get("youtube_id") or _video_of(Path(row["path"]))
    return VideoClip(path=table.parent / row["path"], start=start, video=video, split=SPLITS.get(word.lower(), ""))


def _video_of(path: Path) -> str:
    """The video that a file was cut from: its name without the time at which it starts."""
    return re.sub(r"_\d{6}$", "", str(path.with_suffix("")))


@dataclass(frozen=True, eq=False)
class CachedClip:
    """A decoded clip in the cache."""

    path: Path
    samples: int  # of its sound, at 16 kHz
    target: Tensor  # (D,) unit vector, the mean over its frames' embeddings

    def read_sound(self, start: int, length: int) -> Tensor:
        """Up to `length` samples (n,) of its sound, float32 in [-1, 1]."""
        with safe_open(self.path, framework="np") as file:
            part = file.get_slice("sound")[start : min(start + length, self.samples)]
        return torch.from_numpy(part.astype(np.float32) / 32768)


class VideoDataset:
    """The clips of a folder or table, and the cache of their sounds and image embeddings by one frozen CLIP."""

    def __init__(self, source: Path, clip_weights: Path, cache: Path, *, world: World = SINGLE) -> None:
        """Find the clips; nothing is decoded yet."""
        self.world = world
        self.clips = find_clips(source)
        self.clip_digest = hash_file(clip_weights)
        self._source, self._clip_weights = source, clip_weights
        self._cache = cache / f"clips-{self.clip_digest[:12]}"
        self._paths = [self._cache / f"{_fingerprint(clip)}.safetensors" for clip in self.clips]

    def prepare(self, device: torch.device) -> Iterator[TrainingProgress]:
        """Decode and embed what is not in the cache, this process its share of it.

        Raises:
            VideoError: There is no ffmpeg.
            OutputError: The disk is too small, or cannot be written.
        """
        ffmpeg.find_ffmpeg()
        missing = [
            (clip, path)
            for clip, path in zip(self.clips, self._paths, strict=True)
            if clip.path.is_file() and _read_cached(path) is None
        ]
        ensure_space(self._cache, CLIP_BYTES * len(missing), what="the decoded clips")
        self.world.barrier()  # before the first file is written, so that all processes find the same ones missing
        own, skipped = missing[self.world.rank :: self.world.size], 0
        perceptor = checkpoints.load(self._clip_weights, role="clip").to(device) if own else None
        for number, (clip, path) in enumerate(own, 1):
            assert isinstance(perceptor, Perceptor)
            try:
                sound, frames = decode_clip(clip, perceptor.size)
            except (VideoError, TrainingError):
                skipped += 1
            else:
                tensors = {"sound": sound, "frames": _embed(perceptor, frames)}
                hint = "free some disk space, or choose another folder with --runs"
                with writing(path, hint), appear_whole(path, option="--runs") as temporary:
                    save_file(tensors, temporary)
            if number % REPORT_EVERY == 0 or number == len(own):
                yield TrainingProgress(number, f"{number}/{len(own)} clips embedded, {skipped} skipped")
        self.world.barrier()

    def split(self) -> tuple[list[CachedClip], list[CachedClip], tuple[str, ...]]:
        """Training clips, held-out clips, and the names of unreadable ones.

        Raises:
            TrainingError: Too few can be read.
        """
        cached = {clip: _read_cached(path) for clip, path in zip(self.clips, self._paths, strict=True)}
        found = {clip: entry for clip, entry in cached.items() if entry is not None}
        skipped = tuple(clip.name for clip in self.clips if clip not in found)
        if not found:
            raise TrainingError(
                f"{self._source}: none of its {len(self.clips)} clips can be read, not even {skipped[0]}",
                hint="give clips with a picture and a second of sound, or another folder",
            )
        train, held_out = ([found[clip] for clip in side] for side in split_clips(list(found)))
        return train, held_out, skipped


def decode_clip(clip: VideoClip, size: int) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Sound (N,) at 16 kHz and frames (F, size, size, 3), the center square of each, of a clip.

    Raises:
        VideoError: ffmpeg cannot read it.
        TrainingError: It has no frame, or less than a second of sound, or only silence.
    """
    span = ["-ss", str(clip.start), "-t", str(CLIP_SECONDS), "-i", ffmpeg.file_url(clip.path)]
    output = ["-map", "0:a:0", "-ac", "1", "-ar", str(ENCODER_RATE), "-f", "s16le", "pipe:1"]
    audio = ffmpeg.run([*span, *output], purpose=f"read the sound of {clip.path}")
    sound = np.frombuffer(audio[: len(audio) // 2 * 2], dtype="<i2").astype(np.int16)
    if len(sound) < SHORTEST or not sound.any():
        raise TrainingError(f"{clip.name}: has no second of sound")
    square = f"scale={size}:{size}:force_original_aspect_ratio=increase:flags=bicubic,crop={size}:{size}"
    output = ["-map", "0:v:0", "-vf", f"fps={FRAME_RATE},{square}", "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"]
    video = ffmpeg.run([*span, *output], purpose=f"read the picture of {clip.path}")
    count = len(video) // (3 * size**2)
    if count == 0:
        raise TrainingError(f"{clip.name}: has no picture")
    return sound, np.frombuffer(video, np.uint8)[: count * 3 * size**2].reshape(count, size, size, 3)


@torch.no_grad()
def _embed(perceptor: Perceptor, frames: NDArray[np.uint8]) -> NDArray[np.float16]:
    images = torch.from_numpy(frames.copy()).to(perceptor.device).permute(0, 3, 1, 2).float() / 255
    return perceptor.encode_images(images).cpu().numpy().astype(np.float16)


def _read_cached(path: Path) -> CachedClip | None:
    """A clip of the cache; None if missing or damaged."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as file:
            frames = torch.from_numpy(file.get_tensor("frames")).float()
            samples = file.get_slice("sound").get_shape()[0]
    except (SafetensorError, OSError):
        return None
    return CachedClip(path, samples, F.normalize(frames.mean(dim=0), dim=-1))


def _fingerprint(clip: VideoClip) -> str:
    """Changes when a clip does: its file's path, size and date, and where it starts."""
    stat = clip.path.stat() if clip.path.is_file() else None
    facts = [str(clip.path.absolute()), clip.start, stat and stat.st_size, stat and stat.st_mtime_ns]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]
