"""Random views: where they look, and that they can be learned from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wav2clip_gen.synthesis.cutouts import (
    Augmentation,
    add_noise,
    draw_homographies,
    erase,
    jitter_colours,
    random_cutouts,
    sample,
)

STILL = Augmentation(
    smallest=1, rotation=0, shear=0, perspective=0, mirror=0, colour=0, noise=0, erase=0
)  # the whole picture as it is


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ramp(height: int, width: int) -> Tensor:
    """A picture (1, 3, height, width) that gets brighter to the right, then down."""
    x, y = torch.linspace(0, 1, width), torch.linspace(0, 1, height)
    return torch.stack(
        [x.expand(height, width), y.view(-1, 1).expand(height, width), torch.full((height, width), 0.5)]
    )[None]


@pytest.mark.parametrize("side", [32, 64, 100, 128, 160])
def test_a_still_view_is_the_picture_itself(side: int) -> None:
    view = random_cutouts(ramp(side, side), 32, 2, generator=rng(), augmentation=STILL)
    torch.testing.assert_close(view, ramp(32, 32).expand(2, -1, -1, -1), atol=0.03, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(64, 160), (160, 64)])
def test_views_of_a_long_picture_are_not_stretched_and_stay_inside(height: int, width: int) -> None:
    maps = draw_homographies(
        500, width / height, generator=rng(), augmentation=Augmentation(rotation=0, shear=0, perspective=0)
    )
    pixels = maps[:, :2, :2] * torch.tensor([width / 2, height / 2]).view(1, 2, 1)
    torch.testing.assert_close(pixels[:, 0, 0].abs(), pixels[:, 1, 1])  # a square is seen as a square
    corners = torch.tensor([[-1.0, -1, 1], [1, 1, 1]]).T
    assert (maps @ corners)[:, :2].abs().max() <= 1 + 1e-5
    centres = maps[:, :2, 2].abs().amax(dim=0)
    assert (centres > 0.1).all()  # they wander along both sides


def test_a_mirrored_view_is_the_picture_in_a_mirror() -> None:
    mirrored = Augmentation(**{**vars(STILL), "mirror": 1.0})
    view = random_cutouts(ramp(64, 64), 32, 1, generator=rng(), augmentation=mirrored)
    torch.testing.assert_close(view, ramp(32, 32).flip(-1), atol=0.03, rtol=0)


def test_a_shrunk_checkerboard_is_grey_and_not_a_pattern() -> None:
    board = torch.zeros(1, 3, 128, 128)
    board[..., ::2, 1::2] = board[..., 1::2, ::2] = 1
    view = sample(board, torch.eye(3)[None], 64)
    assert (view - 0.5).abs().max() < 0.01


def test_the_same_seed_gives_the_same_views_whatever_else_was_drawn() -> None:
    picture = torch.rand(1, 3, 64, 64, generator=rng(1))
    first = random_cutouts(picture, 32, 4, generator=rng(5))
    torch.rand(100)
    assert torch.equal(first, random_cutouts(picture, 32, 4, generator=rng(5)))
    assert not torch.equal(first, random_cutouts(picture, 32, 4, generator=rng(6)))


def test_every_part_of_the_picture_is_looked_at_and_learned_from() -> None:
    picture = torch.rand(1, 3, 64, 96, generator=rng(1)).requires_grad_()
    random_cutouts(picture, 32, 64, generator=rng()).sum().backward()
    assert picture.grad is not None
    assert (picture.grad.abs().sum(dim=1) > 0).float().mean() > 0.98


def test_colour_jitter_leaves_grey_grey() -> None:
    grey = torch.full((16, 3, 4, 4), 0.5)
    out = jitter_colours(grey, generator=rng(), strength=0.1)
    torch.testing.assert_close(out, out.mean(dim=1, keepdim=True).expand_as(out), atol=1e-6, rtol=0)
    assert (out - 0.5).abs().max() <= 0.1 + 1e-6
    assert (out - 0.5).abs().max() > 0.05


def test_noise_has_its_own_strength_in_each_view() -> None:
    out = add_noise(torch.zeros(64, 3, 32, 32), generator=rng(), strength=0.1)
    deviations = out.flatten(1).std(dim=1)
    assert deviations.max() < 0.11
    assert deviations.min() < 0.02


def test_erasing_hides_a_rectangle_in_some_views() -> None:
    out = erase(torch.ones(400, 3, 32, 32), generator=rng(), chance=0.3, longest=0.4)
    hidden = (out == 0.5).all(dim=1)
    touched = hidden.flatten(1).any(dim=1)
    assert 0.2 < touched.float().mean() < 0.35  # some rectangles are thinner than a pixel
    assert hidden.any(dim=1).sum(dim=1).max() <= 0.4 * 32 + 1
