"""A name ("mini", "full") -> ready networks on a device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from wav2clip_gen.config import RunSettings
from wav2clip_gen.errors import SettingsError
from wav2clip_gen.models import checkpoints
from wav2clip_gen.models.choice import Choice, choose, recipe_beside
from wav2clip_gen.models.clip import Perceptor
from wav2clip_gen.models.convert import convert
from wav2clip_gen.models.prior import ConceptPrior as Prior
from wav2clip_gen.models.recipes import read_recipe
from wav2clip_gen.models.vqgan import VQGAN
from wav2clip_gen.models.wav2clip import Wav2CLIP


@dataclass(frozen=True, eq=False)
class Family:
    """Three networks, and a prior if the family has one, frozen, on one device."""

    selection: Choice
    wav2clip: Wav2CLIP  # hears
    clip: Perceptor  # sees and reads
    vqgan: VQGAN  # paints
    prior: Prior | None = None  # knows what concepts look like
    random: bool = False  # some of the weights are, for tests and measurements

    @property
    def name(self) -> str:
        """What a person calls it."""
        named = [name for name in (self.selection.perceptor, self.selection.vqgan) if name]
        others = f" with {' and '.join(named)}" if named else ""
        return f"{self.selection.family}{others}{' (RANDOM WEIGHTS)' if self.random else ''}"

    @property
    def files(self) -> dict[str, Path]:
        """Role -> weights file."""
        return self.selection.files

    @property
    def device(self) -> torch.device:
        """Where the networks live."""
        return self.clip.device


def load_family(
    name: str = "auto",
    *,
    device: str | torch.device = "cpu",
    perceptor: str | None = None,
    vqgan: str | None = None,
    weights_dir: Path | None = None,
) -> Family:
    """Load the networks of a family.

    Args:
        name: "full", "mini", or "auto" for the best family whose files are in place.
        device: Where the networks shall live.
        perceptor: Another CLIP: a part's name, an open_clip `ARCHITECTURE/TAG`, or a weights file.
        vqgan: Another painter: a part's name, a weights file, or a checkpoint with its YAML beside it.
        weights_dir: Folder of fetched weights, instead of `W2C_WEIGHTS` or the user's cache.

    Raises:
        WeightsError: There is no such family or part, or one of its files is missing or damaged.
        SettingsError: A file that was named cannot be used.
    """
    choice = choose(RunSettings(models=name, perceptor=perceptor, vqgan=vqgan), weights_dir)
    choice.require()
    return load_choice(choice, device=device)


def load_choice(choice: Choice, *, device: str | torch.device = "cpu") -> Family:
    """Load the networks that were chosen; a checkpoint of the user's own is converted the first time.

    Raises:
        WeightsError: One of the files is missing or damaged.
    """
    for role, part in choice.components.items():
        if part.original and not part.path.is_file():
            convert(part.original, part.path, role=role, config=read_recipe(recipe_beside(part.original)))
    networks = {role: checkpoints.load(path, part=role).to(device) for role, path in choice.files.items()}
    wav2clip = cast(Wav2CLIP, networks["wav2clip"])
    # A quarter less time on a CPU; the networks that paint gain nothing.
    wav2clip.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Family(
        selection=choice,
        wav2clip=wav2clip,
        clip=cast(Perceptor, networks["clip"]),
        vqgan=cast(VQGAN, networks["vqgan"]),
        prior=cast("Prior | None", networks.get("prior")),
        random=any("random" in checkpoints.read_header(path).training for path in choice.files.values()),
    )


def choose_device(name: str = "auto") -> torch.device:
    """The device meant by a name; "auto" is the best there is.

    Raises:
        SettingsError: There is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.zeros(1, device=name).device  # with its number: "cuda" is cuda:0
    except (RuntimeError, AssertionError, NotImplementedError):
        raise SettingsError(
            f"there is no device {name!r} here", hint="run `w2c-gen doctor` to see what there is"
        ) from None
    return device


def computes_in_bf16(device: torch.device) -> bool:
    """Whether bf16 is computed by the device itself, and so faster than fp32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)  # Ampere
    if device.type == "cpu":
        # Halves a step where AVX512-BF16 is there, and is slower than fp32 where it is emulated.
        ask = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return bool(ask and ask())
    return False
