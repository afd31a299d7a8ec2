"""A name ("mini") -> three ready networks on a device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from wav2clip_gen.errors import SettingsError
from wav2clip_gen.models import checkpoints, store
from wav2clip_gen.models.clip import Perceptor
from wav2clip_gen.models.vqgan import VQGAN
from wav2clip_gen.models.wav2clip import Wav2CLIP


@dataclass(frozen=True, eq=False)
class Family:
    """Three networks that share CLIP's space, frozen, on one device."""

    name: str
    wav2clip: Wav2CLIP  # hears
    clip: Perceptor  # sees and reads
    vqgan: VQGAN  # paints
    files: dict[str, Path]  # part -> weights file

    @property
    def device(self) -> torch.device:
        """Where the networks live."""
        return self.clip.device


def load_family(name: str = "auto", *, device: str | torch.device = "cpu", weights_dir: Path | None = None) -> Family:
    """Load the networks of a family.

    Args:
        name: "mini", or "auto" for the best family whose files are in place.
        device: Where the networks shall live.
        weights_dir: Folder of families, instead of the one that came with the package.

    Raises:
        WeightsError: The family is unknown, or one of its files is missing or damaged.
    """
    name = store.resolve(name, weights_dir)
    files = {part: store.find(name, part, weights_dir) for part in store.PARTS}
    networks = {part: checkpoints.load(path, part=part).to(device) for part, path in files.items()}
    return Family(
        name=name,
        wav2clip=cast(Wav2CLIP, networks["wav2clip"]),
        clip=cast(Perceptor, networks["clip"]),
        vqgan=cast(VQGAN, networks["vqgan"]),
        files=files,
    )


def choose_device(name: str = "auto") -> torch.device:
    """The device meant by a name; "auto" is the best there is.

    Raises:
        SettingsError: There is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
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
