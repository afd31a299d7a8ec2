"""Settings of all trainers; the options of `w2c-gen train` are made from them. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from wav2clip_gen.errors import SettingsError

CLIP_SECONDS = 10.0  # of a video that are used
CHOICES = {"loss": ("clip_loss", "clip_loss_x"), "precision": ("fp32", "bf16")}


def setting(default: Any, text: str, *, minimum: float | None = None) -> Any:
    """A field with the help text and the lower bound of its command-line option."""
    return field(default=default, metadata={"help": text, "min": minimum})


@dataclass(frozen=True, kw_only=True)
class ImageTowerSettings:
    """CLIP's image tower."""

    batch: int = setting(64, "images per step", minimum=1)
    learning_rate: float = setting(2e-3, "peak learning rate", minimum=0)
    radius: float = setting(2.0, "L2 radius of the adversary on a 64 px image in [-1, 1]; 0 for none", minimum=0)
    smoothing: float = setting(0.1, "label smoothing", minimum=0)


@dataclass(frozen=True, kw_only=True)
class TextTowerSettings:
    """CLIP's text tower."""

    batch: int = setting(128, "texts per step", minimum=1)
    learning_rate: float = setting(2e-3, "peak learning rate", minimum=0)
    named: float = setting(0.4, "share of a batch that has a real CLIP embedding", minimum=0)


@dataclass(frozen=True, kw_only=True)
class VQGANSettings:
    """The VQGAN. Times are shares of the run."""

    batch: int = setting(8, "crops per step", minimum=1)
    crop: int = setting(64, "pixels along each side of a crop", minimum=8)
    learning_rate: float = setting(1e-3, "peak learning rate", minimum=0)
    autoencoder: float = setting(0.3, "share of the run without a codebook", minimum=0)
    noise: float = setting(0.1, "noise on the latent without a codebook, in standard deviations", minimum=0)
    commitment: float = setting(0.25, "weight of the commitment loss", minimum=0)
    lattice: float = setting(2.0, "weight of the loss on edges that repeat in each latent cell", minimum=0)
    perceptual: float = setting(0.1, "weight of the perceptual loss, if a CLIP is trained", minimum=0)
    perceptual_from: float = setting(0.45, "share of the run after which the perceptual loss starts", minimum=0)
    adversarial: float = setting(0.15, "weight of the adversarial loss, relative to all others; 0 for none", minimum=0)
    adversarial_from: float = setting(0.5, "share of the run after which the discriminator starts", minimum=0)


@dataclass(frozen=True, kw_only=True)
class LabeledAudioSettings:
    """Wav2CLIP from labeled sounds."""

    batch: int = setting(32, "windows per step; of videos, clips over all processes", minimum=1)
    learning_rate: float = setting(1e-3, "peak learning rate", minimum=0)
    mixing: float = setting(0.3, "share of the windows with a second sound mixed in", minimum=0)
    smoothing: float = setting(0.1, "label smoothing", minimum=0)
    cosine: float = setting(0.5, "weight of the plain cosine loss to the images", minimum=0)


@dataclass(frozen=True, kw_only=True)
class DistillSettings:
    """Wav2CLIP from videos, as in the paper."""

    batch: int = setting(64, "clips per step over all processes; each is a negative of all others", minimum=1)
    micro_batches: int = setting(1, "micro-batches per process, to save memory; negatives stay the same", minimum=1)
    learning_rate: float = setting(1e-3, "initial learning rate", minimum=0)
    loss: str = setting("clip_loss_x", "contrastive loss, clip_loss or clip_loss_x")
    precision: str = setting("fp32", "precision, fp32 or bf16")
    seconds: float = setting(5.0, "length of the excerpt of a clip", minimum=0.5)
    lr_factor: float = setting(0.1, "factor of the learning rate once the held-out loss stops falling", minimum=0)
    patience: int = setting(3, "evaluations without improvement before lr_factor applies", minimum=1)
    stop_after: int = setting(10, "evaluations without improvement before the run ends", minimum=1)
    width: int = setting(64, "width of the network", minimum=1)

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise SettingsError(f"there is no {name} {value!r}", hint=f"choose from: {', '.join(allowed)}")
        if not 0.5 <= self.seconds <= CLIP_SECONDS:
            raise SettingsError(
                f"an excerpt cannot last {self.seconds:g} s", hint=f"give --seconds from 0.5 to {CLIP_SECONDS:g}"
            )
