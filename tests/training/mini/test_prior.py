"""The prior of the small family: colors from embeddings, by regression."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tests.training.conftest import COLOURS
from wav2clip_gen.errors import TrainingError
from wav2clip_gen.models import checkpoints
from wav2clip_gen.training.mini.concepts import (
    CONTRAST,
    PENALTY,
    SIDE,
    Concepts,
    EmbeddedImages,
    Ridge,
    explained_variance,
    fit_prior,
    make_prior,
)

CELLS = 3 * SIDE * SIDE


def embedded(count: int, *, seed: int = 0) -> EmbeddedImages:
    """Images of two concepts, each of one color, with separable embeddings."""
    draw = torch.Generator().manual_seed(seed)
    shown = [[number % 2 + 1] for number in range(count)]
    places = torch.tensor([rows[0] - 1.0 for rows in shown])
    points = torch.stack([1 - places, places], dim=1) + 0.01 * torch.randn(count, 2, generator=draw)
    colors = (0.4 + 0.2 * places)[:, None].expand(count, CELLS)
    return EmbeddedImages(F.normalize(points, dim=1), colors, shown)


def regress(images: EmbeddedImages) -> Ridge:
    return Ridge(images.embeddings, images.colors, penalty=PENALTY)


def test_the_regression_finds_the_colors_of_the_images() -> None:
    regression = regress(embedded(400))
    assert explained_variance(regression, embedded(40, seed=1)) > 0.9
    unrelated = EmbeddedImages(torch.randn(40, 2), embedded(40).colors, [])
    assert explained_variance(regression, unrelated) < 0.5


def test_a_concept_has_its_own_colors_with_more_contrast_than_their_mean() -> None:
    concepts = Concepts(("unseen", "dark", "light"), torch.eye(3, 2))
    images = embedded(400)
    prior = make_prior(concepts, [1, 2], images, regress(images))
    assert prior.concepts == ("dark", "light")
    torch.testing.assert_close(prior.words, concepts.vectors[1:])
    dark, light = prior.layouts.mean(dim=(1, 2, 3)).tolist()
    assert dark == pytest.approx(0.5 - 0.1 * CONTRAST, abs=0.02)
    assert light == pytest.approx(0.5 + 0.1 * CONTRAST, abs=0.02)


def test_a_prior_is_fitted_to_the_images_and_records_them(toy_data: Path, untrained_clip: Path, tmp_path: Path) -> None:
    prior, provenance, _ = fit_prior(toy_data, untrained_clip)
    assert set(COLOURS) - {"sea"} <= set(prior.concepts)
    assert provenance["sets"] == ["toy"]
    assert provenance["scores"]["concepts"] == len(prior.concepts)
    checkpoints.save(prior, tmp_path / "prior.safetensors", training=provenance)
    loaded = checkpoints.load(tmp_path / "prior.safetensors", role="prior")
    torch.testing.assert_close(loaded.layouts, prior.layouts, atol=1e-3, rtol=0)  # fp16


def test_a_prior_needs_data(untrained_clip: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="nowhere"):
        fit_prior(tmp_path / "nowhere", untrained_clip)
