"""Weights on disk: where they lie, in what state, and what their hashes are.

What ships lies with the package; what was fetched lies in a folder of one's own, a part to a folder:

    weights/weights.lock.json               what was fetched and converted, with sizes and hashes
    weights/vit-b-32/clip.safetensors       the network, converted
    weights/vit-b-32/ViT-B-32.pt            the published file, until it is converted

Builds no network, imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wav2clip_gen.errors import WeightsError
from wav2clip_gen.models import manifest
from wav2clip_gen.models.locks import Lock
from wav2clip_gen.models.manifest import Part

PARTS = manifest.ROLES  # of a family
FAMILIES = ("full", "mini")  # the better one first
STATES = ("shipped", "ready", "RANDOM", "fetched", "missing", "damaged")


@dataclass(frozen=True, kw_only=True)
class Status:
    """What there is of a part."""

    part: Part
    state: str  # one of STATES; "fetched" is not converted yet, "RANDOM" has random weights, made for tests
    path: Path  # where its weights are, or belong
    size: int | None  # bytes on disk; of a missing part, those of the published file where they are known
    partial: int = 0  # bytes of a download that was interrupted


def weights_folder() -> Path:
    """The folder that weights are fetched into: `W2C_WEIGHTS`, else one in the user's cache."""
    if chosen := os.environ.get("W2C_WEIGHTS"):
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("w2c-gen", appauthor=False) / "weights"


def resolve(name: str, weights_dir: Path | None = None) -> str:
    """The family meant by `name`; "auto" is the best one whose files are all in place, and none of them random.

    Raises:
        WeightsError: There is no family of that name.
    """
    if name == "auto":
        return next((family for family in FAMILIES if _complete(family, weights_dir)), FAMILIES[-1])
    if name not in FAMILIES:
        raise WeightsError(f"no family of models is called {name!r}", hint=f"choose from: auto, {', '.join(FAMILIES)}")
    return name


def locate(family: str, role: str, weights_dir: Path | None = None) -> Path:
    """Where the file that plays `role` in a family belongs, there or not.

    Raises:
        WeightsError: There is no such family.
    """
    return locate_part(members(family)[role], weights_dir)


def locate_part(part: Part, weights_dir: Path | None = None) -> Path:
    """Where the weights of a part belong, there or not; a folder of one's own hides the shipped one of its name."""
    folder = weights_dir or weights_folder()
    if not part.shipped:
        return folder / part.name / f"{part.role}.safetensors"
    own = folder / part.file
    return own if own.parent.is_dir() else manifest.shipped_folder() / part.file


def locate_original(part: Part, weights_dir: Path | None = None) -> Path:
    """Where the published file of a part belongs, there or not."""
    return (weights_dir or weights_folder()) / part.name / part.file


def members(family: str) -> dict[str, Part]:
    """The parts of a family, by their roles.

    Raises:
        WeightsError: There is no such family.
    """
    return {part.role: part for part in manifest.expand(resolve(family))}


def missing(family: str, weights_dir: Path | None = None) -> list[Path]:
    """Files of a family that are not in place."""
    paths = [locate(family, role, weights_dir) for role in PARTS]
    return [path for path in paths if not path.is_file()]


def require(family: str, weights_dir: Path | None = None) -> None:
    """Make sure that a family's files are in place.

    Raises:
        WeightsError: There is no such family, or a file is not there.
    """
    for role in PARTS:
        find(resolve(family, weights_dir), role, weights_dir)


def find(family: str, role: str, weights_dir: Path | None = None) -> Path:
    """Where the file lies that plays `role` in a family.

    Raises:
        WeightsError: It is not there, or there is no such family.
    """
    return _found(members(family)[role], family, weights_dir)


def find_part(name: str, weights_dir: Path | None = None) -> Path:
    """Where the weights of the part called `name` lie.

    Raises:
        WeightsError: They are not there, or there is no such part.
    """
    return _found(manifest.part(name), name, weights_dir)


def status(part: Part, weights_dir: Path | None = None) -> Status:
    """What there is of a part, seen from sizes and headers; nothing is hashed (see `w2c-gen weights verify`)."""
    path, original = locate_part(part, weights_dir), locate_original(part, weights_dir)
    partial = original.with_name(f"{original.name}.part")
    if path.is_file():
        return Status(part=part, state=_state(part, path), path=path, size=path.stat().st_size)
    if not part.shipped and original.is_file():
        return Status(part=part, state="fetched", path=original, size=original.stat().st_size)
    begun = partial.stat().st_size if partial.is_file() else 0
    return Status(part=part, state="missing", path=path, size=part.size, partial=begun)


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file, read without a framework.

    Raises:
        WeightsError: It is no such file, or not whole.
    """
    try:
        with path.open("rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            if length > path.stat().st_size:
                raise ValueError("its header is longer than the file")
            header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", {})
        end = max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
        if path.stat().st_size != 8 + length + end:
            raise ValueError(f"it should have {8 + length + end} bytes and has {path.stat().st_size}")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, struct.error) as error:
        what = " ".join(str(error).split())
        raise WeightsError(f"{path}: not a whole safetensors file ({what})", hint=_VERIFY) from None
    return dict(metadata)


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; that of fetched weights as recorded, while size and time are unchanged.

    A render hashes its weights for the record, and a gigabyte takes seconds. `hash_file` and so
    `w2c-gen weights verify` read the file itself.
    """
    return Lock(path.parent.parent).recorded_hash(path) or hash_file(path)


def hash_file(path: Path) -> str:
    """SHA-256 of what is in a file, in hexadecimal."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


_VERIFY = "run `w2c-gen weights verify`, then fetch what is damaged again"
_MISPLACED = "is W2C_WEIGHTS right? else reinstall w2c-gen"


def _found(part: Part, asked: str, weights_dir: Path | None) -> Path:
    path = locate_part(part, weights_dir)
    if not path.is_file():
        hint = _MISPLACED if part.shipped else f"run `w2c-gen weights fetch {asked}`"
        raise WeightsError(f"{path}: no such weights file", hint=hint)
    return path


def _complete(family: str, weights_dir: Path | None) -> bool:
    found = [status(part, weights_dir) for role, part in members(family).items() if role in PARTS]
    return all(one.state not in ("missing", "fetched", "RANDOM") for one in found)


def _state(part: Part, path: Path) -> str:
    try:
        header: dict[str, Any] = json.loads(read_metadata(path)["w2c-gen"])
        is_random = "random" in header["training"]
    except (WeightsError, KeyError, TypeError, ValueError):
        return "damaged"
    if is_random:
        return "RANDOM"
    return "shipped" if part.shipped else "ready"
