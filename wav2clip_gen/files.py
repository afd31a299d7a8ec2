"""Output files: checked before any work is done, and written atomically."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from wav2clip_gen.errors import OutputError


def check_output(path: Path, *, overwrite: bool = False, option: str = "--out") -> None:
    """Check that a file can be written; `option` is the command-line option that chose it.

    Raises:
        OutputError: Its folder is missing or not writable, its name is too long, or the file exists and may not be
            overwritten.
    """
    folder = path.parent
    try:
        if len(os.fsencode(path.name)) > (limit := longest_name(folder)):
            raise OutputError(
                f"the name {path.name} is too long: at most {limit} bytes", hint=f"shorten it with {option}"
            )
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


@contextmanager
def scratch_path(path: Path) -> Iterator[Path]:
    """Give the path of a hidden file next to `path`, on the same disk; it is removed at the end."""
    scratch = path.with_name(f".w2c-{secrets.token_hex(6)}{path.suffix}")
    try:
        yield scratch
    finally:
        scratch.unlink(missing_ok=True)


def longest_name(folder: Path) -> int:
    """Bytes that the name of a file in this folder may have."""
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # Windows; a folder that is missing
        return 255


def free_names(path: Path, mark: str, *, others: tuple[str, ...] = ()) -> Iterator[Path]:
    """`NAME.MARK.SUFFIX`, `NAME.MARK1.SUFFIX` and so on, without those that exist; cut where the disk needs it shorter.

    `others`: suffixes of files that come with it; a name for which one of them exists is left out too.
    """
    suffixes = (path.suffix, *others)
    room = longest_name(path.parent) - max(len(os.fsencode(suffix)) for suffix in suffixes)
    for number in count():
        stem, end = path.stem, f".{mark}{number or ''}"
        while len(os.fsencode(stem + end)) > room:
            stem = stem[:-1]
        if not any(os.path.lexists(path.with_name(stem + end + suffix)) for suffix in suffixes):
            yield path.with_name(stem + end + path.suffix)


def publish(part: Path, path: Path, *, overwrite: bool, keep: bool = False) -> None:
    """Rename a finished file, never over another one unless `overwrite`.

    `keep`: it also keeps its old name, if it replaces nothing and the disk has hard links.

    Raises:
        FileExistsError: There is one.
        OSError: It cannot be renamed.
    """
    if overwrite:
        part.replace(path)
        return
    try:
        os.link(part, path)  # unlike a rename, it fails where there is a file
    except FileExistsError:
        raise
    except OSError:  # a disk without hard links
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        part.rename(path)
    else:
        if not keep:
            part.unlink()


def settle(part: Path, path: Path) -> None:
    """Rename a finished file, which may replace another one, when all of it is on the disk.

    Raises:
        OSError: It cannot be written.
    """
    flush(part)
    part.replace(path)


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk.

    Raises:
        OSError: A file cannot be written.
    """
    folder = path.is_dir()
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:  # Windows cannot open folders, some disks cannot flush them
        if not folder:
            raise


def lock(descriptor: int) -> bool:
    """Lock an open file until it is closed, or this process ends; false if another process holds the lock."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # a system or a network disk without locks: the last check is `publish`
        pass
    return True


@contextmanager
def appear_whole(path: Path, *, option: str = "--out", overwrite: bool = True) -> Iterator[Path]:
    """Give a temporary path next to `path`, renamed to it only on success; until then an old file stays.

    Raises:
        OutputError: The new file cannot be renamed, or there is another one and `overwrite` is false; `option` is the
            command-line option that chose it.
    """
    with scratch_path(path) as part:
        yield part
        try:
            publish(part, path, overwrite=overwrite)
        except FileExistsError:
            what = f"{path} appeared meanwhile, and is not replaced"
            raise OutputError(what, hint=f"use --overwrite to replace it, or another {option}") from None
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}", hint=f"choose another {option}") from error


def relative_path(path: Path, folder: Path) -> Path:
    """The path as seen from a folder; absolute across drives."""
    try:
        return Path(os.path.relpath(path, folder))
    except ValueError:
        return path.resolve()


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def written(path: Path, *, option: str = "--out", overwrite: bool = True) -> Iterator[Path]:
    """As `appear_whole`, for a file written inside the block: failures to write are raised as an OutputError too.

    Raises:
        OutputError: The file cannot be written; `option` is the command-line option that chose it.
    """
    try:
        with appear_whole(path, option=option, overwrite=overwrite) as part:
            yield part
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}", hint=f"choose another {option}") from error
