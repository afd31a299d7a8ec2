"""The network of Wav2CLIP's distillation and its losses (Wu et al., arXiv 2110.11499).

f is the projection of sounds into CLIP's space (kept as `audio_transform`), g the one of pictures into the space
of the sound's features (needed by the training alone).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wav2clip_gen.models.wav2clip import Projection, SpectrogramResNet, Wav2CLIP, Wav2CLIPConfig

LARGEST_SCALE = 100.0  # of the logits, as in CLIP


class Views(NamedTuple):
    """What is compared, all of unit length and float32."""

    sound: Tensor  # (B, F) features
    projected_sound: Tensor  # (B, D), f of the sound
    image: Tensor  # (B, D), CLIP's
    projected_image: Tensor  # (B, F), g of the image


class Distillation(nn.Module):
    """The sound encoder and what only its training needs."""

    def __init__(self, config: Wav2CLIPConfig) -> None:
        super().__init__()
        self.encoder = Wav2CLIP(config)
        self.image_transform = Projection(config.embedding, config.embedding, 8 * config.width)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    @property
    def scale(self) -> Tensor:
        """What cosines are multiplied with: the inverse of the learned temperature."""
        return self.log_scale.exp().clamp(max=LARGEST_SCALE)

    def forward(self, spectrogram: Tensor) -> tuple[Tensor, Tensor]:
        """Map standardised spectrograms (B, 1, 257, T) to unit features (B, F) and embeddings (B, D)."""
        features = self.encoder.audio_encoder(spectrogram)
        return F.normalize(features, dim=-1), F.normalize(self.encoder.audio_transform(features), dim=-1)

    def views(self, spectrogram: Tensor, images: Tensor) -> Views:
        """Both projections of sounds (B, 1, 257, T) and of what was seen with them, unit vectors (B, D)."""
        features, embeddings = self(spectrogram)
        projected = F.normalize(self.image_transform(images), dim=-1)
        return Views(features.float(), embeddings.float(), images.float(), projected.float())


def clip_loss(a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    """InfoNCE both ways between unit vectors (B, D): row i of one belongs to row i of the other."""
    logits = scale * a @ b.T
    own = torch.arange(len(a), device=a.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def distillation_losses(name: str, views: Views, scale: Tensor) -> dict[str, Tensor]:
    """The terms of `clip_loss` (projected sound against image) or of `clip_loss_x`, the paper's cross projection.

    Each projection is compared with the other side as it is, so neither side alone can give up what it knows.
    """
    terms = {"projected sound-image": clip_loss(views.projected_sound, views.image, scale)}
    if name == "clip_loss_x":
        terms["sound-projected image"] = clip_loss(views.sound, views.projected_image, scale)
    return terms


@torch.no_grad()
def standardised(encoder: SpectrogramResNet, contexts: Tensor, windows: Tensor) -> Tensor:
    """Log spectrograms (B, 1, 257, T) of windows (B, N), by mean and deviation of what is around them (B, M)."""
    around = encoder.log_spectrogram(contexts)
    mean = around.mean(dim=(1, 2, 3), keepdim=True)
    deviation = around.std(dim=(1, 2, 3), keepdim=True)
    return (encoder.log_spectrogram(windows) - mean) / (deviation + 1e-9)


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Let batch norms use the batch and learn nothing from it: for a pass that will be made again."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
