from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from wav2clip_gen.training.discriminator import (
    LARGEST_WEIGHT,
    SMALLEST_GRADIENT,
    Discriminator,
    adaptive_weight,
    adversarial_loss,
    hinge_loss,
)


def discriminator(seed: int = 0) -> Discriminator:
    return Discriminator(seed=seed, device=torch.device("cpu"))


def photographs_and_lattices(seed: int) -> tuple[Tensor, Tensor]:
    """Noise, and noise with a line along every eighth row."""
    true, drawn = 0.5 * torch.rand(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    drawn[:, :, ::8] += 0.4
    return true, drawn


def test_the_hinge_asks_for_no_more_than_one() -> None:
    assert hinge_loss(torch.tensor([1.0, 7.0]), torch.tensor([-1.0, -7.0])) == 0
    assert hinge_loss(torch.zeros(3), torch.zeros(5)) == 1
    assert hinge_loss(torch.tensor([0.5, 3.0]), torch.tensor([0.0, -2.0])) == pytest.approx(0.5 * (0.25 + 0.5))


def test_drawing_better_means_higher_scores() -> None:
    assert adversarial_loss(torch.tensor([1.0, 2.0])) == -1.5


def test_the_adaptive_weight_is_the_ratio_of_two_gradients() -> None:
    weight = torch.tensor([[2.0, -1.0], [0.5, 3.0]], requires_grad=True)
    inputs, true = torch.tensor([1.0, 2.0]), torch.tensor([1.0, -1.0])
    drawn = weight @ inputs
    reconstruction, adversarial = (drawn - true).square().sum(), 3 * drawn.sum()
    by_hand = torch.outer(2 * (drawn.detach() - true), inputs).norm() / (
        torch.outer(torch.full((2,), 3.0), inputs).norm() + SMALLEST_GRADIENT
    )
    found = adaptive_weight(reconstruction, adversarial, weight)
    torch.testing.assert_close(found, by_hand)
    assert not found.requires_grad
    (reconstruction + found * adversarial).backward()  # the graphs are still there
    assert weight.grad is not None


def test_the_adaptive_weight_is_bounded() -> None:
    weight = torch.ones(2, requires_grad=True)
    assert adaptive_weight(1e6 * weight.sum(), 0 * weight.sum(), weight) == LARGEST_WEIGHT


def test_judging_teaches_the_painter_and_not_the_discriminator() -> None:
    judge = discriminator()
    pictures = torch.rand(1, 3, 32, 32, requires_grad=True)
    adversarial_loss(judge.judge(pictures)).backward()
    assert pictures.grad is not None
    assert pictures.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in judge.network.parameters())


def test_any_multiple_of_a_cell_is_judged() -> None:
    for size in (16, 24, 64):
        assert discriminator().judge(torch.rand(1, 3, size, size + 8)).shape[1] == 1


def test_it_learns_to_tell_a_lattice() -> None:
    judge = discriminator()
    for step in range(60):
        judge.learn(*photographs_and_lattices(step))
    true, drawn = photographs_and_lattices(99)
    with torch.no_grad():
        assert judge.judge(true).mean() > judge.judge(drawn).mean() + 0.5
    assert judge.loss < 0.9


def test_its_state_comes_back() -> None:
    one, other = discriminator(), discriminator(seed=5)
    one.learn(*photographs_and_lattices(0))
    other.load_state(copy.deepcopy(one.state()))
    for judge in (one, other):
        judge.learn(*photographs_and_lattices(1))
    for mine, theirs in zip(one.network.state_dict().values(), other.network.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)
    assert one.loss == other.loss
