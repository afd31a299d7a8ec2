"""Bring a part of the published models: download, check, convert. Nothing is fetched unless somebody asks for it.

Each step leaves something whole or something that the next run goes on with: `<file>.part` while it comes, the
published file once its hash is right, the converted weights, and their line in the lock file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from wav2clip_gen import environment
from wav2clip_gen.errors import WeightsError
from wav2clip_gen.files import appear_whole
from wav2clip_gen.models import store
from wav2clip_gen.models.download import Downloading, Retrying, SourceError, Wanted, disk_errors_told, download
from wav2clip_gen.models.locks import Lock
from wav2clip_gen.models.manifest import Part

asked_to_stay_offline = environment.asked_to_stay_offline


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
        source = yield from _bring_original(part, folder, offline=offline or asked_to_stay_offline(), sleep=sleep)
        yield Converting(part.name)
        original = store.locate_original(part, folder)
        try:
            path = install(original, part, folder, precision=precision, source=source)
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
    original: Path, part: Part, weights_dir: Path | None = None, *, precision: str = "fp32", source: str | None = None
) -> Path:
    """Convert a published file into the place of a part's weights, and record what they are.

    Args:
        original: The published file, or another of the same structure.
        part: What it shall be.
        weights_dir: The folder, instead of `store.weights_folder()`.
        precision: How the weights are written.
        source: Where the file came from; only then its hash is kept as that of the published file.

    Raises:
        WeightsError: The file is not of the part's structure.
        OutputError: The weights cannot be written.
    """
    folder = weights_dir or store.weights_folder()
    path = store.locate_part(part, folder)
    with disk_errors_told(folder):
        path.parent.mkdir(parents=True, exist_ok=True)
        with appear_whole(path) as whole:
            convert(original, whole, part, precision=precision)
        lock = Lock(folder)
        lock.record_converted(part.name, path, sha256=store.hash_file(path))
        if source is not None:  # only now: a file that cannot be converted is not what was published
            size = original.stat().st_size
            digest = store.hash_file(original)
            lock.record_original(part.name, file=part.file, size=size, sha256=digest, source=source)
    return path


def convert(original: Path, out: Path, part: Part, *, precision: str = "fp32") -> None:
    """Convert a published file of a part's structure into weights at `out`.

    Raises:
        WeightsError: The file is not of the part's structure.
    """
    from wav2clip_gen.models import convert as converter  # imports torch

    converter.convert(original, out, role=part.role, config=dict(part.config), precision=precision)


def _bring_original(
    part: Part, folder: Path, *, offline: bool, sleep: Callable[[float], None]
) -> Generator[Event, None, str]:
    """Make sure that the published file is there and is the right one; give back where it came from."""
    path = store.locate_original(part, folder)
    known = part.sha256 or Lock(folder).original_hash(part.name)
    if path.is_file():
        yield Checking(part.name)
        if problem := _differs(path, part, known):
            raise WeightsError(f"{path}: {problem}", hint=f"delete it, then run `w2c-gen weights fetch {part.name}`")
        return str(path)
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
            yield from _from_source(source, wanted, part, known, sleep)
        except SourceError as failed:
            failures.append(failed)
            yield Failed(part.name, failed.what)
        else:
            return source
    raise _none_left(part, path, failures, known)


def _from_source(
    source: str, wanted: Wanted, part: Part, known: str | None, sleep: Callable[[float], None]
) -> Generator[Event, None, None]:
    """Download from one source and check; a file put together from two tries gets another chance from its start."""
    for chance in (1, 2):
        resumed = yield from download(source, wanted, sleep=sleep)
        yield Checking(part.name)
        problem = _differs(wanted.arrived, part, known)
        with disk_errors_told(wanted.path.parent):
            if not problem:
                wanted.arrived.replace(wanted.path)
            wanted.discard()
        if not problem:
            return
        if not resumed or chance == 2:
            raise SourceError(source, f"gives another file: {problem}")


def _differs(path: Path, part: Part, known: str | None) -> str:
    """What shows that a file is not the published one, in words; empty when nothing does."""
    size = path.stat().st_size
    if size == 0:
        return "it is empty"
    if part.size is not None and size != part.size:
        return f"it has {size} bytes instead of {part.size}"
    if known is not None and (found := store.hash_file(path)) != known:
        return f"its sha256 is {found}, not {known}"
    return ""


def _none_left(part: Part, path: Path, failures: list[SourceError], known: str | None) -> WeightsError:
    reasons = "; ".join(dict.fromkeys(failure.what for failure in failures))
    if all(failure.unreachable for failure in failures):
        hint = f"is there a network (HTTPS_PROXY)? or copy {part.file} from elsewhere to {path} and run this again"
    elif part.sha256 is None and known is not None and "sha256" in reasons:
        hint = f"it has changed since it was first fetched; to take it: `w2c-gen weights remove {part.name} --forget`"
    else:
        hint = f"try again later, or get {part.file} from elsewhere, copy it to {path} and run this again"
    return WeightsError(f"{part.name} cannot be had: {reasons}", hint=hint)
