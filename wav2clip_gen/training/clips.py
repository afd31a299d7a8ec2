"""Which videos there are: a folder of them, a table with their paths, or VGGSound's own table.

    path,start,split              youtube_id,start,label,split   (VGGSound, without this line)
    concerts/a.mp4,30,train       ---g-f_I2yQ,1,people marching,test

VGGSound's clips are files ID_START.mp4 (start with six digits), anywhere below the table's folder.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wav2clip_gen.errors import TrainingError

SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
CLIP_SECONDS = 10.0  # of a video that are used
SPLITS = {"train": "train", "test": "held out", "val": "held out", "valid": "held out", "validation": "held out"}
HELD_OUT_SHARE = 0.05  # of the videos, where nothing says which
FEWEST = 2  # clips on either side: a contrast needs another one
LAYOUT = "a table has the columns path[,start][,split], or is VGGSound's: youtube_id,start,label,split"


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Ten seconds of a video."""

    path: Path
    start: float = 0.0  # seconds into the file
    video: str  # what it was cut from: clips of one video are on one side of the split
    split: str = ""  # "train", "held out", or empty where nothing says which

    @property
    def name(self) -> str:
        """What to call it."""
        return f"{self.path.name} at {self.start:g} s" if self.start else self.path.name


def find_clips(source: Path) -> list[Clip]:
    """The clips of a folder or table, whether they can be read or not, in a fixed order.

    Raises:
        TrainingError: There is no such folder or table, it names no video, or it is none of the known layouts.
    """
    if source.is_dir():
        paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        found = [Clip(path=path, video=_video_of(path.relative_to(source))) for path in paths]
    elif source.is_file():
        found = _listed(source)
    else:
        raise TrainingError(f"{source}: no such folder or table of videos", hint="give another one with --videos")
    if not found:
        raise TrainingError(
            f"{source}: there is no video ({', '.join(SUFFIXES)}) in it", hint="give another one with --videos"
        )
    return found


def split(clips: Sequence[Clip]) -> tuple[list[Clip], list[Clip]]:
    """Those to train on and those held out: as the table says, else by the digests of the videos' names.

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


def _listed(table: Path) -> list[Clip]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(f"{table}: cannot be read as a table ({error})", hint=LAYOUT) from None
    if rows and "path" in rows[0]:
        return [_own_row(table, dict(zip(rows[0], row, strict=False)), line) for line, row in enumerate(rows[1:], 2)]
    if rows and all(len(row) == 4 and row[1].isdigit() for row in rows):
        files = {path.name: path for path in sorted(table.parent.rglob("*")) if path.suffix.lower() in SUFFIXES}
        return [_vggsound_row(table, row, line, files) for line, row in enumerate(rows, 1)]
    raise TrainingError(f"{table}: not a table of videos", hint=LAYOUT)


def _own_row(table: Path, row: dict[str, str], line: int) -> Clip:
    path = table.parent / row["path"]
    try:
        start = float(row.get("start") or 0)
    except ValueError:
        start = -1.0
    if not row["path"] or not 0 <= start < float("inf"):
        raise TrainingError(f"{table}, line {line}: needs a path, and a start in seconds if any", hint=LAYOUT)
    return Clip(path=path, start=start, video=_video_of(Path(row["path"])), split=_side(table, row.get("split"), line))


def _vggsound_row(table: Path, row: list[str], line: int, files: dict[str, Path]) -> Clip:
    name = f"{row[0]}_{int(row[1]):06d}.mp4"
    path = files.get(name, table.parent / name)
    return Clip(path=path, video=row[0], split=_side(table, row[3], line))


def _side(table: Path, word: str | None, line: int) -> str:
    if not word:
        return ""
    if word.lower() not in SPLITS:
        raise TrainingError(f"{table}, line {line}: {word!r} is no split", hint=f"choose from: {', '.join(SPLITS)}")
    return SPLITS[word.lower()]


def _video_of(path: Path) -> str:
    """The video that a file was cut from: its name without the time at which it starts."""
    return re.sub(r"_\d{6}$", "", str(path.with_suffix("")))
