"""Settings of all trainers; the options of `w2c-gen train` are made from them. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass

from wav2clip_gen.fields import SettingsGroup, setting

CLIP_SECONDS = 10.0  # of a video that are used
COUNT = (1, None)  # limits of what is counted
SHARE = (0, None)  # limits of a share or weight


@dataclass(frozen=True, kw_only=True)
class ImageTowerSettings(SettingsGroup):
    """CLIP's image tower."""

    batch: int = setting(64, "images per step", limits=COUNT)
    learning_rate: float = setting(2e-3, "peak learning rate", limits=SHARE)
    radius: float = setting(2.0, "L2 radius of the adversary on a 64 px image in [-1, 1]; 0 for none", limits=SHARE)
    smoothing: float = setting(0.1, "label smoothing", limits=SHARE)


@dataclass(frozen=True, kw_only=True)
class TextTowerSettings(SettingsGroup):
    """CLIP's text tower."""

    batch: int = setting(128, "texts per step", limits=COUNT)
    learning_rate: float = setting(2e-3, "peak learning rate", limits=SHARE)
    named: float = setting(0.4, "share of a batch that has a real CLIP embedding", limits=SHARE)


@dataclass(frozen=True, kw_only=True)
class VQGANSettings(SettingsGroup):
    """The VQGAN. Times are shares of the run."""

    batch: int = setting(8, "crops per step", limits=COUNT)
    crop: int = setting(64, "pixels along each side of a crop", limits=(8, None))
    learning_rate: float = setting(1e-3, "peak learning rate", limits=SHARE)
    whole_from: float = setting(0.67, "share of the run after which whole pictures replace the crops", limits=SHARE)
    autoencoder: float = setting(0.3, "share of the run without a codebook", limits=SHARE)
    noise: float = setting(0.1, "noise on the latent without a codebook, in standard deviations", limits=SHARE)
    commitment: float = setting(0.25, "weight of the commitment loss", limits=SHARE)
    lattice: float = setting(2.0, "weight of the loss on edges that repeat in each latent cell", limits=SHARE)
    perceptual: float = setting(0.3, "weight of the perceptual loss; 0 for none", limits=SHARE)
    psnr: float = setting(21.5, "PSNR at which the perceptual loss has half its weight; below, it has less", unit="dB")
    perceptual_from: float = setting(0.15, "share of the run after which the perceptual loss starts", limits=SHARE)
    adversarial: float = setting(
        0.15, "weight of the adversarial loss, relative to all others; 0 for none", limits=SHARE
    )
    adversarial_from: float = setting(0.5, "share of the run after which the discriminator starts", limits=SHARE)


@dataclass(frozen=True, kw_only=True)
class LabeledAudioSettings(SettingsGroup):
    """Wav2CLIP from labeled sounds."""

    batch: int = setting(32, "windows per step; of videos, clips over all processes", limits=COUNT)
    learning_rate: float = setting(1e-3, "peak learning rate", limits=SHARE)
    unlabeled: float = setting(0.4, "share of the windows without a label, if there are such sounds", limits=(0, 0.9))
    mixing: float = setting(0.3, "share of the windows with a second sound mixed in", limits=SHARE)
    smoothing: float = setting(0.1, "label smoothing", limits=SHARE)
    teacher: float = setting(1.0, "weight of the distillation from the teacher, YAMNet; 0 for none", limits=SHARE)
    cosine: float = setting(0.25, "weight of the plain cosine loss to the images", limits=SHARE)


@dataclass(frozen=True, kw_only=True)
class DistillSettings(SettingsGroup):
    """Wav2CLIP from videos, as in the paper."""

    batch: int = setting(64, "clips per step over all processes; each is a negative of all others", limits=COUNT)
    micro_batches: int = setting(1, "micro-batches per process, to save memory; negatives stay the same", limits=COUNT)
    learning_rate: float = setting(1e-3, "initial learning rate", limits=SHARE)
    loss: str = setting("clip_loss_x", "contrastive loss", choices=("clip_loss", "clip_loss_x"))
    precision: str = setting("fp32", "precision", choices=("fp32", "bf16"))
    seconds: float = setting(5.0, "length of the excerpt of a clip", unit="s", limits=(0.5, CLIP_SECONDS))
    lr_factor: float = setting(0.1, "factor of the learning rate once the held-out loss stops falling", limits=SHARE)
    patience: int = setting(3, "evaluations without improvement before lr_factor applies", limits=COUNT)
    stop_after: int = setting(10, "evaluations without improvement before the run ends", limits=COUNT)
    width: int = setting(64, "width of the network", limits=COUNT)
