"""Frames go in one by one, a film without sound comes out."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from wav2clip_gen import ffmpeg
from wav2clip_gen.errors import SettingsError, VideoError
from wav2clip_gen.video.frames import save_frame

Picture = NDArray[np.uint8]  # (H, W, 3) red, green, blue

# One thread, because the bytes depend on their number. A short lookahead, so that most frames of a chunk are encoded
# while others are made; measured at two seconds a chunk, the films are no larger.
ENCODER = ("-c:v", "libx264", "-preset", "medium", "-threads", "1", "-x264-params", "rc-lookahead=12:open-gop=0")
SMALLEST_TIMESCALE = 10_000  # ticks per second, as ffmpeg's own
CRF = 18  # x264's quality, 0 (lossless) to 51; at 18 the film is hard to tell from the pictures themselves


class FilmWriter:
    """Writes h264, yuv420p, bt709, at a constant frame rate; a context manager.

    Args:
        path: The film, as an mp4. It is complete when the block is left, and worthless if it is left by an exception.
        size: Width and height of the frames in pixels, both even.
        fps: Frames per second.
        upscale: Factor of enlargement (Lanczos).
        frames_dir: A folder for the frames themselves; see `check_frames`.
        first: Number of the first frame in that folder.
        on_picture: Called with each frame that was written.

    Raises:
        SettingsError: The size is not possible.
        VideoError: ffmpeg is missing, cannot write, or ends early; the hint says what to do.
    """

    def __init__(
        self,
        path: Path,
        *,
        size: tuple[int, int],
        fps: Fraction,
        upscale: int = 1,
        frames_dir: Path | None = None,
        first: int = 0,
        on_picture: Callable[[Picture], None] = lambda picture: None,
    ) -> None:
        _check(size)
        self.path = path
        self.size = size
        self.written = 0  # frames so far
        self._first = first
        self._fps = fps
        self._upscale = upscale
        self._frames_dir = frames_dir
        self._on_picture = on_picture

    def __enter__(self) -> FilmWriter:
        if "libx264" not in ffmpeg.encoders():
            raise VideoError(
                f"{ffmpeg.find_ffmpeg()} has no h264 encoder (libx264)",
                hint="unset W2C_FFMPEG to use the bundled ffmpeg, which has it",
            )
        self._ffmpeg = ffmpeg.feeding(self._command(), purpose=f"write {self.path}")
        self._feed = self._ffmpeg.__enter__()
        return self

    def write(self, picture: Picture) -> None:
        """Append one frame, (H, W, 3) uint8.

        Raises:
            ValueError: It has another type or size.
            OutputError: It cannot be saved in the folder for frames.
            FFmpegGoneError: ffmpeg has exited; let it pass, the end of the block raises a VideoError.
        """
        width, height = self.size
        if picture.shape != (height, width, 3) or picture.dtype != np.uint8:
            raise ValueError(f"a {width}x{height} film cannot take {picture.dtype} of shape {picture.shape}")
        if self._frames_dir:
            save_frame(picture, self._frames_dir, self._first + self.written)
        self._feed(np.ascontiguousarray(picture).data)
        self.written += 1
        self._on_picture(picture)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ffmpeg.__exit__(kind, error, trace)

    def _command(self) -> list[str]:
        """Colours need both: `scale` converts to bt709, the options tag the stream as bt709."""
        width, height = self.size
        scale = (
            f"scale={width * self._upscale}:{height * self._upscale}"
            ":flags=lanczos+accurate_rnd+full_chroma_int:out_color_matrix=bt709:out_range=tv"
        )
        frames = f"-f rawvideo -pix_fmt rgb24 -s:v {width}x{height} -framerate {self._fps} -i pipe:0".split()
        colors = ["-color_primaries", "bt709", "-color_trc", "bt709", "-colorspace", "bt709", "-color_range", "tv"]
        codec = [*ENCODER, "-crf", str(CRF), "-fps_mode", "cfr", "-an"]
        ticks, _ = timescale(self._fps)
        target = ["-video_track_timescale", str(ticks), "-f", "mp4", "-y", ffmpeg.file_url(self.path)]
        return [*frames, "-vf", f"{scale},format=yuv420p", *codec, *colors, *target]


def timescale(fps: Fraction) -> tuple[int, int]:
    """Ticks per second, and per frame, of a film: both are whole numbers."""
    scale = 1
    while fps.numerator * scale < SMALLEST_TIMESCALE:
        scale *= 2
    return fps.numerator * scale, fps.denominator * scale


def _check(size: tuple[int, int]) -> None:
    width, height = size
    if width < 2 or height < 2 or width % 2 or height % 2:
        raise SettingsError(
            f"a film cannot be {width}x{height} pixels",
            hint="width and height are even numbers, as h264 wants them",
        )
