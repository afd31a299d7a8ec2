"""Cut a film at its key frames without encoding it again, and read pictures from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wav2clip_gen import ffmpeg
from wav2clip_gen.errors import VideoError

PIECE = "film.{}"  # the name of a piece


@dataclass(frozen=True)
class PictureFacts:
    """What a film's headers tell of its picture."""

    frames: int
    key_frames: tuple[int, ...]  # at which it can be cut: no frame before depends on one after, nor the reverse
    size: tuple[int, int]  # width and height in pixels


def read_picture(film: Path) -> PictureFacts:
    """Read where a film can be cut, and how large it is, without decoding it.

    Raises:
        VideoError: It cannot be read, or has no picture.
    """
    times, keys, size = list[int](), list[int](), ""
    for line in _framecrc(film, "-c:v", "copy"):
        if line.startswith("#dimensions"):
            size = line.split()[-1]
        elif not line.startswith("#"):
            _, _, shown, _, _, _, *flags = (word.strip() for word in line.split(","))
            keys += [len(times)] if not any(flag.startswith("F=") for flag in flags) else []
            times.append(int(shown))
    if not times:
        raise VideoError(f"{film} has no picture", hint="it is not a film")
    latest = [-1, *accumulate(times, max)]  # of the frames before
    earliest = [*accumulate(reversed(times), min)][::-1]  # of the frames from here on
    closed = tuple(key for key in keys if key == 0 or latest[key] < earliest[key])
    width, height = map(int, size.split("x"))
    return PictureFacts(len(times), closed, (width, height))


def picture_checksums(film: Path) -> list[str]:
    """A checksum of each decoded frame of a film.

    Raises:
        VideoError: It cannot be decoded.
    """
    lines = _framecrc(film, "-fps_mode", "passthrough", "-c:v", "rawvideo")
    return [line.split(",")[5].strip() for line in lines if not line.startswith("#")]


def _framecrc(film: Path, *options: str) -> Iterator[str]:
    command = ["-i", ffmpeg.file_url(film), "-map", "0:v:0", *options, "-f", "framecrc", "pipe:1"]
    with ffmpeg.reading(command, purpose=f"read {film}") as lines:
        yield from map(bytes.decode, lines)


def cut(film: Path, edges: Sequence[int], folder: Path) -> list[Path]:
    """Cut the picture of a film before some of its key frames, into pieces `film.0`, `film.1` and so on in a folder.

    Raises:
        VideoError: ffmpeg fails.
    """
    places = ["-segment_frames", ",".join(map(str, edges))] if edges else ["-segment_time", "1000000"]
    format_ = ["-segment_format", "mp4", "-reset_timestamps", "1", "-avoid_negative_ts", "disabled"]
    # a name with % would be taken for a pattern; ffmpeg's pattern for a % is %%
    pattern = ffmpeg.file_url(folder).replace("%", "%%") + "/" + PIECE.format("%d")
    picture = ["-i", ffmpeg.file_url(film), "-map", "0:v:0", "-c", "copy", "-f", "segment"]
    ffmpeg.run([*picture, *places, *format_, "-y", pattern], purpose=f"cut {film}")
    return [folder / PIECE.format(number) for number in range(len(edges) + 1)]


def read_pictures(film: Path, frames: range, fps: Fraction, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Some consecutive frames of a film, (n, H, W, 3), made `size` (width, height) if they are larger.

    Raises:
        VideoError: It cannot be decoded, or has fewer frames.
    """
    width, height = size
    begin = ["-ss", f"{float((frames.start - Fraction(1, 2)) / fps):.6f}"] if frames.start else []
    scale = f"scale={width}:{height}:flags=area+accurate_rnd+full_chroma_int:in_color_matrix=bt709:in_range=tv"
    picture = [
        "-map",
        "0:v:0",
        "-frames:v",
        str(len(frames)),
        "-fps_mode",
        "passthrough",
        "-vf",
        f"{scale},format=rgb24",
    ]
    command = [*begin, "-i", ffmpeg.file_url(film), *picture, "-f", "rawvideo", "pipe:1"]
    content = ffmpeg.run(command, purpose=f"read frames of {film}") if frames else b""
    if len(content) != len(frames) * width * height * 3:
        raise VideoError(f"{film} ends before frame {frames.stop}", hint="was it changed meanwhile?")
    return np.frombuffer(content, np.uint8).reshape(len(frames), height, width, 3)
