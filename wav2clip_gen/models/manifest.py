"""The models there are: what each part is, where it comes from and what may be done with it (weights/manifest.yaml).

Reads and checks the manifest; touches no network and no weights. Knows no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from wav2clip_gen.errors import WeightsError

ROLES = ("wav2clip", "clip", "vqgan")
OPTIONAL = ("prior",)  # roles that a family may do without


@dataclass(frozen=True, kw_only=True)
class Part:
    """One network that can be had: a published one, or one of the small family's."""

    name: str
    role: str  # what it does in a family
    file: str  # name of the published file; of a shipped part, its path below the shipped weights
    licence: str
    citation: str
    config: dict[str, Any]  # arguments that rebuild the network; empty where the shipped file says so itself
    sources: tuple[str, ...] = ()  # URLs, the publisher's own first
    size: int | None = None  # bytes of the published file
    sha256: str | None = None  # of the published file
    checkpoint: str = ""  # the class that wrote the published file
    note: str = ""
    shipped: bool = False  # comes with w2c-gen


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All parts, and the families they make up."""

    parts: dict[str, Part] = field(default_factory=dict)
    families: dict[str, dict[str, str]] = field(default_factory=dict)  # family -> role -> name of a part


def shipped_folder() -> Path:
    """The folder of what comes with w2c-gen: inside the installed package, or at the root of a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "weights"
    return installed if installed.is_dir() else package.parent / "weights"


MANIFEST = shipped_folder() / "manifest.yaml"


def published() -> Manifest:
    """The manifest that comes with w2c-gen, read once.

    Raises:
        WeightsError: It is missing or damaged.
    """
    return _read_once(MANIFEST)


def part(name: str) -> Part:
    """The part called `name`.

    Raises:
        WeightsError: There is none.
    """
    try:
        return published().parts[name]
    except KeyError:
        raise WeightsError(f"no part is called {name!r}", hint="`w2c-gen weights list` shows what there is") from None


def expand(name: str) -> list[Part]:
    """The parts meant by `name`: a part, or all of a family.

    Raises:
        WeightsError: There is neither.
    """
    families = published().families
    return [part(member) for member in families[name].values()] if name in families else [part(name)]


def expand_all(names: Iterable[str]) -> list[Part]:
    """The parts meant by some names, each once.

    Raises:
        WeightsError: One of them means nothing.
    """
    return list({part.name: part for name in names for part in expand(name)}.values())


def read(path: Path) -> Manifest:
    """Read and check a manifest.

    Raises:
        WeightsError: It is missing, or something in it does not fit.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        parts = {name: _part(name, fields) for name, fields in content["parts"].items()}
        families = {name: dict(members) for name, members in content["families"].items()}
        for members in families.values():
            played = [parts[member].role for member in members.values()]
            if list(members) != played or {*played} - {*OPTIONAL} != {*ROLES}:
                raise ValueError(f"a family is not made of {', '.join(ROLES)}: {members}")
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})", hint=_REINSTALL) from None
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise WeightsError(f"{path}: not a manifest of w2c-gen ({what})", hint=_REINSTALL) from None
    return Manifest(parts=parts, families=families)


_REINSTALL = "it comes with w2c-gen: reinstall that"


@cache
def _read_once(path: Path) -> Manifest:
    return read(path)


def _part(name: str, fields: dict[str, Any]) -> Part:
    found = Part(name=name, **{**fields, "sources": tuple(fields.get("sources", ()))})
    if found.role not in (*ROLES, *OPTIONAL):
        raise ValueError(f"{name}: no role is called {found.role!r}")
    if found.sha256 is not None and not re.fullmatch("[0-9a-f]{64}", found.sha256):
        raise ValueError(f"{name}: not a sha256: {found.sha256}")
    if bool(found.sources) is found.shipped:
        raise ValueError(f"{name}: has no source")
    return found
