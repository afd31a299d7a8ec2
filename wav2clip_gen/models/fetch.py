"""Bring a part of the published models: download, check, convert. Nothing is fetched unless somebody asks for it.

Each step leaves something whole or something that the next run goes on with: `<file>.part` while it comes, the
published file once its hash is right, the converted weights, and their line in the lock file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from wav2clip_gen.environment import asked_to_stay_offline
from wav2clip_gen.errors import WeightsError
from wav2clip_gen.files import hash_file
from wav2clip_gen.models import store
from wav2clip_gen.models.disk import disk_errors_told
from wav2clip_gen.models.download import Downloading, Retrying, SourceError, Wanted, download
from wav2clip_gen.models.locks import Lock
from wav2clip_gen.models.manifest import Part


@dataclass(frozen=True)
class Waiting:
    """Another process is at this part."""

    part: str


@dataclass(frozen=True)
class Trying:
    """A source is asked."""

    part: str
    source: str


@dataclass(frozen=True)
class Checking:
    """The hash of a published file is taken."""

    part: str


@dataclass(frozen=True)
class Failed:
    """A source cannot give the file; the next one is asked."""

    part: str
    reason: str


@dataclass(frozen=True)
class Converting:
    """The published file is read and written in our format."""

    part: str


@dataclass(frozen=True)
class Done:
    """A part is in place."""

    part: str
    path: Path
    new: bool  # False: it was there before


@dataclass(frozen=True)
class Published:
    """What is known of a published file that was fetched."""

    source: str  # where it came from
    sha256: str


Event = Waiting | Trying | Downloading | Retrying | Failed | Checking | Converting | Done


def fetch(
    part: Part,
    weights_dir: Path | None = None,
    *,
    precision: str = "fp32",
    keep_original: bool = False,
    offline: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Event]:
    """Bring a part into the folder of weights, and tell how it goes; does nothing where it is in place.

    Args:
        part: What to bring.
        weights_dir: The folder, instead of `store.weights_folder()`.
        precision: "fp32", "fp16" or "bf16": how the converted weights are written.
        keep_original: Leave the published file beside the converted one.
        offline: Use no network, as with W2C_OFFLINE=1: convert what was fetched or copied there before.
        sleep: What to do between two tries, given the seconds.

    Raises:
        WeightsError: No source gives the file, it is not the one that was published, or it cannot be converted.
        OutputError: It cannot be written.
    """
    from filelock import FileLock, Timeout

    if part.shipped:
        yield Done(part.name, store.find_part(part.name, weights_dir), new=False)
        return
    folder = weights_dir or store.weights_folder()
    if _in_place(part, folder):  # a folder that several share may be read-only
        yield Done(part.name, store.locate_part(part, folder), new=False)
        return
    with disk_errors_told(folder):
        (folder / part.name).mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / part.name / ".fetch.lock")
    with disk_errors_told(folder):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield Waiting(part.name)
            lock.acquire()
    try:
        if _in_place(part, folder):
            yield Done(part.name, store.locate_part(part, folder), new=False)
            return
        original = store.locate_original(part, folder)
        brought = yield from _bring_original(part, folder, offline=offline or asked_to_stay_offline(), sleep=sleep)
        yield Converting(part.name)
        try:
            path = install(original, part, folder, precision=precision, published=brought)
        except WeightsError as error:
            if part.sha256:
                raise
            hint = f"perhaps it came damaged: `w2c-gen weights remove {part.name}`, then fetch it again"
            raise WeightsError(error.what, hint=hint) from error
        if not keep_original:
            original.unlink()
        yield Done(part.name, path, new=True)
    finally:
        lock.release()


def _in_place(part: Part, folder: Path) -> bool:
    """Whether a part is ready; weights without a record, beside their original, were left by a run that was cut off."""
    if store.status(part, folder).state != "ready":
        return False
    recorded = Lock(folder).recorded_hash(store.locate_part(part, folder))
    return recorded is not None or not store.locate_original(part, folder).is_file()


def install(
    original: Path,
    part: Part,
    weights_dir: Path | None = None,
    *,
    precision: str = "fp32",
    published: Published | None = None,
) -> Path:
    """Convert a published file into the place of a part's weights, and record what they are.

    Args:
        original: The published file, or another of the same structure.
        part: What it shall be.
        weights_dir: The folder, instead of `store.weights_folder()`.
        precision: How the weights are written.
        published: What is known of the file where it is the published one; only then its hash is kept as such.

    Raises:
        WeightsError: The file is not of the part's structure.
        OutputError: The weights cannot be written.
    """
    folder = weights_dir or store.weights_folder()
    path = store.locate_part(part, folder)
    with disk_errors_told(folder):
        path.parent.mkdir(parents=True, exist_ok=True)
        convert(original, path, part, precision=precision, sha256=published.sha256 if published else "")
        lock = Lock(folder)
        lock.record_converted(part.name, path, sha256=hash_file(path))
        if published:  # only now: a file that cannot be converted is not what was published
            size, digest, source = original.stat().st_size, published.sha256, published.source
            lock.record_original(part.name, file=part.file, size=size, sha256=digest, source=source)
    return path


def convert(original: Path, out: Path, part: Part, *, precision: str = "fp32", sha256: str = "") -> None:
    """Convert a file of a part's structure into weights at `out`; `sha256` is the file's, where it is known already.

    Raises:
        WeightsError: The file is not of the part's structure.
        OutputError: The weights cannot be written.
    """
    from wav2clip_gen.models import convert as converter  # imports torch

    converter.convert(original, out, role=part.role, config=dict(part.config), precision=precision, sha256=sha256)


def _bring_original(
    part: Part, folder: Path, *, offline: bool, sleep: Callable[[float], None]
) -> Generator[Event, None, Published]:
    """Make sure that the published file is there and is the right one; give back what is known of it."""
    path = store.locate_original(part, folder)
    known = part.sha256 or Lock(folder).original_hash(part.name)
    if path.is_file():
        yield Checking(part.name)
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
    wanted = Wanted(part=part.name, path=path, size=part.size, hash_is_known=known is not None)
    for source in part.sources:
        yield Trying(part.name, source)
        try:
            return Published(source, (yield from _from_source(source, wanted, part, known, sleep)))
        except SourceError as failed:
            failures.append(failed)
            yield Failed(part.name, failed.what)
    raise _none_left(part, path, failures, known)


def _from_source(
    source: str, wanted: Wanted, part: Part, known: str | None, sleep: Callable[[float], None]
) -> Generator[Event, None, str]:
    """Download from one source, check, and give back the hash.

    A file put together from two tries gets another chance from its start.
    """
    for _ in range(2):
        resumed = yield from download(source, wanted, sleep=sleep)
        yield Checking(part.name)
        with disk_errors_told(wanted.path.parent):
            try:
                found = _checked_hash(wanted.arrived, part, known)
            except _OtherFileError as other:
                problem = str(other)
                wanted.discard()
            else:
                wanted.arrived.replace(wanted.path)
                wanted.discard()
                return found
        if not resumed:
            break
    raise SourceError(source, f"gives another file: {problem}")


class _OtherFileError(Exception):
    """A file is not the published one; says what shows it."""


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


def _none_left(part: Part, path: Path, failures: list[SourceError], known: str | None) -> WeightsError:
    reasons = "; ".join(dict.fromkeys(failure.what for failure in failures))
    if all(failure.unreachable for failure in failures):
        hint = f"is there a network (HTTPS_PROXY)? or copy {part.file} from elsewhere to {path} and run this again"
    elif part.sha256 is None and known is not None and "sha256" in reasons:
        hint = f"it has changed since it was first fetched; to take it: `w2c-gen weights remove {part.name} --forget`"
    else:
        hint = f"try again later, or get {part.file} from elsewhere, copy it to {path} and run this again"
    return WeightsError(f"{part.name} cannot be had: {reasons}", hint=hint)
