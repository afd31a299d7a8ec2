from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from wav2clip_gen.training.mini.discriminator import (
    MAX_WEIGHT,
    MIN_GRADIENT,
    Discriminator,
    adaptive_weight,
    hinge_loss,
)
from wav2clip_gen.training.mini.vqgan import (
    lattice_loss,
    random_shift,
    reconstruction_losses,
)


def discriminator(seed: int = 0) -> Discriminator:
    return Discriminator(seed=seed, device=torch.device("cpu"))


def noise_and_lattices(seed: int) -> tuple[Tensor, Tensor]:
    """Noise, and noise with a line along every eighth row."""
    real, fake = 0.5 * torch.rand(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    fake[:, :, ::8] += 0.4
    return real, fake


def test_the_hinge_loss_is_zero_beyond_one() -> None:
    assert hinge_loss(torch.tensor([1.0, 7.0]), torch.tensor([-1.0, -7.0])) == 0
    assert hinge_loss(torch.zeros(3), torch.zeros(5)) == 1
    assert hinge_loss(torch.tensor([0.5, 3.0]), torch.tensor([0.0, -2.0])) == pytest.approx(0.5 * (0.25 + 0.5))


def test_the_adaptive_weight_is_the_ratio_of_two_gradients() -> None:
    weight = torch.tensor([[2.0, -1.0], [0.5, 3.0]], requires_grad=True)
    inputs, real = torch.tensor([1.0, 2.0]), torch.tensor([1.0, -1.0])
    fake = weight @ inputs
    reconstruction, adversarial = (fake - real).square().sum(), 3 * fake.sum()
    by_hand = torch.outer(2 * (fake.detach() - real), inputs).norm() / (
        torch.outer(torch.full((2,), 3.0), inputs).norm() + MIN_GRADIENT
    )
    first, second = (torch.autograd.grad(loss, fake, retain_graph=True)[0] for loss in (reconstruction, adversarial))
    found = adaptive_weight(fake, first, second, weight)
    torch.testing.assert_close(found, by_hand)
    assert not found.requires_grad
    (reconstruction + found * adversarial).backward()  # the graphs are still there
    assert weight.grad is not None


def test_the_adaptive_weight_is_bounded() -> None:
    weight = torch.ones(2, requires_grad=True)
    outputs = 1 * weight
    assert adaptive_weight(outputs, torch.full((2,), 1e6), torch.zeros(2), weight) == MAX_WEIGHT


def test_the_gradient_of_a_score_reaches_the_pictures_alone() -> None:
    critic = discriminator()
    pictures = torch.rand(1, 3, 32, 32, requires_grad=True)
    critic.score(pictures).mean().backward()
    assert pictures.grad is not None
    assert pictures.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in critic.network.parameters())


def test_any_multiple_of_a_cell_can_be_scored() -> None:
    for size in (16, 24, 64):
        assert discriminator().score(torch.rand(1, 3, size, size + 8)).shape[1] == 1


def test_it_learns_to_detect_a_lattice() -> None:
    critic = discriminator()
    for step in range(40):
        critic.update(*noise_and_lattices(step))
    real, fake = noise_and_lattices(99)
    with torch.no_grad():
        assert critic.score(real).mean() > critic.score(fake).mean() + 0.5
    assert critic.loss < 0.9


def test_its_state_comes_back() -> None:
    one, other = discriminator(), discriminator(seed=5)
    one.update(*noise_and_lattices(0))
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for critic in (one, other):
        critic.update(*noise_and_lattices(1))
    for mine, theirs in zip(one.network.state_dict().values(), other.network.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)
    assert one.loss == other.loss


def test_a_perfect_reconstruction_has_no_loss() -> None:
    picture = torch.rand(1, 3, 8, 8)
    assert all(value == 0 for value in reconstruction_losses(picture, picture).values())


def test_edges_at_the_same_position_of_every_cell_are_a_lattice() -> None:
    generator = torch.Generator().manual_seed(0)
    real, noise = torch.rand(2, 8, 3, 64, 64, generator=generator)
    lattice = torch.full_like(noise, 0.5)
    lattice[..., ::8] = 0.0
    assert lattice_loss(real, real, cell=8) == 0
    assert lattice_loss(noise, real, cell=8) < 0.01
    assert lattice_loss(lattice, real, cell=8) > 1
    assert lattice_loss(lattice.roll(3, dims=-1), real, cell=8) > 1
    flat = torch.full_like(noise, 0.5, requires_grad=True)
    lattice_loss(flat, real, cell=8).backward()
    assert flat.grad is not None
    assert flat.grad.isfinite().all()


def test_a_shift_crops_both_images_alike() -> None:
    picture = torch.rand(1, 3, 32, 24)
    places = set()
    for seed in range(200):
        one, other = random_shift(picture, 2 * picture, most=4, generator=torch.Generator().manual_seed(seed))
        assert one.shape == (1, 3, 28, 20)
        assert torch.equal(2 * one, other)
        places.add(one[0, 0, 0, 0].item())
    assert len(places) == 16
