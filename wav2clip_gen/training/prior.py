"""Fit what the small family expects of its concepts: ridge regression from embeddings to colours, no training run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wav2clip_gen.models import checkpoints
from wav2clip_gen.models.clip import Perceptor
from wav2clip_gen.models.prior import ConceptPrior
from wav2clip_gen.training.anchors import Concepts, extend, load_anchors, make_deriver, notes, wanted_by_pictures
from wav2clip_gen.training.clip import Labelled
from wav2clip_gen.training.decoding import Reading

SIDE = 16  # cells of a layout along each side
PENALTY = 5.0  # of the regression
CONTRAST = 2.5  # how much further from the mean picture than the regression says: means are paler than pictures
BATCH = 64


@dataclass(frozen=True, eq=False)
class Seen:
    """Pictures as the image tower and the regression see them."""

    embeddings: Tensor  # (N, D) unit vectors
    colours: Tensor  # (N, 3 * SIDE * SIDE) in [0, 1], of the picture and its mirror image together
    concepts: list[list[int]]  # rows of the concepts that each shows


class Layouts:
    """Linear regression from embeddings to colours, centred, with a penalty on its size."""

    def __init__(self, seen: Seen) -> None:
        self._centre, self.mean = seen.embeddings.mean(dim=0), seen.colours.mean(dim=0)
        x = seen.embeddings - self._centre
        penalty = PENALTY * torch.eye(x.shape[1])
        self._weights = torch.linalg.solve(x.T @ x + penalty, x.T @ (seen.colours - self.mean))

    def __call__(self, embeddings: Tensor, *, contrast: float = 1.0) -> Tensor:
        """The colours (N, 3 * SIDE * SIDE) expected of embeddings (N, D)."""
        return self.mean + contrast * (embeddings - self._centre) @ self._weights

    def explained(self, seen: Seen) -> float:
        """The share of the variance of pictures' colours that the regression explains."""
        left = (seen.colours - self(seen.embeddings)).square().sum()
        return 1 - (left / (seen.colours - self.mean).square().sum()).item()


def fit_prior(
    data: Path, clip: Path, *, reading: Reading | None = None, device: str | torch.device = "cpu"
) -> tuple[ConceptPrior, dict[str, Any], tuple[str, ...]]:
    """Fit a prior to the training pictures, as the trained image tower at `clip` sees them.

    Returns:
        The prior, where it comes from and what it scores on validation pictures, and what one should know of the data.

    Raises:
        TrainingError: Some of the data is missing.
        WeightsError: `clip` is no CLIP.
    """
    perceptor = checkpoints.load(clip, role="clip").to(device)
    assert isinstance(perceptor, Perceptor)
    anchors = load_anchors(data)
    derive = make_deriver(anchors)
    concepts = extend(anchors, wanted_by_pictures(data), derive)
    train, validation = (Labelled(data, split, concepts, reading=reading) for split in ("train", "val"))
    seen, held_out = look(perceptor, train), look(perceptor, validation)
    layouts = Layouts(seen)
    prior = make_prior(concepts, train.used, seen, layouts)
    sets = sorted({described.set for part in train.parts for described in part.descriptions})
    scores = {"explained": layouts.explained(held_out), "concepts": float(len(train.used))}
    provenance = {"sets": sets, "pictures": len(train), "scores": scores}
    return prior, provenance, notes(train.skipped + validation.skipped, derived=derive is not None)


def make_prior(concepts: Concepts, used: list[int], seen: Seen, layouts: Layouts) -> ConceptPrior:
    """A prior of the concepts in rows `used`: what is expected at the mean of each one's embeddings."""
    columns = {row: column for column, row in enumerate(used)}
    sums = torch.zeros(len(used), seen.embeddings.shape[1])
    counts = torch.zeros(len(used), 1)
    for embedding, rows in zip(seen.embeddings, seen.concepts, strict=True):
        for row in rows:
            sums[columns[row]] += embedding / len(rows)
            counts[columns[row]] += 1 / len(rows)
    expected = layouts(sums / counts, contrast=CONTRAST)
    prior = ConceptPrior(concepts=tuple(concepts.names[row] for row in used), embedding=sums.shape[1], side=SIDE)
    with torch.no_grad():
        prior.words.copy_(concepts.vectors[used])
        prior.layouts.copy_(expected.view_as(prior.layouts).clamp(0, 1))
    return prior.requires_grad_(False)


@torch.no_grad()
def look(perceptor: Perceptor, pictures: Labelled) -> Seen:
    """Embed pictures of both sizes and shrink them to their colours."""
    embeddings, colours = zip(*_looked_at(perceptor, pictures), strict=True)
    return Seen(torch.cat(embeddings), torch.cat(colours), pictures.concepts)


def _looked_at(perceptor: Perceptor, pictures: Labelled) -> Iterator[tuple[Tensor, Tensor]]:
    for number, part in enumerate(pictures.parts):
        rows = [at for kind, at in pictures.places if kind == number]
        for start in range(0, len(rows), BATCH):
            pixels = part.pixels[rows[start : start + BATCH]].to(perceptor.device).float() / 255
            small = F.interpolate(pixels, size=(SIDE, SIDE), mode="area")
            view = F.interpolate(pixels, size=(perceptor.size, perceptor.size), mode="area")
            both = (small + small.flip(-1)) / 2
            yield perceptor.encode_images(view).cpu(), both.flatten(1).cpu()
