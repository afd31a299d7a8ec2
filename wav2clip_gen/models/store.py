"""Weights on disk: where they lie, in what state, and what their hashes are.

What ships lies with the package; what was fetched lies in a folder of one's own, a part to a folder:

    weights/weights.lock.json               what was fetched and converted, with sizes and hashes
    weights/vit-b-32/clip.safetensors       the network, converted
    weights/vit-b-32/ViT-B-32.pt            the published file, until it is converted

Builds no network, imports no torch.
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wav2clip_gen.errors import WeightsError
from wav2clip_gen.files import hash_file
from wav2clip_gen.models import manifest
from wav2clip_gen.models.locks import Lock
from wav2clip_gen.models.manifest import Part

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


def find_part(name: str, weights_dir: Path | None = None) -> Path:
    """Where the weights of the part called `name` lie.

    Raises:
        WeightsError: They are not there, or there is no such part.
    """
    part = manifest.part(name)
    return require_file(locate_part(part, weights_dir), hint=way_to(part))


def way_to(part: Part, asked: str | None = None) -> str:
    """What to do where the weights of a part are missing; `asked` is the family it was wanted for."""
    if part.shipped:
        return "is W2C_WEIGHTS right? else reinstall w2c-gen"
    return f"run `w2c-gen weights fetch {asked or part.name}`"


def require_file(path: Path, *, hint: str) -> Path:
    """Make sure that a weights file is there, and give it back.

    Raises:
        WeightsError: It is not; `hint` says what to do then.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file", hint=hint)
    return path


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


def describe(path: Path) -> dict[str, Any]:
    """What a weights file says of itself, as `checkpoints.Header` has it, read without a framework.

    Raises:
        WeightsError: It is not whole, or none of ours.
    """
    try:
        return dict(json.loads(read_metadata(path)["w2c-gen"]))
    except (KeyError, TypeError, ValueError):
        raise WeightsError(f"{path}: not a weights file of w2c-gen", hint=_VERIFY) from None


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; that of fetched weights as recorded, while size and time are unchanged.

    A render hashes its weights for the record, and a gigabyte takes seconds. `hash_file` and so
    `w2c-gen weights verify` read the file itself.
    """
    return Lock(path.parent.parent).recorded_hash(path) or hash_file(path)


_VERIFY = "run `w2c-gen weights verify`, then fetch what is damaged again"


def _complete(family: str, weights_dir: Path | None) -> bool:
    found = [status(part, weights_dir) for role, part in members(family).items() if role in manifest.ROLES]
    return all(one.state not in ("missing", "fetched", "RANDOM") for one in found)


def _state(part: Part, path: Path) -> str:
    try:
        is_random = "random" in describe(path)["training"]
    except (WeightsError, KeyError, TypeError):
        return "damaged"
    if is_random:
        return "RANDOM"
    return "shipped" if part.shipped else "ready"
