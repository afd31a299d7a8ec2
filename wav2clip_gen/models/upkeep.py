"""Weights that are in place: are they still what they were, and away with those that are not wanted."""

from __future__ import annotations

import shutil
from pathlib import Path

from wav2clip_gen.errors import WeightsError
from wav2clip_gen.models import store
from wav2clip_gen.models.download import disk_errors_told
from wav2clip_gen.models.locks import Lock
from wav2clip_gen.models.manifest import Part


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
        if known and (found := store.hash_file(original)) != known:
            raise WeightsError(f"{original}: its sha256 is {found}, not {known}", hint=again)
        shown.append(f"{part.file} is what was published" if known else f"{part.file} has no known hash")
    if shown and not path.is_file():
        return ", ".join([*shown, "not converted yet"])
    store.find_part(part.name, folder)
    recorded = entry.get("converted", {}).get("sha256")
    if recorded:
        if (found := store.hash_file(path)) != recorded:
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
        raise WeightsError(f"{part.name} comes with w2c-gen", hint="only what was fetched can be removed")
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
                raise WeightsError(f"{part.name} is being fetched", hint="stop that first") from None
    Lock(folder).forget(part.name, original=forget)
    return freed
