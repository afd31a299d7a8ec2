"""Where files land: checked before any work is done, and there whole or not at all."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wav2clip_gen.errors import OutputError


def check_output(path: Path, *, overwrite: bool = False, option: str = "--out") -> None:
    """Make sure that a file can be written, before any work is done for it; `option` is how its place was chosen.

    Raises:
        OutputError: Its folder is missing or cannot be written to, or the file exists and may not be replaced.
    """
    folder = path.parent
    try:
        if path.is_dir():
            raise OutputError(f"{path} is a folder", hint=f"name a file in it, such as {path / 'film.mp4'}")
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder} is a file, not a folder", hint=f"choose another folder with {option}")
        if not folder.exists():
            raise OutputError(f"the folder {folder} does not exist", hint=f"make it: mkdir -p {folder}")
        if path.exists() and not overwrite:
            raise OutputError(f"{path} exists", hint=f"use --overwrite to replace it, or another {option}")
        with scratch_path(path) as trial:
            trial.touch()
    except OSError as error:
        raise OutputError(
            f"cannot write into the folder {folder}: {error.strerror}", hint=f"choose another one with {option}"
        ) from error


def check_folder(folder: Path, pattern: str, *, overwrite: bool = False) -> None:
    """Make a folder, and make sure that what it holds of `pattern` may be removed; nothing is yet.

    Raises:
        OutputError: It holds such files and they may not be replaced, or it cannot be made or written to.
    """
    with _into(folder):
        folder.mkdir(parents=True, exist_ok=True)
        old = next(folder.glob(pattern), None)
        if old and not overwrite:
            raise OutputError(f"{folder} holds {old.name}", hint="use --overwrite to replace it, or another folder")
        with scratch_path(folder / "trial") as trial:
            trial.touch()


def empty_folder(folder: Path, pattern: str, *, overwrite: bool = False) -> None:
    """Remove from a folder what it holds of `pattern`. Errors are those of `check_folder`."""
    check_folder(folder, pattern, overwrite=overwrite)
    with _into(folder):
        for path in list(folder.glob(pattern)):
            path.unlink()


@contextmanager
def _into(folder: Path) -> Iterator[None]:
    """Tell what went wrong while a folder was written to."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write into the folder {folder}: {error.strerror}", hint="choose another one"
        ) from error


@contextmanager
def scratch_path(path: Path) -> Iterator[Path]:
    """Give a hidden neighbour of `path` on the same disk, nobody else's; whatever is in it is removed at the end."""
    scratch = path.with_name(f".w2c-{secrets.token_hex(6)}{path.suffix}")
    try:
        yield scratch
    finally:
        scratch.unlink(missing_ok=True)


@contextmanager
def appear_whole(path: Path, *, option: str = "--out") -> Iterator[Path]:
    """Give a temporary neighbour of `path`, renamed only on success; until then an old file stays as it is.

    Raises:
        OutputError: The new file cannot take its place; `option` is how that was chosen.
    """
    with scratch_path(path) as part:
        yield part
        try:
            part.replace(path)
        except OSError as error:
            raise OutputError(
                f"cannot put {path} in its place: {error.strerror}", hint=f"choose another {option}"
            ) from error


def hash_file(path: Path) -> str:
    """SHA-256 of what is in a file, in hexadecimal."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def written(path: Path, *, option: str = "--out") -> Iterator[Path]:
    """As `appear_whole`, for what is written inside the block: a disk that refuses it is told likewise.

    Raises:
        OutputError: The disk does not take the file; `option` is how its place was chosen.
    """
    try:
        with appear_whole(path, option=option) as part:
            yield part
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}", hint=f"choose another {option}") from error
