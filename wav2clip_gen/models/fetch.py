"""Fetch a part of the published models: download, check, convert. Nothing is fetched unless the user asks for it.

Each step leaves something whole, or something that the next run resumes: `<file>.part` while it arrives, the published
file once its hash is right, the converted weights, and their entry in the lock file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from wav2clip_gen.environment import asked_to_stay_offline
from wav2clip_gen.errors import WeightsError
from wav2clip_gen.files import hash_file
from wav2clip_gen.models import registry
from wav2clip_gen.models.download import Progress, SourceError, Target, download
from wav2clip_gen.models.lockfile import LockFile, translate_disk_errors
from wav2clip_gen.models.manifest import Part


class Published(NamedTuple):
    """What is known of a published file that was fetched."""

    source: str  # where it came from
    sha256: str


def fetch(
    part: Part,
    weights_dir: Path | None = None,
    *,
    precision: str = "fp32",
    keep_original: bool = False,
    offline: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Progress]:
    """Fetch a part into the folder of weights, reporting the progress; does nothing where it is in place.

    Args:
        part: What to fetch.
        weights_dir: The folder, as for `registry.weights_folder`.
        precision: "fp32", "fp16" or "bf16": how the converted weights are written.
        keep_original: Leave the published file next to the converted one.
        offline: Use no network, as with W2C_OFFLINE=1: convert what was fetched or copied there before.
        sleep: Waits some seconds between two tries.

    Raises:
        WeightsError: No source gives the file, it is not the one that was published, or it cannot be converted.
        OutputError: It cannot be written.
    """
    from filelock import FileLock, Timeout

    folder = registry.weights_folder(weights_dir)
    path = registry.locate(part, folder)
    in_place = Progress(part=part.name, stage="done", message=f"in place, {path}")
    if part.shipped:
        registry.require_part(part, folder)
    if part.shipped or _is_in_place(part, folder):  # before anything is written: a shared folder may be read-only
        yield in_place
        return
    lock = FileLock(folder / part.name / ".fetch.lock")
    with translate_disk_errors(folder):
        (folder / part.name).mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield Progress(part=part.name, stage="waiting", message="another w2c-gen fetches it, waiting")
            lock.acquire()
    try:
        if _is_in_place(part, folder):
            yield in_place
            return
        original = registry.locate_original(part, folder)
        published = yield from _require_original(part, folder, offline or asked_to_stay_offline(), sleep)
        yield Progress(part=part.name, stage="converting", message="converting")
        try:
            install(original, part, folder, precision=precision, published=published)
        except WeightsError as error:
            if part.sha256:
                raise
            hint = f"perhaps it came damaged: `w2c-gen weights remove {part.name}`, then fetch it again"
            raise WeightsError(error.what, hint=hint) from error
        if not keep_original:
            original.unlink()
        yield Progress(part=part.name, stage="done", message=str(path))
    finally:
        lock.release()


def _is_in_place(part: Part, folder: Path) -> bool:
    """Whether a part is ready; weights without a record, next to their original, are from a run that was cut off."""
    if registry.status(part, folder).state != "ready":
        return False
    recorded = LockFile(folder).recorded_hash(registry.locate(part, folder))
    return recorded is not None or not registry.locate_original(part, folder).is_file()


def install(
    original: Path,
    part: Part,
    weights_dir: Path | None = None,
    *,
    precision: str = "fp32",
    published: Published | None = None,
) -> Path:
    """Convert a published file into the place of a part's weights, and record their hash.

    Args:
        original: The published file, or another of the same structure.
        part: What it becomes.
        weights_dir: The folder, as for `registry.weights_folder`.
        precision: How the weights are written.
        published: What is known of the file where it is the published one; only then its hash is kept as such.

    Raises:
        WeightsError: The file is not of the part's structure.
        OutputError: The weights cannot be written.
    """
    from wav2clip_gen.models.convert import convert  # imports torch

    folder = registry.weights_folder(weights_dir)
    path = registry.locate(part, folder)
    known = published.sha256 if published else ""
    with translate_disk_errors(folder):
        path.parent.mkdir(parents=True, exist_ok=True)
        convert(original, path, role=part.role, config=dict(part.config), precision=precision, sha256=known)
        lock = LockFile(folder)
        lock.record_converted(part.name, path, sha256=hash_file(path))
        if published:  # only now: a file that cannot be converted is not what was published
            size, source = original.stat().st_size, published.source
            lock.record_original(part.name, file=part.file, size=size, sha256=known, source=source)
    return path


def _require_original(
    part: Part, folder: Path, offline: bool, sleep: Callable[[float], None]
) -> Generator[Progress, None, Published]:
    """Make sure that the published file is there and is the right one."""
    path = registry.locate_original(part, folder)
    known = part.sha256 or LockFile(folder).original_hash(part.name)
    if path.is_file():
        yield Progress(part=part.name, stage="checking", message="checking")
        try:
            return Published(str(path), _checked_hash(path, part, known))
        except _OtherFileError as other:
            hint = f"delete it, then run `w2c-gen weights fetch {part.name}`"
            raise WeightsError(f"{path}: {other}", hint=hint) from None
    if offline:
        raise WeightsError(
            f"{part.name} is not in {folder}, and w2c-gen is to stay offline",
            hint=f"leave out --offline and W2C_OFFLINE, or copy {part.file} to {path} and run this again",
        )
    failures = []
    target = Target(part=part.name, path=path, size=part.size, hash_is_known=known is not None)
    for source in part.sources:
        yield Progress(part=part.name, stage="source", message=f"from {urlsplit(source).hostname}")
        try:
            return Published(source, (yield from _download_checked(source, target, part, known, sleep)))
        except SourceError as failed:
            failures.append(failed)
            yield Progress(part=part.name, stage="failed", message=failed.what)
    raise _no_source_left(part, path, failures, known)


def _download_checked(
    source: str, target: Target, part: Part, known: str | None, sleep: Callable[[float], None]
) -> Generator[Progress, None, str]:
    """Download from one source, check, and return the hash; a resumed file that is wrong is fetched once more."""
    for _ in range(2):
        resumed = yield from download(source, target, sleep=sleep)
        yield Progress(part=part.name, stage="checking", message="checking")
        with translate_disk_errors(target.path.parent):
            try:
                found = _checked_hash(target.arrived, part, known)
                target.arrived.replace(target.path)
                target.discard()
                return found
            except _OtherFileError as other:
                problem = str(other)
                target.discard()
        if not resumed:
            break
    raise SourceError(source, f"gives another file: {problem}")


class _OtherFileError(Exception):
    """A file is not the published one; the message gives the evidence."""


def _checked_hash(path: Path, part: Part, known: str | None) -> str:
    """The hash of a published file: all of it is read here, and nowhere again.

    Raises:
        _OtherFileError: It is another file.
    """
    size = path.stat().st_size
    if size == 0:
        raise _OtherFileError("it is empty")
    if part.size is not None and size != part.size:
        raise _OtherFileError(f"it has {size} bytes instead of {part.size}")
    found = hash_file(path)
    if known not in (None, found):
        raise _OtherFileError(f"its sha256 is {found}, not {known}")
    return found


def _no_source_left(part: Part, path: Path, failures: list[SourceError], known: str | None) -> WeightsError:
    reasons = "; ".join(dict.fromkeys(failure.what for failure in failures))
    if all(failure.unreachable for failure in failures):
        hint = f"is there a network (HTTPS_PROXY)? or copy {part.file} from elsewhere to {path} and run this again"
    elif part.sha256 is None and known is not None and "sha256" in reasons:
        hint = f"it has changed since it was first fetched; to accept it: `w2c-gen weights remove {part.name} --forget`"
    else:
        hint = f"try again later, or get {part.file} from elsewhere, copy it to {path} and run this again"
    return WeightsError(f"{part.name} cannot be fetched: {reasons}", hint=hint)
