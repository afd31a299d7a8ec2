"""Output files: checked before any work is done, and written atomically."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wav2clip_gen.errors import OutputError


def check_output(path: Path, *, overwrite: bool = False, option: str = "--out") -> None:
    """Check that a file can be written; `option` is the command-line option that chose it.

    Raises:
        OutputError: Its folder is missing or not writable, or the file exists and may not be overwritten.
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
    """Make a folder, and check that its files that match `pattern` may be removed; none is removed yet.

    Raises:
        OutputError: It has such files and they may not be overwritten, or it cannot be made or written to.
    """
    with _translate_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        old = next(folder.glob(pattern), None)
        if old and not overwrite:
            raise OutputError(f"{folder} holds {old.name}", hint="use --overwrite to replace it, or another folder")
        with scratch_path(folder / "trial") as trial:
            trial.touch()


def empty_folder(folder: Path, pattern: str, *, overwrite: bool = False) -> None:
    """Remove the files of a folder that match `pattern`. Errors are those of `check_folder`."""
    check_folder(folder, pattern, overwrite=overwrite)
    with _translate_errors(folder):
        for path in list(folder.glob(pattern)):
            path.unlink()


@contextmanager
def _translate_errors(folder: Path) -> Iterator[None]:
    """Raise failures to write into a folder as an OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write into the folder {folder}: {error.strerror}", hint="choose another one"
        ) from error


@contextmanager
def scratch_path(path: Path) -> Iterator[Path]:
    """Give the path of a hidden file next to `path`, on the same disk; it is removed at the end."""
    scratch = path.with_name(f".w2c-{secrets.token_hex(6)}{path.suffix}")
    try:
        yield scratch
    finally:
        scratch.unlink(missing_ok=True)


@contextmanager
def appear_whole(path: Path, *, option: str = "--out") -> Iterator[Path]:
    """Give a temporary path next to `path`, renamed to it only on success; until then an old file stays.

    Raises:
        OutputError: The new file cannot be renamed; `option` is the command-line option that chose it.
    """
    with scratch_path(path) as part:
        yield part
        try:
            part.replace(path)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}", hint=f"choose another {option}") from error


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def written(path: Path, *, option: str = "--out") -> Iterator[Path]:
    """As `appear_whole`, for a file written inside the block: failures to write are raised as an OutputError too.

    Raises:
        OutputError: The file cannot be written; `option` is the command-line option that chose it.
    """
    try:
        with appear_whole(path, option=option) as part:
            yield part
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}", hint=f"choose another {option}") from error
