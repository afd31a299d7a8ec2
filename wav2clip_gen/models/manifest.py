"""The published models: what each part is, where it comes from and under which licence (`weights/manifest.yaml`).

Uses no network, no weights and no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from wav2clip_gen.errors import WeightsError

ROLES = ("wav2clip", "clip", "vqgan")
OPTIONAL = ("prior",)  # roles that a family may do without
OTHERS = ("audioclip", "openl3", "yamnet")  # sound encoders outside the families


@dataclass(frozen=True, kw_only=True)
class Part:
    """A file of the manifest: a published network, or one of the small family that ships."""

    name: str
    role: str  # what it does in a family
    file: str  # name of the published file; of a shipped part, its path below the shipped weights
    licence: str
    citation: str
    config: dict[str, Any]  # arguments that rebuild the network; empty where the shipped file holds them
    sources: tuple[str, ...] = ()  # URLs, the publisher's own first
    size: int | None = None  # bytes of the published file
    sha256: str | None = None  # of the published file
    checkpoint: str = ""  # the class that wrote the published file
    note: str = ""
    shipped: bool = False  # comes with w2c-gen


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All parts, and the families they make up."""

    parts: dict[str, Part]
    families: dict[str, dict[str, str]]  # family -> role -> name of a part


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
    return read(MANIFEST)


def part(name: str) -> Part:
    """The part called `name`.

    Raises:
        WeightsError: There is none.
    """
    try:
        return published().parts[name]
    except KeyError:
        raise WeightsError(f"no part is called {name!r}", hint="`w2c-gen weights list` shows what there is") from None


def expand(*names: str) -> list[Part]:
    """The parts that some names of parts and families stand for, each once.

    Raises:
        WeightsError: There is neither a part nor a family of one of the names.
    """
    families = published().families
    members = [member for name in names for member in (families[name].values() if name in families else [name])]
    return [part(member) for member in dict.fromkeys(members)]


@cache
def read(path: Path) -> Manifest:
    """Read a manifest; that what it says of each part is complete is checked by the tests.

    Raises:
        WeightsError: It is missing or damaged.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        parts = {
            name: Part(name=name, **{**fields, "sources": tuple(fields.get("sources", ()))})
            for name, fields in content["parts"].items()
        }
        return Manifest(parts=parts, families=content["families"])
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        hint = "it comes with w2c-gen: reinstall that"
        raise WeightsError(f"{path}: not a manifest of w2c-gen ({what})", hint=hint) from None
