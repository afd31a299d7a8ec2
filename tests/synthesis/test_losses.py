"""The losses against plain formulas, and the target that a concept prior makes of an embedding."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from wav2clip_gen.config import PaintingSettings
from wav2clip_gen.models.registry import Models
from wav2clip_gen.synthesis.losses import (
    Target,
    concept_cross_entropy,
    guidance_loss,
    layout_loss,
    resolve_target,
    spherical_distance,
    temporal_loss,
    total_variation,
)


@pytest.mark.parametrize("degrees", [1, 30, 90, 150, 179])
def test_the_spherical_distance_is_half_the_squared_angle(degrees: float) -> None:
    angle = math.radians(degrees)
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([math.cos(angle), math.sin(angle)])
    assert spherical_distance(a, b).item() == pytest.approx(angle**2 / 2, rel=1e-3)


def test_the_spherical_distance_agrees_with_float64() -> None:
    rng = torch.Generator().manual_seed(0)
    a, b = (F.normalize(torch.randn(64, 512, generator=rng, dtype=torch.float64), dim=-1) for _ in range(2))
    plain = 2 * torch.asin((a - b).norm(dim=-1) / 2) ** 2
    torch.testing.assert_close(spherical_distance(a.float(), b.float()).double(), plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_gradient_is_finite_at_the_poles(sign: float) -> None:
    a = torch.tensor([1.0, 0.0], requires_grad=True)
    spherical_distance(a, sign * a.detach()).backward()
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()


def test_the_temporal_loss_is_in_units_of_the_codes_deviation() -> None:
    latent = torch.zeros(1, 2, 3, 3)
    spread = torch.tensor([1.0, 10.0]).view(1, 2, 1, 1)
    assert temporal_loss(latent + spread, latent, spread).item() == pytest.approx(1.0)


def test_total_variation_is_the_mean_square_step() -> None:
    stairs = torch.arange(4.0).expand(1, 3, 5, 4)  # one step of 1 to the right, none down
    assert total_variation(stairs).item() == pytest.approx(1.0)
    assert total_variation(torch.full((1, 3, 4, 4), 0.3)).item() == pytest.approx(0.0)


def test_the_cross_entropy_is_lowest_at_the_target_distribution() -> None:
    target = torch.tensor([0.7, 0.2, 0.1])
    lowest = concept_cross_entropy(target.log(), target)
    others = torch.tensor([[0.1, 0.2, 0.7], [0.98, 0.01, 0.01], [1 / 3, 1 / 3, 1 / 3]])
    assert (concept_cross_entropy(others.log(), target) > lowest).all()
    assert lowest.item() == pytest.approx(0.8018, abs=1e-4)  # the entropy of the target, in nats


def test_the_layout_loss_compares_means_of_cells() -> None:
    layout = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    detailed = layout.repeat_interleave(8, dim=-1).repeat_interleave(8, dim=-2)
    detailed[..., ::2] += 0.1
    detailed[..., 1::2] -= 0.1
    assert layout_loss(detailed, layout).item() == pytest.approx(0, abs=1e-6)
    assert layout_loss(detailed + 0.2, layout).item() == pytest.approx(0.04, abs=1e-4)


def test_a_concept_prior_resolves_an_embedding_only_where_a_weight_uses_it(mini: Models) -> None:
    assert mini.prior is not None
    embedding, layouts = mini.clip.encode_text(["a forest"])[0], mini.prior.draw_layouts(0)

    def resolved(concept_weight: float, layout_weight: float) -> Target:
        painting = PaintingSettings(concept_weight=concept_weight, layout_weight=layout_weight)
        return resolve_target(embedding, mini, painting, layouts)

    both, concepts, layout, neither = resolved(1, 1), resolved(1, 0), resolved(0, 1), resolved(0, 0)
    assert both.concept_probs is not None
    assert both.concept_probs.sum().item() == pytest.approx(1, abs=1e-4)
    assert both.embedding.norm().item() == pytest.approx(1, abs=1e-4)
    assert not torch.equal(both.embedding, embedding)
    assert torch.equal(concepts.embedding, both.embedding)
    assert concepts.color_layout is None
    assert torch.equal(layout.embedding, embedding)
    assert layout.concept_probs is None
    assert layout.color_layout is not None
    assert (neither.embedding is embedding, neither.concept_probs, neither.color_layout) == (True, None, None)


def test_the_guidance_loss_adds_the_weighted_cross_entropy_over_the_scale(mini: Models) -> None:
    assert mini.prior is not None
    seen = mini.clip.encode_text(["a dog", "a forest"])
    target = resolve_target(seen[0], mini, PaintingSettings())
    assert target.concept_probs is not None
    distance = spherical_distance(seen, target.embedding)
    entropy = concept_cross_entropy(mini.prior.concept_log_probs(seen, mini.clip.scale), target.concept_probs)
    scale = mini.clip.scale
    loss = guidance_loss(seen, target, prior=mini.prior, scale=scale, concept_weight=3.0)
    torch.testing.assert_close(loss, distance + 3.0 / scale * entropy)
    plain = guidance_loss(seen, Target(target.embedding), prior=mini.prior, scale=scale, concept_weight=3.0)
    torch.testing.assert_close(plain, distance)
