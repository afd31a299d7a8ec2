"""Which networks make a film: a family, and in place of its parts others that were named. Imports no torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from wav2clip_gen.config import RunSettings
from wav2clip_gen.errors import SettingsError, WeightsError
from wav2clip_gen.models import manifest, store
from wav2clip_gen.models.recipes import read_recipe

WITH_SOUND = ("vit-b-32", "mini-clip")  # the perceptors in whose space sounds are embedded
OWN, TAGS = "own", "open_clip"  # folders of weights made of the user's checkpoints, and of open_clip's names
CONVERTIBLE = (".ckpt", ".pt", ".pth")


@dataclass(frozen=True)
class Part:
    """One network of a film."""

    name: str  # as it was asked for
    path: Path  # of its weights file
    hint: str  # what to do where that is missing
    original: Path | None = None  # a checkpoint of the user's own, from which the weights file is made


@dataclass(frozen=True)
class Choice:
    """The networks of a film, by role."""

    components: dict[str, Part]
    family: str
    perceptor: str | None = None  # as it was asked for, where it is not the family's
    vqgan: str | None = None  # likewise

    @property
    def files(self) -> dict[str, Path]:
        """Role -> weights file."""
        return {role: part.path for role, part in self.components.items()}

    def require(self) -> None:
        """Make sure that all files are in place.

        Raises:
            WeightsError: One is not.
        """
        for part in self.components.values():
            if part.original is None:
                store.require_file(part.path, hint=part.hint)


def choose(run: RunSettings, weights_dir: Path | None = None) -> Choice:
    """The networks that settings name; whether their files are there is left to `Choice.require`.

    Raises:
        WeightsError: There is no family or part of that name, or a part for another role.
        SettingsError: A file that was named cannot be used.
    """
    family = store.resolve(run.models, weights_dir)
    parts = {
        role: Part(part.name, store.locate_part(part, weights_dir), store.way_to(part, family))
        for role, part in store.members(family).items()
    }
    for role, asked in (("clip", run.perceptor), ("vqgan", run.vqgan)):
        if asked is not None:
            parts[role] = find(asked, role, weights_dir)
    for role in manifest.OPTIONAL:
        if role in parts and not (parts[role].path.is_file() and hears(parts["clip"])):
            del parts[role]  # a prior is of one space, as sounds are
    named = {role: parts[role].name for role, asked in (("clip", run.perceptor), ("vqgan", run.vqgan)) if asked}
    return Choice(parts, family, named.get("clip"), named.get("vqgan"))


def find(asked: str, role: str, weights_dir: Path | None = None) -> Part:
    """The part meant by a name of the manifest, an open_clip `ARCHITECTURE/TAG`, or a file.

    Raises:
        WeightsError: There is no part of that name, or it plays another role.
        SettingsError: The file cannot be used.
    """
    if Path(asked).suffix.lower() in (".safetensors", *CONVERTIBLE) or Path(asked).is_file():
        return _own_file(Path(asked).resolve(), role, weights_dir)
    if role == "clip" and asked.count("/") == 1:
        return Part(asked, tag_file(asked, weights_dir), f"run `w2c-gen weights fetch {asked}`")
    part = manifest.part(asked)
    if part.role != role:
        raise WeightsError(f"{asked} is a {part.role}, not a {role}", hint="`w2c-gen weights list` tells what is what")
    return Part(part.name, store.locate_part(part, weights_dir), store.way_to(part))


def tag_file(asked: str, weights_dir: Path | None = None) -> Path:
    """Where the weights that open_clip knows as `ARCHITECTURE/TAG` belong."""
    return (weights_dir or store.weights_folder()) / TAGS / asked.replace("/", "--") / "clip.safetensors"


def hears(part: Part) -> bool:
    """Whether sounds can steer what this perceptor sees: it is of the space that sounds are embedded in."""
    if part.name in manifest.published().parts:
        return part.name in WITH_SOUND
    if not part.path.is_file():
        return False
    try:
        header = store.describe(part.path)
    except WeightsError:
        return False
    published = header.get("original", {}).get("sha256") == manifest.part("vit-b-32").sha256
    return published or header.get("config", {}).get("architecture") == "w2c-mini"


def require_one_space(choice: Choice, *, sound: bool) -> None:
    """Make sure that the sound encoder and the perceptor speak of the same space, where sound steers.

    Raises:
        SettingsError: They do not.
    """
    perceptor = choice.components["clip"]
    if sound and not hears(perceptor):
        raise SettingsError(
            f"sound cannot steer the perceptor {perceptor.name}: Wav2CLIP lives in the space of ViT-B/32",
            hint="take --perceptor vit-b-32, by OpenAI, or let words alone steer: --prompt ... --audio-weight 0",
        )


def _own_file(path: Path, role: str, weights_dir: Path | None) -> Part:
    """A weights file of ours as it is, or where the conversion of somebody's checkpoint belongs."""
    if not path.is_file():
        raise SettingsError(f"{path}: no such weights file", hint="check the spelling and the folder you are in")
    if path.suffix.lower() == ".safetensors":
        return Part(str(path), path, "")
    if role != "vqgan":
        hint = f"w2c-gen weights convert {path.name} --as vit-b-32 --out {path.stem}.safetensors"
        raise SettingsError(f"{path}: a {role} must be converted first", hint=hint)
    facts = path.stat()
    recipe = recipe_beside(path).read_text(encoding="utf-8", errors="replace")
    read_recipe(recipe_beside(path))  # a fault in it is told before any work
    key = hashlib.sha256(f"{path.resolve()}|{facts.st_size}|{facts.st_mtime_ns}|{recipe}".encode()).hexdigest()
    folder = (weights_dir or store.weights_folder()) / OWN / f"{path.stem}-{key[:12]}"
    return Part(str(path), folder / "vqgan.safetensors", "", original=path)


def recipe_beside(checkpoint: Path) -> Path:
    """The YAML file that describes a checkpoint: beside it, with its name, or the only one there.

    Raises:
        SettingsError: There is none.
    """
    named = checkpoint.with_suffix(".yaml")
    if named.is_file():
        return named
    others = list(checkpoint.parent.glob("*.yaml"))
    if len(others) == 1:
        return others[0]
    raise SettingsError(
        f"{checkpoint}: nothing says how large its network is", hint=f"put its configuration beside it as {named.name}"
    )
