"""Fetch a part of the published models: download, check, convert. Nothing is fetched unless the user asks for it.

Each step leaves something whole, or something that the next run resumes: `<file>.part` while it arrives, the published
file once its hash is right, the converted weights, and the record of them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from wav2clip_gen.environment import asked_to_stay_offline
from wav2clip_gen.errors import WeightsError
from wav2clip_gen.files import hash_file
from wav2clip_gen.models import store
from wav2clip_gen.models.download import Progress, SourceError, Target, download
from wav2clip_gen.models.manifest import Part


def fetch(
    part: Part,
    weights_dir: Path | None = None,
    *,
    precision: str = "fp32",
    keep_original: bool = False,
    offline: bool = False,
) -> Iterator[Progress]:
    """Fetch a part into the folder of weights, reporting the progress; does nothing where it is in place.

    Args:
        part: What to fetch.
        weights_dir: The folder, as for `store.weights_folder`.
        precision: "fp32", "fp16" or "bf16": how the converted weights are written.
        keep_original: Leave the published file next to the converted one.
        offline: Use no network, as with W2C_OFFLINE=1: convert what was fetched or copied there before.

    Raises:
        WeightsError: No source gives the file, it is not the one that was published, or it cannot be converted.
        OutputError: It cannot be written.
    """
    from filelock import FileLock, Timeout

    folder = store.weights_folder(weights_dir)
    path, original = store.locate(part, folder), store.locate_original(part, folder)
    in_place = Progress(f"in place, {path}")
    if part.shipped:
        store.require_part(part, folder)
    if part.shipped or _is_in_place(part, folder):  # before anything is written: a shared folder may be read-only
        yield in_place
        return
    lock = FileLock(path.with_name(".fetch.lock"))
    with store.translate_disk_errors(folder):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield Progress("another w2c-gen fetches it, waiting")
            lock.acquire()
    try:
        if _is_in_place(part, folder):
            yield in_place
            return
        source, sha256 = yield from _require_original(part, folder, offline or asked_to_stay_offline())
        yield Progress("converting")
        try:
            install(original, part, folder, precision=precision, source=source, sha256=sha256)
        except WeightsError as error:
            if part.sha256:
                raise
            hint = f"perhaps it came damaged: `w2c-gen weights remove {part.name}`, then fetch it again"
            raise WeightsError(error.what, hint=hint) from error
        if not keep_original:
            original.unlink()
        yield Progress(str(path))
    finally:
        lock.release()


def _is_in_place(part: Part, folder: Path) -> bool:
    """Whether a part is ready; weights without a record, next to their original, are from a run that was cut off."""
    if store.status(part, folder).state != "ready":
        return False
    recorded = store.recorded_hash(store.locate(part, folder))
    return recorded is not None or not store.locate_original(part, folder).is_file()


def install(
    original: Path,
    part: Part,
    weights_dir: Path | None = None,
    *,
    precision: str = "fp32",
    source: str = "",
    sha256: str = "",
) -> Path:
    """Convert a published file into the place of a part's weights, and record their hash.

    Args:
        original: The published file, or another of the same structure.
        part: What it becomes.
        weights_dir: The folder, as for `store.weights_folder`.
        precision: How the weights are written.
        source: Where the file comes from, if it is the published one; only then its hash is kept as such.
        sha256: Of that.

    Raises:
        WeightsError: The file is not of the part's structure.
        OutputError: The weights cannot be written.
    """
    from wav2clip_gen.models.convert import convert  # imports torch

    folder = store.weights_folder(weights_dir)
    path = store.locate(part, folder)
    with store.translate_disk_errors(folder):
        path.parent.mkdir(parents=True, exist_ok=True)
        convert(original, path, role=part.role, config=dict(part.config), precision=precision, sha256=sha256)
        changes = {"converted": {**store.stamp(path), "sha256": hash_file(path)}}
        if source:  # only now: a file that cannot be converted is not what was published
            size = original.stat().st_size
            changes["original"] = {"file": part.file, "size": size, "sha256": sha256, "source": source}
        store.record(folder, part.name, **changes)
    return path


def _require_original(part: Part, folder: Path, offline: bool) -> Generator[Progress, None, tuple[str, str]]:
    """Make sure that the published file is there and is the right one; return where it comes from and its hash."""
    path = store.locate_original(part, folder)
    first = store.read_records(folder).get(part.name, {}).get("original", {})
    target = Target(part=part, path=path, sha256=part.sha256 or first.get("sha256"))
    if path.is_file():
        yield Progress("checking")
        found, fault = _check(path, target)
        if fault:
            raise WeightsError(f"{path}: {fault}", hint=f"delete it, then run `w2c-gen weights fetch {part.name}`")
        return str(path), found
    if offline:
        raise WeightsError(
            f"{part.name} is not in {folder}, and w2c-gen is to stay offline",
            hint=f"leave out --offline and W2C_OFFLINE, or copy {part.file} to {path} and run this again",
        )
    failures = []
    for source in part.sources:
        yield Progress(f"from {urlsplit(source).hostname}")
        try:
            return source, (yield from _download_checked(source, target))
        except SourceError as failed:
            failures.append(failed)
            yield Progress(failed.what)
    raise _no_source_left(target, failures)


def _download_checked(source: str, target: Target) -> Generator[Progress, None, str]:
    """Download from one source, check, and return the hash; a resumed file that is wrong is fetched once more."""
    for _ in range(2):
        resumed = yield from download(source, target)
        yield Progress("checking")
        with store.translate_disk_errors(target.path.parent):
            found, fault = _check(target.arrived, target)
            if not fault:
                target.arrived.replace(target.path)
            target.discard()
        if not fault:
            return found
        if not resumed:
            break
    raise SourceError(source, f"gives another file: {fault}")


def _check(path: Path, target: Target) -> tuple[str, str]:
    """The hash of a file, and what shows that it is not the published one; it is read here, and nowhere again."""
    size = path.stat().st_size
    if size == 0:
        return "", "it is empty"
    if target.part.size not in (None, size):
        return "", f"it has {size} bytes instead of {target.part.size}"
    found = hash_file(path)
    return found, "" if target.sha256 in (None, found) else f"its sha256 is {found}, not {target.sha256}"


def _no_source_left(target: Target, failures: list[SourceError]) -> WeightsError:
    part, path = target.part, target.path
    reasons = "; ".join(dict.fromkeys(failure.what for failure in failures))
    if all(failure.unreachable for failure in failures):
        hint = f"is there a network (HTTPS_PROXY)? or copy {part.file} from elsewhere to {path} and run this again"
    elif part.sha256 is None and target.sha256 is not None and "sha256" in reasons:
        hint = f"it has changed since it was first fetched; to accept it: `w2c-gen weights remove {part.name} --forget`"
    else:
        hint = f"try again later, or get {part.file} from elsewhere, copy it to {path} and run this again"
    return WeightsError(f"{part.name} cannot be fetched: {reasons}", hint=hint)
