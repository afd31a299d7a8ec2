"""The weights on this machine: where they are and in what state, what is recorded of them, and removing them.

Shipped weights are in the package; fetched ones are in the user's folder of weights, one part per folder:

    weights/weights.lock.json               what was fetched and converted, with sizes and hashes
    weights/vit-b-32/clip.safetensors       the network, converted
    weights/vit-b-32/ViT-B-32.pt            the published file, until it is converted
    weights/open_clip/ViT-B-32--laion400m/  weights that open_clip fetched

The hash of the first fetch of a published file stays in weights.lock.json, so that a file that changes at its source is
noticed even where no hash was published. Imports no torch.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from wav2clip_gen.environment import user_cache
from wav2clip_gen.errors import OutputError, WeightsError
from wav2clip_gen.files import appear_whole, hash_file
from wav2clip_gen.models import manifest
from wav2clip_gen.models.manifest import Part

FORMAT = 1  # of weights files and of the records; a later incompatible one gets the next number
RECORDS = "weights.lock.json"
TAGS = "open_clip"  # folder of the weights that open_clip fetched
OWN = "own"  # where former versions kept what they had made of the user's own checkpoints
OTHER_FOLDER = "choose another folder: --weights-dir or W2C_WEIGHTS"


# --- weights files


@dataclass(frozen=True, kw_only=True)
class Header:
    """The metadata of a weights file: which network it holds and where its numbers come from."""

    role: str  # vqgan, clip, wav2clip or prior; `part` in the file
    config: dict[str, Any]  # arguments that rebuild the network
    training: dict[str, Any] = field(default_factory=dict)  # where the weights come from: steps, seed, data, scores
    original: dict[str, str] = field(default_factory=dict)  # name and sha256 of the file that was converted

    def metadata(self) -> dict[str, str]:
        """The header as the metadata of a safetensors file."""
        fields = asdict(self)
        return {"w2c-gen": json.dumps({"format": FORMAT, "part": fields.pop("role"), **fields})}


def require_file(path: Path, hint: str = "run `w2c-gen doctor`") -> Path:
    """Make sure that a weights file is there, and return it.

    Raises:
        WeightsError: It is not; `hint` is what to do then.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file", hint=hint)
    return path


def read_header(path: Path) -> Header:
    """The header of a weights file, read without torch.

    Raises:
        WeightsError: The file is missing, truncated, or not one of w2c-gen.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(require_file(path), framework="np") as file:
            fields = json.loads((file.metadata() or {})["w2c-gen"])
        if fields.pop("format") != FORMAT:
            raise WeightsError(f"{path}: written by another version of w2c-gen", hint="update w2c-gen")
        return Header(role=fields.pop("part"), **fields)
    except (SafetensorError, OSError) as error:
        hint = "run `w2c-gen weights verify`, then fetch what is damaged again, or reinstall w2c-gen"
        raise WeightsError(f"{path}: not a readable safetensors file ({error})", hint=hint) from None
    except (AttributeError, KeyError, TypeError, ValueError):
        hint = "convert it: `w2c-gen weights convert FILE --as NAME --out OTHER.safetensors`"
        raise WeightsError(f"{path}: not a weights file of w2c-gen", hint=hint) from None


# --- places


def weights_folder(weights_dir: Path | None = None) -> Path:
    """The folder that weights are fetched into: `weights_dir`, else `W2C_WEIGHTS`, else one in the user's cache."""
    if weights_dir is not None:
        return weights_dir
    if chosen := os.environ.get("W2C_WEIGHTS"):
        return Path(chosen).expanduser()
    return user_cache() / "weights"


def locate(part: Part, weights_dir: Path | None = None) -> Path:
    """Where the weights of a part belong, there or not; a folder in the user's weights hides a shipped one."""
    folder = weights_folder(weights_dir)
    if not part.shipped:
        return folder / part.name / f"{part.role}.safetensors"
    own = folder / part.file
    return own if own.parent.is_dir() else manifest.shipped_folder() / part.file


def locate_original(part: Part, weights_dir: Path | None = None) -> Path:
    """Where the published file of a part belongs, there or not."""
    return weights_folder(weights_dir) / part.name / part.file


def locate_tag(asked: str, weights_dir: Path | None = None) -> Path:
    """Where the weights that open_clip knows as `ARCHITECTURE/TAG` belong."""
    return weights_folder(weights_dir) / TAGS / asked.replace("/", "--") / "clip.safetensors"


def require_part(part: Part, weights_dir: Path | None = None) -> Path:
    """Where the weights of a part are.

    Raises:
        WeightsError: They are not there.
    """
    return require_file(locate(part, weights_dir), fetch_hint(part))


def fetch_hint(part: Part, family: str | None = None) -> str:
    """What to do where the weights of a part are missing."""
    if part.shipped:
        return "is W2C_WEIGHTS right? else reinstall w2c-gen"
    return f"run `w2c-gen weights fetch {family or part.name}`"


# --- what is there


@dataclass(frozen=True, kw_only=True)
class Status:
    """The state of a part on this machine."""

    part: Part
    state: str  # shipped, ready, RANDOM (made for tests), fetched (not converted yet), missing or damaged
    path: Path  # where its weights are, or belong
    size: int | None  # bytes on disk; of a missing part, those of the published file where they are known
    partial: int = 0  # bytes of a download that was interrupted


def status(part: Part, weights_dir: Path | None = None) -> Status:
    """The state of a part by file sizes and headers; nothing is hashed (see `verify`)."""
    path, original = locate(part, weights_dir), locate_original(part, weights_dir)
    if path.is_file():
        try:
            state = "RANDOM" if "random" in read_header(path).training else "shipped" if part.shipped else "ready"
        except WeightsError:
            state = "damaged"
        return Status(part=part, state=state, path=path, size=path.stat().st_size)
    if not part.shipped and original.is_file():
        return Status(part=part, state="fetched", path=original, size=original.stat().st_size)
    partial = original.with_name(f"{original.name}.part")
    begun = partial.stat().st_size if partial.is_file() else 0
    return Status(part=part, state="missing", path=path, size=part.size, partial=begun)


@dataclass(frozen=True)
class Extra:
    """Weights outside the manifest: fetched by open_clip, or made of the user's own checkpoint by a former version."""

    name: str  # open_clip's `ARCHITECTURE/TAG`, or `own/NAME`
    role: str
    made_of: str | None  # the checkpoint or the name that they come from; None where they are damaged
    path: Path  # their folder
    bytes: int  # on disk


def extras(weights_dir: Path | None = None) -> list[Extra]:
    """What is in the folder of weights besides the parts."""
    found = []
    for path in (path for group in (OWN, TAGS) for path in sorted(weights_folder(weights_dir).glob(f"{group}/*"))):
        if path.is_dir():
            name = f"{OWN}/{path.name}" if path.parent.name == OWN else path.name.replace("--", "/", 1)
            weights = next(path.glob("[!.]*.safetensors"), None)  # none where a conversion was cut off
            try:
                made_of = read_header(weights).original.get("file", weights.name) if weights else None
            except WeightsError:
                made_of = None
            found.append(Extra(name, weights.stem if weights else "?", made_of, path, _size_on_disk(path)))
    return found


def _size_on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != ".fetch.lock")


def verify(part: Part, weights_dir: Path | None = None) -> str:
    """Read the files of a part to their ends; return what was verified, in words.

    Weights whose hash was recorded when they were converted must have it still. Others (those that ship, and those
    that the user put there) must build their network. A published file that was kept must have its hash too.

    Raises:
        WeightsError: A file is damaged, or there is none.
    """
    path, original = locate(part, weights_dir), locate_original(part, weights_dir)
    entry = read_records(weights_folder(weights_dir)).get(part.name, {})
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
    require_part(part, weights_dir)
    if recorded := entry.get("converted", {}).get("sha256"):
        compare(path, recorded)
        return ", ".join([*results, "unchanged since it was converted"])
    from wav2clip_gen.models import checkpoints

    try:
        checkpoints.load(path, role=part.role)
    except WeightsError as error:
        raise WeightsError(error.what, hint=again) from None
    return ", ".join([*results, "builds its network"])


# --- changes


@contextmanager
def translate_disk_errors(folder: Path) -> Iterator[None]:
    """Turn errors of files in `folder` into an `OutputError` with a hint."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "make room, then run the same command again: it goes on where it stopped"
            raise OutputError(f"{folder}: the disk is full", hint=hint) from error
        reason = error.strerror or str(error)
        raise OutputError(f"{folder}: cannot be written to ({reason})", hint=OTHER_FOLDER) from error


def remove(part: Part, weights_dir: Path | None = None, *, forget: bool = False) -> int:
    """Delete what was fetched of a part; return how many bytes that were.

    Args:
        part: What to remove.
        weights_dir: The folder, as for `weights_folder`.
        forget: Also forget the hash that its published file had, so that another one is accepted.

    Raises:
        WeightsError: It came with w2c-gen, or is being fetched at this moment.
        OutputError: It cannot be deleted.
    """
    from filelock import FileLock, Timeout

    if part.shipped:
        raise WeightsError(f"{part.name} comes with w2c-gen", hint="name what was fetched: `w2c-gen weights list`")
    folder = weights_folder(weights_dir)
    own, freed = folder / part.name, 0
    if own.is_dir():
        with translate_disk_errors(folder):
            try:
                with FileLock(own / ".fetch.lock", timeout=0):
                    freed = _size_on_disk(own)
                    for path in own.iterdir():
                        if path.is_file() and path.name != ".fetch.lock":
                            path.unlink()
                shutil.rmtree(own)  # after the release: Windows deletes no file that is held open
            except Timeout:
                hint = "stop that first, or wait for its end"
                raise WeightsError(f"{part.name} is being fetched", hint=hint) from None
    record(folder, part.name, converted=None, **({"original": None} if forget else {}))
    return freed


def remove_extra(extra: Extra) -> None:
    """Delete such weights.

    Raises:
        OutputError: They cannot be deleted.
    """
    with translate_disk_errors(extra.path):
        shutil.rmtree(extra.path)


# --- records


def read_records(folder: Path) -> dict[str, dict[str, Any]]:
    """All that is recorded in a folder of weights: part -> "original" and "converted".

    Raises:
        WeightsError: The records cannot be read.
    """
    path = folder / RECORDS
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise WeightsError(f"{path}: written by another version of w2c-gen", hint="update w2c-gen")
        return {name: dict(entry) for name, entry in content["parts"].items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, AttributeError, KeyError, TypeError, ValueError):
        hint = "delete it; the weights next to it stay as they are"
        raise WeightsError(f"{path}: cannot be read", hint=hint) from None


def record(folder: Path, name: str, **changes: dict[str, Any] | None) -> None:
    """Change what is recorded of a part, by one process at a time; None forgets it.

    Raises:
        WeightsError: The records cannot be read.
        OutputError: They cannot be written.
    """
    from filelock import FileLock

    path = folder / RECORDS
    if not any(changes.values()) and not path.exists():
        return
    with translate_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{RECORDS}.lock"), appear_whole(path, option="--weights-dir") as scratch:
            records = read_records(folder)
            entry = {**records.pop(name, {}), **changes}
            if entry := {what: value for what, value in entry.items() if value is not None}:
                records[name] = entry
            text = json.dumps({"format": FORMAT, "parts": dict(sorted(records.items()))}, indent=2)
            scratch.write_text(f"{text}\n", encoding="utf-8")


def stamp(path: Path) -> dict[str, Any]:
    """What shows, without reading a file, that it has not changed."""
    found = path.stat()
    return {"file": path.name, "size": found.st_size, "mtime_ns": found.st_mtime_ns}


def recorded_hash(path: Path) -> str | None:
    """The hash of `<folder>/<part>/<file>` as recorded; None where it is not, or size or time have changed."""
    try:
        entry = read_records(path.parent.parent).get(path.parent.name, {}).get("converted", {})
        return entry.get("sha256") if stamp(path).items() <= entry.items() else None
    except (WeightsError, OSError):
        return None


def weights_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; that of fetched weights as recorded, while size and time are unchanged.

    A render hashes its weights for the record, and a gigabyte takes seconds. `w2c-gen weights verify` reads the file.
    """
    return recorded_hash(path) or hash_file(path)
