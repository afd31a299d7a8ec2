"""The common recipe of VQGAN-CLIP scripts, as a baseline of speed: what a step costs without any of our shortcuts.

It is what the published notebooks have in common, in our words: cutouts are made in a loop, by kornia's augmentations;
everything is float32; and the loss is read after every step. Networks and losses are those of our own step.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wav2clip_gen.models.registry import Models
from wav2clip_gen.synthesis.losses import spherical_distance
from wav2clip_gen.synthesis.step import clamp_with_gradient

NOISE = 0.1
LEARNING_RATE = 0.1


def augmentations(kornia: Any) -> torch.nn.Module:
    """Those of the authors' notebook."""
    draw = kornia.augmentation
    return torch.nn.Sequential(
        draw.RandomHorizontalFlip(p=0.5),
        draw.ColorJitter(0.1, 0.1, 0.1, 0.1, p=0.7),
        draw.RandomSharpness(0.3, p=0.4),
        draw.RandomAffine(degrees=30.0, translate=(0.1, 0.1), p=0.8, padding_mode="border"),
        draw.RandomPerspective(0.2, p=0.4),
        draw.RandomErasing(p=0.7),
    )


class CommonRecipe:
    """A latent that is optimised as the common scripts do."""

    def __init__(self, models: Models, side: int, cuts: int) -> None:
        """Start from noise; needs kornia."""
        import kornia

        self.models, self.cuts = models, cuts
        self._augment = augmentations(kornia)
        cells = side // models.vqgan.stride
        codes = models.vqgan.quantize.codes
        chosen = torch.randint(len(codes), (1, cells, cells), device=codes.device)
        self.latent = models.vqgan.quantize.look_up(chosen).detach().clone().requires_grad_()
        self._optimizer = torch.optim.Adam([self.latent], lr=LEARNING_RATE)
        self._low, self._high = (edge.view(1, -1, 1, 1) for edge in (codes.amin(dim=0), codes.amax(dim=0)))

    def step(self, target: Tensor) -> float:
        """One step; returns its loss."""
        self._optimizer.zero_grad()
        picture = clamp_with_gradient(self.models.vqgan.decode(self.models.vqgan.quantise(self.latent)))
        seen = self.models.clip.encode_images(self._cutouts(picture))
        loss = spherical_distance(seen, target).mean()
        loss.backward()
        self._optimizer.step()
        with torch.no_grad():
            self.latent.copy_(self.latent.maximum(self._low).minimum(self._high))
        return loss.item()

    def _cutouts(self, picture: Tensor) -> Tensor:
        size, (height, width) = self.models.clip.size, picture.shape[-2:]
        most, least = min(height, width), min(height, width, size)
        cutouts = []
        for _ in range(self.cuts):
            side = int(torch.rand([]).item() * (most - least) + least)
            left, top = (int(torch.randint(0, room - side + 1, ()).item()) for room in (width, height))
            cut = picture[:, :, top : top + side, left : left + side]
            cutouts.append(F.adaptive_avg_pool2d(cut, (size, size)))
        batch = self._augment(torch.cat(cutouts))
        deviation = batch.new_empty([self.cuts, 1, 1, 1]).uniform_(0, NOISE)
        return batch + deviation * torch.randn_like(batch)
