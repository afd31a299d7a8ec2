"""Train the image tower of the small CLIP into the locked text anchors.

Locked-image-text tuning turned round (Zhai et al., arXiv 2111.07991): the text vectors stay, the pictures
learn to find theirs. The tower is a perceptor for optimisation, so it is trained adversarially: the gradients
of a robust network draw shapes instead of noise (Santurkar et al., arXiv 1906.09453). One step from a random
start is enough (Wong et al., arXiv 2001.03994).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wav2clip_gen.models.clip import Perceptor
from wav2clip_gen.training.anchors import (
    Concepts,
    extend,
    load_anchors,
    make_deriver,
    notes,
    picture_concepts,
    wanted_by_pictures,
)
from wav2clip_gen.training.data import Pictures, load_pictures
from wav2clip_gen.training.decoding import Reading
from wav2clip_gen.training.loop import Average, Recipe, seeded, step_generator

ARCHITECTURE = "w2c-mini"
LARGEST_SCALE = 100.0  # of the logits, as in CLIP


@dataclass(frozen=True, kw_only=True)
class ImageTraining:
    """Settings of a run."""

    batch: int = 64  # pictures a step
    learning_rate: float = 2e-3
    radius: float = 2.0  # of the adversary, L2 over a 64 px picture in [-1, 1]; 0 trains plainly
    smoothing: float = 0.1  # of the labels


class Labelled:
    """Pictures of both sizes with the concepts they show; those that show none are left out."""

    def __init__(self, data: Path, split: str, concepts: Concepts, *, reading: Reading | None = None) -> None:
        reading = reading or Reading()
        self.parts: list[Pictures] = [
            load_pictures(data, split, kind=kind, reading=reading) for kind in ("natural", "tiny")
        ]
        rows = [picture_concepts(data, part.descriptions, concepts) for part in self.parts]
        self.places = [(part, at) for part, found in enumerate(rows) for at, these in enumerate(found) if these]
        self.concepts = [rows[part][at] for part, at in self.places]
        self.skipped = tuple(name for part in self.parts for name in part.skipped)
        self.used = sorted({row for these in self.concepts for row in these})  # rows of concepts that occur

    def __len__(self) -> int:
        return len(self.places)

    def weights(self) -> Tensor:
        """How often each picture is drawn: the rarer its concepts, the more often."""
        counts = torch.bincount(torch.tensor([row for these in self.concepts for row in these]))
        return torch.tensor([max(counts[row].item() ** -0.5 for row in these) for these in self.concepts])

    def targets(self, chosen: list[int], among: dict[int, int]) -> Tensor:
        """Share (B, K) of each concept in each chosen picture."""
        targets = torch.zeros(len(chosen), len(among))
        for line, index in enumerate(chosen):
            known = [among[row] for row in self.concepts[index] if row in among]
            for column in known:
                targets[line, column] = 1 / len(known)
        return targets


class ImageRecipe(Recipe[Perceptor]):
    """The image tower learns to find the vector of what it sees."""

    name = "clip"

    def __init__(
        self,
        data: Path,
        settings: ImageTraining | None = None,
        *,
        reading: Reading | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        self.settings: ImageTraining = settings or ImageTraining()
        self.seed, self.device = seed, torch.device(device)
        anchors = load_anchors(data)
        derive = make_deriver(anchors)
        concepts = extend(anchors, wanted_by_pictures(data), derive)
        reading = reading or Reading()
        self.train = Labelled(data, "train", concepts, reading=reading)
        self.validation = Labelled(data, "val", concepts, reading=reading)
        self.skipped = self.train.skipped + self.validation.skipped
        self.notes = notes(self.skipped, derived=derive is not None, reading=reading)
        self.columns = {row: column for column, row in enumerate(self.train.used)}
        self.anchors = concepts.vectors[self.train.used].to(self.device)  # (K, D)
        self.anchor_names = [concepts.names[row] for row in self.train.used]
        self._weights = self.train.weights()
        with seeded(seed):
            self.network = Perceptor(ARCHITECTURE).to(self.device).train()
            torch.nn.init.constant_(self.network.model.logit_scale, math.log(30.0))
        visual = self.network.model.visual
        decayed = [parameter for parameter in visual.parameters() if parameter.ndim > 1]
        others = [parameter for parameter in visual.parameters() if parameter.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": 0.02},
            {"params": [*others, self.network.model.logit_scale], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=self.settings.learning_rate, betas=(0.9, 0.98))

    def losses(self, step: int, progress: float, generator: torch.Generator) -> dict[str, Tensor]:
        """Find the concepts of pictures that an adversary has changed."""
        chosen = torch.multinomial(self._weights, self.settings.batch, generator=generator).tolist()
        pictures = self._views(chosen, generator).to(self.device)
        targets = self.train.targets(chosen, self.columns).to(self.device)
        targets = (1 - self.settings.smoothing) * targets + self.settings.smoothing / targets.shape[1]
        if self.settings.radius:
            pictures = self.attack(self.network, pictures, targets, generator)
        return {"concepts": self._cross_entropy(self.network, pictures, targets)}

    @torch.no_grad()
    def after_step(self, average: Average[Perceptor]) -> None:
        """Take out of the tower's last layer the direction that all anchors share.

        No picture can learn anything about it, so what is there is left from the start, and yet it is the
        largest part of any text's vector: it would be most of what a text asks a picture for.
        """
        remove_direction(self.network, self.anchors.mean(dim=0))

    def attack(self, network: Perceptor, pictures: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Move pictures (B, 3, S, S) in [0, 1] one step against their targets, from a random start."""
        radius = self.settings.radius / 2  # pictures are in [0, 1] here
        loss = partial(self._cross_entropy, network, targets=targets)
        return adversarial_step(loss, pictures, radius=radius, generator=generator)

    def _cross_entropy(self, network: Perceptor, pictures: Tensor, targets: Tensor) -> Tensor:
        with self.batch():
            found = network.encode_images(pictures)
        scale = network.model.logit_scale.exp().clamp(max=LARGEST_SCALE)
        return F.cross_entropy(scale * found.float() @ self.anchors.T, targets)

    def _views(self, chosen: list[int], generator: torch.Generator) -> Tensor:
        """Random views (B, 3, size, size) in [0, 1] of chosen pictures."""
        size = self.network.size
        views = torch.empty(len(chosen), 3, size, size)
        for number, part in enumerate(self.train.parts):
            lines = [line for line, index in enumerate(chosen) if self.train.places[index][0] == number]
            if lines:
                at = [self.train.places[chosen[line]][1] for line in lines]
                views[lines] = random_views(part.pixels[at], size, generator=generator)
        return views

    def scores(self, network: Perceptor) -> dict[str, float]:
        """Top-1 over the concepts trained on, of clean pictures and of ones changed by the adversary."""
        right: dict[str, list[Tensor]] = {"natural": [], "tiny": [], "robust natural": [], "robust tiny": []}
        generator = step_generator(self.seed, -2)
        known = [i for i, rows in enumerate(self.validation.concepts) if any(row in self.columns for row in rows)]
        for number, kind in enumerate(("natural", "tiny")):
            of_kind = [index for index in known if self.validation.places[index][0] == number][:1200]
            for start in range(0, len(of_kind), 64):
                part = of_kind[start : start + 64]
                pixels = self.validation.parts[number].pixels[[self.validation.places[index][1] for index in part]]
                pictures = F.interpolate(pixels.float() / 255, size=(network.size, network.size), mode="area")
                pictures = pictures.to(self.device)
                targets = self.validation.targets(part, self.columns).to(self.device)
                right[kind].append(self._right(network, pictures, targets))
                moved = self.attack(network, pictures, targets, generator)
                right[f"robust {kind}"].append(self._right(network, moved, targets))
        scores = {f"top1 {name}": torch.cat(these).float().mean().item() for name, these in right.items() if these}
        return scores | {
            "concepts": float(len(self.columns)),
            "scale": network.model.logit_scale.exp().item(),
        }

    @torch.no_grad()
    def _right(self, network: Perceptor, pictures: Tensor, targets: Tensor) -> Tensor:
        best = (network.encode_images(pictures) @ self.anchors.T).argmax(dim=1, keepdim=True)
        return targets.gather(1, best)[:, 0] > 0

    def conditions(self) -> dict[str, Any]:
        """The pictures and concepts decide the run as much as the settings."""
        return {"pictures": len(self.train), "concepts": len(self.columns)}

    def provenance(self) -> dict[str, Any]:
        """Settings and data sets."""
        sets = sorted({described.set for part in self.train.parts for described in part.descriptions})
        return {"settings": asdict(self.settings), "sets": sets, "pictures": len(self.train)}


def remove_direction(network: Perceptor, direction: Tensor) -> None:
    """Make a network's image embeddings orthogonal to a direction (D,)."""
    unit = F.normalize(direction, dim=0)
    last = network.model.visual.head.proj.weight  # (D, features)
    last -= unit[:, None] * (unit @ last)


def adversarial_step(
    loss: Callable[[Tensor], Tensor], pictures: Tensor, *, radius: float, generator: torch.Generator
) -> Tensor:
    """Move pictures (B, 3, S, S) in [0, 1] one gradient step up a loss, from a random start, within an L2 radius.

    The step is 1.25 times the radius, then projected back to it, as Wong et al. found best.
    """
    start = torch.randn(pictures.shape, generator=generator).to(pictures)
    start = _to_length(start, radius * torch.rand(len(start), generator=generator).to(pictures))
    moved = (pictures + start).clamp(0, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(moved), moved)
    away = moved.detach() + _to_length(gradient, torch.full_like(gradient[:, 0, 0, 0], 1.25 * radius)) - pictures
    lengths = torch.linalg.vector_norm(away.flatten(1), dim=1).clamp(max=radius)
    return (pictures + _to_length(away, lengths)).clamp(0, 1)


def _to_length(changes: Tensor, lengths: Tensor) -> Tensor:
    """Scale each of (B, C, H, W) to its length (B,)."""
    now = torch.linalg.vector_norm(changes.flatten(1), dim=1).clamp(min=1e-12)
    return changes * (lengths / now).view(-1, 1, 1, 1)


def random_views(pixels: Tensor, size: int, *, generator: torch.Generator, smallest: float = 0.35) -> Tensor:
    """A random part (B, 3, size, size) in [0, 1] of each picture (B, 3, S, S) uint8, mirrored and recoloured.

    Args:
        pixels: The pictures.
        size: Pixels along each side of a view.
        generator: What decides.
        smallest: Share of a picture's area that a view shows at least.
    """
    count = len(pixels)

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    area, stretch = draw(smallest, 1.0), draw(-0.15, 0.15).exp()
    width, height = (area.sqrt() * stretch).clamp(max=1), (area.sqrt() / stretch).clamp(max=1)
    mirror = torch.where(draw(0, 1) < 0.5, -1.0, 1.0)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 0, 2] = width * mirror, draw(-1, 1) * (1 - width)
    theta[:, 1, 1], theta[:, 1, 2] = height, draw(-1, 1) * (1 - height)
    grid = F.affine_grid(theta, [count, 3, size, size], align_corners=False)
    views = F.grid_sample(pixels.float() / 255, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    grey = views.mean(dim=1, keepdim=True)
    views = grey + (views - grey) * draw(0.6, 1.4).view(-1, 1, 1, 1)
    middle = views.mean(dim=(1, 2, 3), keepdim=True)
    views = middle + (views - middle) * draw(0.7, 1.3).view(-1, 1, 1, 1)
    return (views * draw(0.7, 1.3).view(-1, 1, 1, 1)).clamp(0, 1)
