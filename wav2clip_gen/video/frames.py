"""Frames kept as PNG files, in a folder that may hold other pictures: only files of ours are ever removed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wav2clip_gen.errors import OutputError
from wav2clip_gen.files import scratch_path, settle

NAME = re.compile(r"\d{6,}\.png")
SOFTWARE = "w2c-gen"  # in the PNG's text, which proves that a frame is ours
PART = ".w2c-frame.png"  # one that is being written
HEAD = 256  # bytes of a PNG within which that text is found


def save_frame(picture: NDArray[np.uint8], folder: Path, number: int) -> None:
    """Write one frame (H, W, 3) as 000000.png, 000001.png, ...

    Raises:
        OutputError: The disk does not take it.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("Software", SOFTWARE)
    path, part = folder / name_frame(number), folder / PART
    try:
        Image.fromarray(picture).save(part, pnginfo=text)
        settle(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {error.strerror}", hint="free some disk space") from error


def name_frame(number: int) -> str:
    """The file name of a frame."""
    return f"{number:06d}.png"


def check_frames(folder: Path, count: int, *, overwrite: bool = False) -> None:
    """Make a folder, and check that it can take this many frames; nothing is removed yet.

    Raises:
        OutputError: It cannot be made or written to; it has frames that may not be overwritten, or other pictures where
            frames would be written.
    """
    with _described(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with scratch_path(folder / "trial") as trial:
            trial.touch()
        for path in sorted(path for path in folder.iterdir() if NAME.fullmatch(path.name)):
            if is_frame(path):
                if not overwrite:
                    raise OutputError(
                        f"{folder} holds {path.name}", hint="use --overwrite to replace it, or another folder"
                    )
            elif int(path.stem) < count:
                raise OutputError(
                    f"{path} is not known to be a frame of w2c-gen, and is not replaced",
                    hint="choose another --frames-dir, or move it away",
                )


def clear_frames(folder: Path, count: int, *, overwrite: bool = False) -> None:
    """Remove the frames of an older film from a folder. Arguments and errors are those of `check_frames`."""
    check_frames(folder, count, overwrite=overwrite)
    with _described(folder):
        for path in list(folder.iterdir()):
            if NAME.fullmatch(path.name) and is_frame(path):
                path.unlink()


def is_frame(path: Path) -> bool:
    """Whether a file is a frame that w2c-gen wrote."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return f"tEXtSoftware\0{SOFTWARE}".encode() in file.read(HEAD)


@contextmanager
def _described(folder: Path) -> Iterator[None]:
    """Raise failures to write into a folder as an OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write into the folder {folder}: {error.strerror}", hint="choose another one"
        ) from error
