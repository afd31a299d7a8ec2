"""Weights on disk: where they lie and what their hashes are. Builds no network, imports no torch."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from wav2clip_gen.errors import WeightsError

PARTS = ("wav2clip", "clip", "vqgan")
FAMILIES = ("mini",)


def weights_folder() -> Path:
    """The folder of families: `W2C_WEIGHTS`, else inside the installed package, or at the root of a checkout."""
    if chosen := os.environ.get("W2C_WEIGHTS"):
        return Path(chosen)
    package = Path(__file__).resolve().parent.parent
    installed = package / "weights"
    return installed if installed.is_dir() else package.parent / "weights"


def resolve(name: str, weights_dir: Path | None = None) -> str:
    """The family meant by `name`; "auto" is the best one whose files are all in place.

    Raises:
        WeightsError: There is no family of that name.
    """
    if name == "auto":
        complete = [family for family in FAMILIES if not missing(family, weights_dir)]
        return complete[0] if complete else FAMILIES[-1]
    if name not in FAMILIES:
        raise WeightsError(f"no family of models is called {name!r}", hint=f"choose from: auto, {', '.join(FAMILIES)}")
    return name


def locate(family: str, part: str, weights_dir: Path | None = None) -> Path:
    """Where a part's file belongs, there or not."""
    return (weights_dir or weights_folder()) / family / f"{part}.safetensors"


def missing(family: str, weights_dir: Path | None = None) -> list[Path]:
    """Files of a family that are not in place."""
    paths = [locate(family, part, weights_dir) for part in PARTS]
    return [path for path in paths if not path.is_file()]


def require(family: str, weights_dir: Path | None = None) -> None:
    """Make sure that a family's files are in place.

    Raises:
        WeightsError: There is no such family, or a file is not there.
    """
    for part in PARTS:
        find(resolve(family, weights_dir), part, weights_dir)


def find(family: str, part: str, weights_dir: Path | None = None) -> Path:
    """Where a part's file lies.

    Raises:
        WeightsError: It is not there.
    """
    path = locate(family, part, weights_dir)
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file", hint="is W2C_WEIGHTS right? else reinstall w2c-gen")
    return path


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
