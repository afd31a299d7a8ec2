"""Weights that are in place: whether they are intact, what else is in the folder, and removing them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from wav2clip_gen.errors import WeightsError
from wav2clip_gen.files import hash_file
from wav2clip_gen.models import registry
from wav2clip_gen.models.header import read_header
from wav2clip_gen.models.lockfile import LockFile, translate_disk_errors
from wav2clip_gen.models.manifest import Part

OWN = "own"  # where former versions kept what they had made of the user's own checkpoints


@dataclass(frozen=True)
class Extra:
    """Weights outside the manifest: fetched by open_clip, or made of the user's own checkpoint by a former version."""

    name: str  # open_clip's `ARCHITECTURE/TAG`, or `own/NAME`
    folder: Path
    role: str
    size: int  # bytes on disk
    made_of: str | None  # the checkpoint or the name that they come from; None where they are damaged


def extras(weights_dir: Path | None = None) -> list[Extra]:
    """What is in the folder of weights besides the parts."""
    folder = registry.weights_folder(weights_dir)
    own = {f"{OWN}/{path.name}": path for path in sorted(folder.glob(f"{OWN}/*"))}
    tags = {path.name.replace("--", "/", 1): path for path in sorted(folder.glob(f"{registry.TAGS}/*"))}
    return [_extra(name, path) for name, path in {**own, **tags}.items() if path.is_dir()]


def _extra(name: str, folder: Path) -> Extra:
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    weights = next(folder.glob("[!.]*.safetensors"), None)
    if weights is None:  # a conversion that was cut off
        return Extra(name, folder, "?", size, None)
    try:
        made_of = read_header(weights).original.get("file", weights.name)
    except WeightsError:
        made_of = None
    return Extra(name, folder, weights.stem, size, made_of)


def remove_extra(extra: Extra) -> int:
    """Delete such weights; return how many bytes that were.

    Raises:
        OutputError: They cannot be deleted.
    """
    with translate_disk_errors(extra.folder):
        shutil.rmtree(extra.folder)
    return extra.size


def verify(part: Part, weights_dir: Path | None = None) -> str:
    """Read the files of a part to their ends; return what was verified, in words.

    Weights whose hash was recorded when they were converted must have it still. Others (those that ship, and those
    that the user put there) must build their network. A published file that was kept must have its hash too.

    Raises:
        WeightsError: A file is damaged, or there is none.
    """
    folder = registry.weights_folder(weights_dir)
    path, original = registry.locate(part, folder), registry.locate_original(part, folder)
    entry = LockFile(folder).entries().get(part.name, {})
    again = "reinstall w2c-gen" if part.shipped else f"`w2c-gen weights remove {part.name}`, then fetch it again"

    def compare(path: Path, known: str) -> None:
        if (found := hash_file(path)) != known:
            raise WeightsError(f"{path}: its sha256 is {found}, not {known}", hint=again)

    results = []
    if not part.shipped and original.is_file():
        if known := part.sha256 or entry.get("original", {}).get("sha256"):
            compare(original, known)
        results.append(f"{part.file} is what was published" if known else f"{part.file} has no known hash")
    if results and not path.is_file():
        return ", ".join([*results, "not converted yet"])
    registry.require_part(part, folder)
    if recorded := entry.get("converted", {}).get("sha256"):
        compare(path, recorded)
        return ", ".join([*results, "unchanged since it was converted"])
    from wav2clip_gen.models import checkpoints

    try:
        checkpoints.load(path, role=part.role)
    except WeightsError as error:
        raise WeightsError(error.what, hint=again) from None
    return ", ".join([*results, "builds its network"])


def remove(part: Part, weights_dir: Path | None = None, *, forget: bool = False) -> int:
    """Delete what was fetched of a part; return how many bytes that were.

    Args:
        part: What to remove.
        weights_dir: The folder, as for `registry.weights_folder`.
        forget: Also forget the hash that its published file had, so that another one is accepted.

    Raises:
        WeightsError: It came with w2c-gen, or is being fetched at this moment.
        OutputError: It cannot be deleted.
    """
    from filelock import FileLock, Timeout

    if part.shipped:
        raise WeightsError(f"{part.name} comes with w2c-gen", hint="name what was fetched: `w2c-gen weights list`")
    folder = registry.weights_folder(weights_dir)
    own = folder / part.name
    freed = 0
    if own.is_dir():
        with translate_disk_errors(folder):
            try:
                with FileLock(own / ".fetch.lock", timeout=0):
                    files = [path for path in own.rglob("*") if path.is_file() and path.name != ".fetch.lock"]
                    freed = sum(path.stat().st_size for path in files)
                    for path in files:
                        path.unlink()
                shutil.rmtree(own)  # after the release: Windows deletes no file that is held open
            except Timeout:
                hint = "stop that first, or wait for its end"
                raise WeightsError(f"{part.name} is being fetched", hint=hint) from None
    LockFile(folder).forget(part.name, original=forget)
    return freed
