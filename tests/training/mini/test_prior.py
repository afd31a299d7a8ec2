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
    MODES,
    PENALTY,
    SIDE,
    Concepts,
    EmbeddedImages,
    Ridge,
    explained_variance,
    fit_prior,
    make_prior,
    mode_differences,
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
    return Ridge(images.embeddings, images.symmetric, penalty=PENALTY)


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
    dark, light = prior.layouts.unflatten(0, (2, MODES)).mean(dim=(1, 2, 3, 4)).tolist()
    assert dark == pytest.approx(0.5 - 0.1 * CONTRAST, abs=0.02)
    assert light == pytest.approx(0.5 + 0.1 * CONTRAST, abs=0.02)


def test_the_modes_of_a_concept_are_those_of_its_images_and_their_mirror_images() -> None:
    left, top = torch.zeros(2, 3, SIDE, SIDE)
    left[:, :, : SIDE // 2], top[:, : SIDE // 2] = 1, 1
    noise = 0.01 * torch.randn(120, CELLS, generator=torch.Generator().manual_seed(0))
    colors = torch.cat([left.view(1, -1), left.view(1, -1), top.view(1, -1)]).repeat(40, 1) + noise
    found = mode_differences(colors).view(MODES, 3, SIDE, SIDE)
    beside = (found[..., : SIDE // 2].mean(dim=(1, 2, 3)) - found[..., SIDE // 2 :].mean(dim=(1, 2, 3))).tolist()
    assert (min(beside), max(beside)) == (pytest.approx(-1, abs=0.2), pytest.approx(1, abs=0.2))
    assert (found[..., : SIDE // 2, :].mean(dim=(1, 2, 3)) - found[..., SIDE // 2 :, :].mean(dim=(1, 2, 3))).max() > 0.4
    assert torch.equal(mode_differences(torch.full((9, CELLS), 0.3)), torch.zeros(MODES, CELLS))
    few, many = mode_differences(colors[:3]).abs().max(), mode_differences(colors).abs().max()
    assert few < 0.5 * many


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
