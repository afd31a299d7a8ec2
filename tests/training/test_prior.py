"""The prior of the small family: colours from embeddings, by regression."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tests.training.conftest import COLOURS
from wav2clip_gen.errors import TrainingError
from wav2clip_gen.models import checkpoints
from wav2clip_gen.training.anchors import Concepts
from wav2clip_gen.training.prior import CONTRAST, SIDE, Layouts, Seen, fit_prior, make_prior

CELLS = 3 * SIDE * SIDE


def seen_in(count: int, *, seed: int = 0) -> Seen:
    """Pictures of two concepts, each of one colour, that an image tower tells apart."""
    draw = torch.Generator().manual_seed(seed)
    shown = [[number % 2 + 1] for number in range(count)]
    places = torch.tensor([rows[0] - 1.0 for rows in shown])
    points = torch.stack([1 - places, places], dim=1) + 0.01 * torch.randn(count, 2, generator=draw)
    colours = (0.4 + 0.2 * places)[:, None].expand(count, CELLS)
    return Seen(F.normalize(points, dim=1), colours, shown)


def test_the_regression_finds_the_colours_of_what_is_seen() -> None:
    layouts = Layouts(seen_in(400))
    assert layouts.explained(seen_in(40, seed=1)) > 0.9
    unrelated = Seen(torch.randn(40, 2), seen_in(40).colours, [])
    assert layouts.explained(unrelated) < 0.5


def test_a_concept_expects_its_own_colours_with_more_contrast_than_their_mean() -> None:
    concepts = Concepts(("unseen", "dark", "light"), torch.eye(3, 2), torch.zeros(3, dtype=torch.bool))
    seen = seen_in(400)
    prior = make_prior(concepts, [1, 2], seen, Layouts(seen))
    assert prior.concepts == ("dark", "light")
    torch.testing.assert_close(prior.words, concepts.vectors[1:])
    dark, light = prior.layouts.mean(dim=(1, 2, 3)).tolist()
    assert dark == pytest.approx(0.5 - 0.1 * CONTRAST, abs=0.02)
    assert light == pytest.approx(0.5 + 0.1 * CONTRAST, abs=0.02)


def test_a_prior_is_fitted_to_the_pictures_and_says_so(toy_data: Path, untrained_clip: Path, tmp_path: Path) -> None:
    prior, provenance, _ = fit_prior(toy_data, untrained_clip)
    assert set(COLOURS) - {"sea"} <= set(prior.concepts)
    assert provenance["sets"] == ["toy"]
    assert provenance["scores"]["concepts"] == len(prior.concepts)
    checkpoints.save(prior, tmp_path / "prior.safetensors", training=provenance)
    again = checkpoints.load(tmp_path / "prior.safetensors", role="prior")
    torch.testing.assert_close(again.layouts, prior.layouts, atol=1e-3, rtol=0)  # fp16


def test_a_prior_needs_data(untrained_clip: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="nowhere"):
        fit_prior(tmp_path / "nowhere", untrained_clip)
