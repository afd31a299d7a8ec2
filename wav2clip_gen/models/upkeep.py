"""Weights that are in place: are they what they were, what lies beside them, and away with what is not wanted."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from wav2clip_gen.errors import WeightsError
from wav2clip_gen.files import hash_file
from wav2clip_gen.models import choice, store
from wav2clip_gen.models.disk import disk_errors_told
from wav2clip_gen.models.locks import Lock
from wav2clip_gen.models.manifest import Part


@dataclass(frozen=True)
class Extra:
    """Weights that are no part of the manifest: made of a checkpoint of the user's own, or brought by open_clip."""

    name: str  # `own/NAME`, or open_clip's `ARCHITECTURE/TAG`
    folder: Path
    role: str
    size: int  # bytes on disk
    made_of: str | None  # the checkpoint or the name that they come from; None where they are damaged


def extras(weights_dir: Path | None = None) -> list[Extra]:
    """What renders with `--vqgan mine.ckpt` or open_clip's names left in the folder of weights."""
    folder = weights_dir or store.weights_folder()
    made = sorted(path for path in folder.glob(f"{choice.OWN}/*") if path.is_dir())
    brought = sorted(path for path in folder.glob(f"{choice.TAGS}/*") if path.is_dir())
    named = {f"{choice.OWN}/{path.name}": path for path in made}
    named |= {path.name.replace("--", "/", 1): path for path in brought}
    return [_extra(name, path) for name, path in named.items()]


def remove_extra(extra: Extra) -> int:
    """Delete such weights; give back how many bytes that were.

    Raises:
        OutputError: They cannot be deleted.
    """
    with disk_errors_told(extra.folder):
        shutil.rmtree(extra.folder)
    return extra.size


def _extra(name: str, folder: Path) -> Extra:
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    weights = next(folder.glob("[!.]*.safetensors"), None)
    if weights is None:  # a conversion that was cut off
        return Extra(name, folder, "?", size, None)
    try:
        made_of = store.describe(weights).get("original", {}).get("file", weights.name)
    except WeightsError:
        made_of = None
    return Extra(name, folder, weights.stem, size, made_of)


def verify(part: Part, weights_dir: Path | None = None) -> str:
    """Read the files of a part to their ends; give back what was shown, in words.

    Weights whose hash was recorded when they were converted must have it still. Others (those that ship, and those
    put there by hand) must build their network. A published file that was kept must have its hash too.

    Raises:
        WeightsError: A file is damaged, or there is none.
    """
    folder = weights_dir or store.weights_folder()
    path = store.locate_part(part, folder)
    entry = Lock(folder).entries().get(part.name, {})
    again = "reinstall w2c-gen" if part.shipped else f"`w2c-gen weights remove {part.name}`, then fetch it again"
    original = store.locate_original(part, folder)
    shown = []
    if not part.shipped and original.is_file():
        known = part.sha256 or entry.get("original", {}).get("sha256")
        if known and (found := hash_file(original)) != known:
            raise WeightsError(f"{original}: its sha256 is {found}, not {known}", hint=again)
        shown.append(f"{part.file} is what was published" if known else f"{part.file} has no known hash")
    if shown and not path.is_file():
        return ", ".join([*shown, "not converted yet"])
    store.find_part(part.name, folder)
    recorded = entry.get("converted", {}).get("sha256")
    if recorded:
        if (found := hash_file(path)) != recorded:
            raise WeightsError(f"{path}: its sha256 is {found}, not {recorded}", hint=again)
        return ", ".join([*shown, "unchanged since it was converted"])
    from wav2clip_gen.models import checkpoints

    try:
        checkpoints.load(path, part=part.role)
    except WeightsError as error:
        raise WeightsError(error.what, hint=again) from None
    return ", ".join([*shown, "builds its network"])


def remove(part: Part, weights_dir: Path | None = None, *, forget: bool = False) -> int:
    """Delete what was fetched of a part; give back how many bytes that were.

    Args:
        part: What to remove.
        weights_dir: The folder, instead of `store.weights_folder()`.
        forget: Also forget the hash that its published file had, so that another one is taken.

    Raises:
        WeightsError: It came with w2c-gen, or is being fetched at this moment.
        OutputError: It cannot be deleted.
    """
    from filelock import FileLock, Timeout

    if part.shipped:
        raise WeightsError(f"{part.name} comes with w2c-gen", hint="name what was fetched: `w2c-gen weights list`")
    folder = weights_dir or store.weights_folder()
    own = folder / part.name
    freed = 0
    if own.is_dir():
        with disk_errors_told(folder):
            try:
                with FileLock(own / ".fetch.lock", timeout=0):
                    files = [path for path in own.rglob("*") if path.is_file() and path.name != ".fetch.lock"]
                    freed = sum(path.stat().st_size for path in files)
                    for path in files:
                        path.unlink()
                shutil.rmtree(own)  # after the release: Windows deletes no file that is held open
            except Timeout:
                raise WeightsError(
                    f"{part.name} is being fetched", hint="stop that first, or wait for its end"
                ) from None
    Lock(folder).forget(part.name, original=forget)
    return freed
