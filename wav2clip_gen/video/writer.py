"""Pictures go in one by one, a film without sound comes out; no picture is kept."""

from __future__ import annotations

from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from wav2clip_gen import ffmpeg
from wav2clip_gen.errors import SettingsError, VideoError
from wav2clip_gen.files import appear_whole

Picture = NDArray[np.uint8]  # (H, W, 3) red, green, blue

CRF = 18  # x264's quality, 0 (lossless) to 51; at 18 the film is hard to tell from the pictures themselves


class FilmWriter:
    """A film that is being written: h264, yuv420p, constant frame rate, bt709.

    Use it as a context manager. The film appears at `path` when the block is left normally, and not at all
    when it is left by an exception.

    Args:
        path: The film; an old one is replaced at the end.
        size: Width and height of the pictures in pixels, both even.
        fps: Frames per second.
        upscale: Enlarge the film so many times (Lanczos).
        frames_dir: A folder for the pictures themselves, as 000000.png, 000001.png, ...

    Raises:
        SettingsError: A size that cannot be.
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
    ) -> None:
        _check(size)
        self.path = path
        self.size = size
        self.written = 0  # pictures so far
        self._fps = fps
        self._upscale = upscale
        self._frames_dir = frames_dir
        self._open = ExitStack()

    def __enter__(self) -> FilmWriter:
        if "libx264" not in ffmpeg.encoders():
            raise VideoError(
                f"{ffmpeg.find_ffmpeg()} has no h264 encoder (libx264)",
                hint="unset W2C_FFMPEG to use the bundled ffmpeg, which has it",
            )
        if self._frames_dir:
            _make_folder(self._frames_dir)
        with ExitStack() as opening:
            part = opening.enter_context(appear_whole(self.path))
            command = self._command(part)
            self._sink = opening.enter_context(ffmpeg.FFmpegSink(command, purpose=f"write {self.path}"))
            self._open = opening.pop_all()
        return self

    def write(self, picture: Picture) -> None:
        """Append one picture, (H, W, 3) uint8.

        Raises:
            ValueError: It is not such a picture, or has another size than the film.
            VideoError: It cannot be saved in the folder for frames.
            FFmpegGoneError: ffmpeg has left; let it pass, the end of the block makes a VideoError of it.
        """
        width, height = self.size
        if picture.shape != (height, width, 3) or picture.dtype != np.uint8:
            raise ValueError(f"a {width}x{height} film cannot take {picture.dtype} of shape {picture.shape}")
        if self._frames_dir:
            _save(picture, self._frames_dir / f"{self.written:06d}.png")
        self._sink.write(np.ascontiguousarray(picture).data)
        self.written += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def _command(self, part: Path) -> list[str]:
        """Colours are said twice: `scale` converts to bt709, the options tag the stream as bt709."""
        width, height = self.size
        scale = (
            f"scale={width * self._upscale}:{height * self._upscale}"
            ":flags=lanczos+accurate_rnd+full_chroma_int:out_color_matrix=bt709:out_range=tv"
        )
        pictures = [
            "-f",
            "rawvideo",
            "-pix_fmt",
            "rgb24",
            "-s:v",
            f"{width}x{height}",
            "-framerate",
            str(self._fps),
        ]
        colours = [
            "-color_primaries",
            "bt709",
            "-color_trc",
            "bt709",
            "-colorspace",
            "bt709",
            "-color_range",
            "tv",
        ]
        codec = ["-c:v", "libx264", "-preset", "medium", "-crf", str(CRF), "-fps_mode", "cfr", "-an"]
        target = ["-movflags", "+faststart", "-f", "mp4", "-y", ffmpeg.file_url(part)]
        return [*pictures, "-i", "pipe:0", "-vf", f"{scale},format=yuv420p", *codec, *colours, *target]


def _check(size: tuple[int, int]) -> None:
    width, height = size
    if width < 2 or height < 2 or width % 2 or height % 2:
        raise SettingsError(
            f"a film cannot be {width}x{height} pixels",
            hint="width and height are even numbers, as h264 wants them",
        )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VideoError(f"cannot make the folder {folder}: {error.strerror}", hint="choose another one") from error


def _save(picture: Picture, path: Path) -> None:
    from PIL import Image

    try:
        Image.fromarray(picture).save(path)
    except OSError as error:
        raise VideoError(f"cannot write {path}: {error.strerror}", hint="free some disk space") from error
