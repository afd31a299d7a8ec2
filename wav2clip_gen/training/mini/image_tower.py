"""Train the image tower of the small CLIP towards fixed text vectors.

Locked-image tuning with the roles reversed (Zhai et al., arXiv 2111.07991): the text vectors are fixed, the images are
trained. The tower guides an optimization, so it is trained adversarially: the gradients of a robust network
draw shapes instead of noise (Santurkar et al., arXiv 1906.09453). One step from a random start is enough (Wong et al.,
arXiv 2001.03994).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from wav2clip_gen.models.clip import Perceptor
from wav2clip_gen.training.data import ImageDataset, Loader, load_images
from wav2clip_gen.training.distill import MAX_LOGIT_SCALE
from wav2clip_gen.training.mini.concepts import Concepts, data_notes, image_concepts, load_concepts
from wav2clip_gen.training.schedule import seeded, step_generator
from wav2clip_gen.training.settings import ImageTowerSettings
from wav2clip_gen.training.trainer import TrainTask

ARCHITECTURE = "w2c-mini"
KINDS = ("natural", "tiny")
SMALLEST_VIEW = 0.35  # share of an image's area
MOST_VALIDATED = 1200  # images of each kind that an evaluation uses
CHUNK = 64  # images at a time in an evaluation


class LabeledImages:
    """Images of both sizes with the concepts they show; those that show none are left out."""

    def __init__(self, data: Path, split: str, concepts: Concepts, *, loader: Loader | None = None) -> None:
        loader = loader or Loader()
        self.datasets: list[ImageDataset] = [load_images(data, split, kind=kind, loader=loader) for kind in KINDS]
        found = [image_concepts(data, dataset.info, concepts) for dataset in self.datasets]
        # (dataset, row in it) of each image
        self.places = [(number, row) for number, lists in enumerate(found) for row, these in enumerate(lists) if these]
        self.concepts = [found[number][row] for number, row in self.places]
        self.skipped = tuple(name for dataset in self.datasets for name in dataset.skipped)
        self.sets = sorted({image.set for dataset in self.datasets for image in dataset.info})
        self.used = sorted({row for these in self.concepts for row in these})  # rows of concepts that occur

    def __len__(self) -> int:
        return len(self.places)

    def of_kind(self, number: int) -> list[int]:
        """The images that are in one of the datasets."""
        return [index for index, (dataset, _) in enumerate(self.places) if dataset == number]

    def pixels(self, number: int, chosen: list[int]) -> Tensor:
        """Chosen images of one of the datasets, (B, 3, S, S) uint8."""
        return self.datasets[number][[self.places[index][1] for index in chosen]]

    def weights(self) -> Tensor:
        """Sampling weights: the rarer an image's concepts, the more often it is drawn."""
        counts = torch.bincount(torch.tensor([row for these in self.concepts for row in these]))
        return torch.tensor([max(counts[row].item() ** -0.5 for row in these) for these in self.concepts])

    def targets(self, chosen: list[int], columns: dict[int, int]) -> Tensor:
        """The share (B, K) of each concept, row -> column, in each chosen image."""
        targets = torch.zeros(len(chosen), len(columns))
        for line, index in enumerate(chosen):
            known = [columns[row] for row in self.concepts[index] if row in columns]
            for column in known:
                targets[line, column] = 1 / len(known)
        return targets


class ImageTowerTask(TrainTask[Perceptor]):
    """Train the image tower to embed an image at the vectors of the concepts it shows."""

    name = "clip"

    def __init__(
        self,
        data: Path,
        settings: ImageTowerSettings | None = None,
        *,
        loader: Loader | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        self.settings: ImageTowerSettings = settings or ImageTowerSettings()
        self.seed, self.device = seed, torch.device(device)
        concepts, encoder = load_concepts(data)
        loader = loader or Loader()
        self.train = LabeledImages(data, "train", concepts, loader=loader)
        self.validation = LabeledImages(data, "val", concepts, loader=loader)
        self.skipped = self.train.skipped + self.validation.skipped
        self.notes = data_notes(self.skipped, loader=loader, has_encoder=encoder is not None)
        self.columns = {row: column for column, row in enumerate(self.train.used)}
        self.anchors = concepts.vectors[self.train.used].to(self.device)  # (K, D)
        self.anchor_names = [concepts.names[row] for row in self.train.used]
        self.data_facts = {"sets": self.train.sets, "pictures": len(self.train), "concepts": len(self.columns)}
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
        self.optimizer = torch.optim.AdamW(groups, lr=self.settings.learning_rate, betas=(0.9, 0.98))

    def losses(self, step: int, progress: float, generator: torch.Generator) -> dict[str, Tensor]:
        """Classify adversarially perturbed images."""
        chosen = torch.multinomial(self._weights, self.settings.batch, generator=generator).tolist()
        images = self._views(chosen, generator).to(self.device)
        targets = self.train.targets(chosen, self.columns).to(self.device)
        targets = (1 - self.settings.smoothing) * targets + self.settings.smoothing / targets.shape[1]
        if self.settings.radius:
            images = self.attack(self.network, images, targets, generator)
        return {"concepts": self.cross_entropy(self.network, images, targets)}

    @torch.no_grad()
    def after_step(self) -> None:
        """Remove the direction that all anchors share from the tower's last layer.

        No image can learn anything about it, so what is there is left from initialization, and yet it is the
        largest component of any text's vector: it would dominate every text's gradient on an image.
        """
        remove_direction(self.network, self.anchors.mean(dim=0))

    def attack(self, network: Perceptor, images: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Perturb images (B, 3, S, S) in [0, 1] against their targets (B, K); see `adversarial_step`."""
        radius = self.settings.radius / 2  # images are in [0, 1] here
        return adversarial_step(
            lambda perturbed: self.cross_entropy(network, perturbed, targets),
            images,
            radius=radius,
            generator=generator,
        )

    def cross_entropy(self, network: Perceptor, images: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of images (B, 3, S, S) to the shares (B, K) of the concepts."""
        with self.autocast():
            embeddings = network.encode_images(images)
        scale = network.model.logit_scale.exp().clamp(max=MAX_LOGIT_SCALE)
        return F.cross_entropy(scale * embeddings.float() @ self.anchors.T, targets)

    def _views(self, chosen: list[int], generator: torch.Generator) -> Tensor:
        """Random views (B, 3, size, size) in [0, 1] of chosen images."""
        size = self.network.size
        views = torch.empty(len(chosen), 3, size, size)
        for number in range(len(self.train.datasets)):
            lines = [line for line, index in enumerate(chosen) if self.train.places[index][0] == number]
            if lines:
                pixels = self.train.pixels(number, [chosen[line] for line in lines])
                views[lines] = random_cutouts(pixels, size, generator=generator)
        return views

    def scores(self, network: Perceptor) -> dict[str, float]:
        """Top-1 accuracy over the concepts trained on, of clean and of adversarial validation images."""
        correct: dict[str, list[Tensor]] = {name: [] for name in (*KINDS, *(f"robust {kind}" for kind in KINDS))}
        generator = step_generator(self.seed, -2)
        for number, kind in enumerate(KINDS):
            chosen = [index for index in self.validation.of_kind(number) if self._is_known(index)][:MOST_VALIDATED]
            for start in range(0, len(chosen), CHUNK):
                chunk = chosen[start : start + CHUNK]
                pixels = self.validation.pixels(number, chunk)
                images = F.interpolate(pixels.float() / 255, size=(network.size, network.size), mode="area")
                images = images.to(self.device)
                targets = self.validation.targets(chunk, self.columns).to(self.device)
                correct[kind].append(self._is_correct(network, images, targets))
                perturbed = self.attack(network, images, targets, generator)
                correct[f"robust {kind}"].append(self._is_correct(network, perturbed, targets))
        scores = {f"top1 {name}": torch.cat(these).float().mean().item() for name, these in correct.items() if these}
        return scores | {"concepts": float(len(self.columns)), "scale": network.model.logit_scale.exp().item()}

    def _is_known(self, index: int) -> bool:
        """Whether a validation image shows a concept that was trained on."""
        return any(row in self.columns for row in self.validation.concepts[index])

    @torch.no_grad()
    def _is_correct(self, network: Perceptor, images: Tensor, targets: Tensor) -> Tensor:
        best = (network.encode_images(images) @ self.anchors.T).argmax(dim=1, keepdim=True)
        return targets.gather(1, best)[:, 0] > 0


def remove_direction(network: Perceptor, direction: Tensor) -> None:
    """Make a network's image embeddings orthogonal to a direction (D,)."""
    unit = F.normalize(direction, dim=0)
    last = network.model.visual.head.proj.weight  # (D, features)
    last -= unit[:, None] * (unit @ last)


def adversarial_step(
    loss: Callable[[Tensor], Tensor], images: Tensor, *, radius: float, generator: torch.Generator
) -> Tensor:
    """Perturb images (B, 3, S, S) in [0, 1] by one gradient step up a loss, from a random start, within an L2 radius.

    The step is 1.25 times the radius, then projected back onto it, as Wong et al. found best.
    """
    start = torch.randn(images.shape, generator=generator).to(images)
    start = _rescale(start, radius * torch.rand(len(start), generator=generator).to(images))
    perturbed = (images + start).clamp(0, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(perturbed), perturbed)
    change = perturbed.detach() + _rescale(gradient, torch.full_like(gradient[:, 0, 0, 0], 1.25 * radius)) - images
    lengths = torch.linalg.vector_norm(change.flatten(1), dim=1).clamp(max=radius)
    return (images + _rescale(change, lengths)).clamp(0, 1)


def _rescale(changes: Tensor, lengths: Tensor) -> Tensor:
    """Scale each of (B, C, H, W) to its length (B,)."""
    norms = torch.linalg.vector_norm(changes.flatten(1), dim=1).clamp(min=1e-12)
    return changes * (lengths / norms).view(-1, 1, 1, 1)


def random_cutouts(pixels: Tensor, size: int, *, generator: torch.Generator) -> Tensor:
    """A random part (B, 3, size, size) in [0, 1] of each image (B, 3, S, S) uint8, with flips and color jitter."""
    count = len(pixels)

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    area, stretch = draw(SMALLEST_VIEW, 1.0), draw(-0.15, 0.15).exp()
    width, height = (area.sqrt() * stretch).clamp(max=1), (area.sqrt() / stretch).clamp(max=1)
    mirror = torch.where(draw(0, 1) < 0.5, -1.0, 1.0)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 0, 2] = width * mirror, draw(-1, 1) * (1 - width)
    theta[:, 1, 1], theta[:, 1, 2] = height, draw(-1, 1) * (1 - height)
    grid = F.affine_grid(theta, [count, 3, size, size], align_corners=False)
    views = F.grid_sample(pixels.float() / 255, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    gray = views.mean(dim=1, keepdim=True)
    views = gray + (views - gray) * draw(0.6, 1.4).view(-1, 1, 1, 1)
    mean = views.mean(dim=(1, 2, 3), keepdim=True)
    views = mean + (views - mean) * draw(0.7, 1.3).view(-1, 1, 1, 1)
    return (views * draw(0.7, 1.3).view(-1, 1, 1, 1)).clamp(0, 1)
