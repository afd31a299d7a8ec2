"""Fit the concept prior of the small family: ridge regression from embeddings to colors, in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wav2clip_gen.models import checkpoints
from wav2clip_gen.models.clip import ConceptPrior, Perceptor
from wav2clip_gen.training.data import Loader
from wav2clip_gen.training.mini.concepts import Concepts, Ridge, data_notes, load_concepts
from wav2clip_gen.training.mini.image_tower import LabeledImages

SIDE = 16  # cells of a color layout along each side
PENALTY = 5.0  # of the regression
CONTRAST = 2.5  # factor of the distance from the mean image: expectations are paler than images
BATCH = 64


@dataclass(frozen=True, eq=False)
class EmbeddedImages:
    """Embeddings and colors of images."""

    embeddings: Tensor  # (N, D) unit vectors
    colors: Tensor  # (N, 3 * SIDE * SIDE) in [0, 1], mean of the image and its mirror image
    concepts: list[list[int]]  # rows of the concepts that each shows


def explained_variance(regression: Ridge, images: EmbeddedImages) -> float:
    """The share of the variance of the images' colors that a regression from their embeddings explains."""
    residual = (images.colors - regression.predict(images.embeddings)).square().sum()
    return 1 - (residual / (images.colors - regression.mean).square().sum()).item()


def fit_prior(
    data: Path, clip: Path, *, loader: Loader | None = None, device: str | torch.device = "cpu"
) -> tuple[ConceptPrior, dict[str, Any], tuple[str, ...]]:
    """Fit a prior to the training images, as the trained image tower at `clip` embeds them.

    Returns:
        The prior, its provenance with scores on validation images, and notes about the data.

    Raises:
        TrainingError: Some of the data is missing.
        WeightsError: `clip` is no CLIP.
    """
    perceptor = checkpoints.load(clip, role="clip").to(device)
    assert isinstance(perceptor, Perceptor)
    concepts, encoder = load_concepts(data)
    train, validation = (LabeledImages(data, split, concepts, loader=loader) for split in ("train", "val"))
    embedded, held_out = embed_images(perceptor, train), embed_images(perceptor, validation)
    regression = Ridge(embedded.embeddings, embedded.colors, penalty=PENALTY)
    prior = make_prior(concepts, train.used, embedded, regression)
    scores = {"explained": explained_variance(regression, held_out), "concepts": float(len(train.used))}
    provenance = {"sets": train.sets, "pictures": len(train), "scores": scores}
    return prior, provenance, data_notes(train.skipped + validation.skipped, has_encoder=encoder is not None)


def make_prior(concepts: Concepts, used: list[int], images: EmbeddedImages, regression: Ridge) -> ConceptPrior:
    """A prior of the concepts in rows `used`: the colors expected at the mean of each one's embeddings."""
    columns = {row: column for column, row in enumerate(used)}
    sums = torch.zeros(len(used), images.embeddings.shape[1])
    counts = torch.zeros(len(used), 1)
    for embedding, rows in zip(images.embeddings, images.concepts, strict=True):
        for row in rows:
            sums[columns[row]] += embedding / len(rows)
            counts[columns[row]] += 1 / len(rows)
    expected = regression.predict(sums / counts, contrast=CONTRAST)
    prior = ConceptPrior(concepts=tuple(concepts.names[row] for row in used), embedding=sums.shape[1], side=SIDE)
    with torch.no_grad():
        prior.words.copy_(concepts.vectors[used])
        prior.layouts.copy_(expected.view_as(prior.layouts).clamp(0, 1))
    return prior.requires_grad_(False)


@torch.no_grad()
def embed_images(perceptor: Perceptor, images: LabeledImages) -> EmbeddedImages:
    """Embed images of both sizes and reduce them to their colors."""
    embeddings, colors = [], []
    for number in range(len(images.datasets)):
        chosen = images.of_kind(number)
        for start in range(0, len(chosen), BATCH):
            pixels = images.pixels(number, chosen[start : start + BATCH]).to(perceptor.device).float() / 255
            small = F.interpolate(pixels, size=(SIDE, SIDE), mode="area")
            view = F.interpolate(pixels, size=(perceptor.size, perceptor.size), mode="area")
            embeddings.append(perceptor.encode_images(view).cpu())
            colors.append(((small + small.flip(-1)) / 2).flatten(1).cpu())
    return EmbeddedImages(torch.cat(embeddings), torch.cat(colors), images.concepts)
