"""The formulas against plain ones."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from wav2clip_gen.synthesis.losses import (
    drift,
    layout_distance,
    reading_distance,
    spherical_distance,
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


def test_drift_is_counted_in_units_of_the_codes_spread() -> None:
    latent = torch.zeros(1, 2, 3, 3)
    spread = torch.tensor([1.0, 10.0]).view(1, 2, 1, 1)
    assert drift(latent + spread, latent, spread).item() == pytest.approx(1.0)


def test_total_variation_is_the_mean_square_step() -> None:
    stairs = torch.arange(4.0).expand(1, 3, 5, 4)  # one step of 1 to the right, none down
    assert total_variation(stairs).item() == pytest.approx(1.0)
    assert total_variation(torch.full((1, 3, 4, 4), 0.3)).item() == pytest.approx(0.0)


def test_a_reading_that_is_as_wanted_costs_least() -> None:
    wanted = torch.tensor([0.7, 0.2, 0.1])
    right = reading_distance(wanted.log(), wanted)
    others = torch.tensor([[0.1, 0.2, 0.7], [0.98, 0.01, 0.01], [1 / 3, 1 / 3, 1 / 3]])
    assert (reading_distance(others.log(), wanted) > right).all()
    assert right.item() == pytest.approx(0.8018, abs=1e-4)  # the entropy of what is wanted, in nats


def test_colours_in_their_places_cost_nothing_whatever_the_detail() -> None:
    layout = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    detailed = layout.repeat_interleave(8, dim=-1).repeat_interleave(8, dim=-2)
    detailed[..., ::2] += 0.1
    detailed[..., 1::2] -= 0.1
    assert layout_distance(detailed, layout).item() == pytest.approx(0, abs=1e-6)
    assert layout_distance(detailed + 0.2, layout).item() == pytest.approx(0.04, abs=1e-4)
