"""Outputs that one run at a time makes, and how a film and its record get their names, together and over nothing."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

from wav2clip_gen.errors import OutputError
from wav2clip_gen.files import flush, free_names, lock, publish

PARTIAL = "partial"  # a film that ends early is called NAME.partial.mp4
RECORD = ".json"
OTHER = "wait for it, or choose another --out"


@contextmanager
def claim(out: Path) -> Iterator[None]:
    """Claim an output until the end of the block, by a hidden file next to it.

    Raises:
        OutputError: Another run is making it.
    """
    digest = hashlib.sha256(os.fsencode(out.name)).hexdigest()[:12]  # the name itself may be too long
    with locked(out.with_name(f".w2c-{digest}{out.suffix}"), out):
        yield


@contextmanager
def claim_folder(folder: Path) -> Iterator[None]:
    """Claim a folder for frames until the end of the block.

    Raises:
        OutputError: Another run is writing into it.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows cannot open folders
        yield
        return
    try:
        if not lock(descriptor):
            raise OutputError(f"another run is writing frames into {folder}", hint="choose another --frames-dir")
        yield
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path, out: Path) -> Iterator[None]:
    """Hold a file, removed at the end, that this process alone has locked, as it makes `out`.

    Raises:
        OutputError: Another run holds it, or it cannot be made.
    """
    descriptor = _open_locked(path, out)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def same_file(one: Path, other: Path) -> bool:
    """Whether two names are of one file; not if either is missing."""
    try:
        return one.samefile(other)
    except OSError:
        return False


def _open_locked(path: Path, out: Path) -> int:
    while True:
        try:
            path.parent.mkdir(exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError as error:
            if not path.parent.parent.is_dir():
                raise _cannot_write(path, error) from error
            continue  # the run that held it has just removed its folder
        except OSError as error:
            raise _cannot_write(path, error) from error
        if not lock(descriptor):
            os.close(descriptor)
            raise OutputError(f"another run is making {out}", hint=OTHER)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)  # the run that held it has just removed it


def _cannot_write(path: Path, error: OSError) -> OutputError:
    what = f"cannot write into the folder {path.parent}: {error.strerror}"
    return OutputError(what, hint="choose another one with --out")


def publish_film(
    film: Path,
    record: Path,
    out: Path,
    describe: Callable[[Path], dict[str, Any]],
    *,
    partial: bool,
    overwrite: bool,
) -> Path:
    """Give film and record their names: partial ones if it ends early, or if another film has appeared meanwhile.

    Args:
        film: The finished film; it may keep this name too.
        record: Where to write its record first.
        out: The name it is to have.
        describe: Gives the record of the film with this name.
        partial: The film ends early.
        overwrite: Replace an existing film.

    Returns:
        The film's name.

    Raises:
        OutputError: The disk does not take them.
    """
    partial_names = free_names(out, PARTIAL, others=(RECORD,))
    for path in chain([] if partial else [out], partial_names):
        record_path, replaced = path.with_suffix(RECORD), overwrite and path == out
        if not replaced and record_path.exists():
            continue
        try:
            content = json.dumps(describe(path), indent=1, ensure_ascii=False)
            # a name that is not UTF-8 has lone surrogates in Python; JSON escapes them in the same way, as \udce9
            record.write_text(f"{content}\n", encoding="utf-8", errors="backslashreplace")
            flush(film)
            flush(record)
            if replaced:  # never next to another film
                record_path.unlink(missing_ok=True)
            publish(film, path, overwrite=replaced, keep=True)
            publish(record, record_path, overwrite=replaced, keep=True)
            flush(path.parent)
        except FileExistsError:
            if same_file(film, path):  # then it is the record's name that is taken
                path.unlink()
            continue
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}", hint="free some disk space") from error
        return path
    raise AssertionError("there is always another name")
