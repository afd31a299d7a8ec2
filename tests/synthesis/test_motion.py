"""The camera: where a picture goes, that nothing is lost on the way, and that standing still costs nothing."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor
from wav2clip_gen.synthesis.motion import Camera, Matrix, placement, warp
from wav2clip_gen.synthesis.painter import Painter

from wav2clip_gen.config import Settings, View
from wav2clip_gen.models.registry import Models

STILL = np.eye(3)


def spot(height: int = 32, width: int = 48, *, x: int = 24, y: int = 16) -> Tensor:
    """A picture (1, 1, height, width) that is dark but for a soft spot."""
    down, across = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.exp(-((across - x + 0.5) ** 2 + (down - y + 0.5) ** 2) / 8.0)[None, None]


def centre(picture: Tensor) -> tuple[float, float]:
    """Where the light of a picture (1, 1, H, W) is, from its left and from its top."""
    light = picture[0, 0] / picture.sum()
    across, down = (torch.arange(side) + 0.5 for side in (picture.shape[3], picture.shape[2]))
    return float(light.sum(dim=0) @ across), float(light.sum(dim=1) @ down)


@pytest.mark.parametrize(
    ("move", "x", "y"),
    [
        ({"pan_x": 0.25}, 30 + 12, 16),
        ({"pan_y": 0.25}, 30, 16 + 8),
        ({"zoom": 2}, 24 + 2 * 6, 16),
        ({"rotate": 90}, 24, 16 + 6),  # clockwise: what is right of the middle goes below it
    ],
)
def test_a_picture_goes_where_it_is_told(move: dict[str, float], x: float, y: float) -> None:
    moved = warp(spot(x=30), placement(**move, aspect=48 / 32), border="reflect")
    assert centre(moved) == pytest.approx((x, y), abs=0.05)


def test_moves_follow_each_other() -> None:
    there = placement(zoom=1.1, rotate=20, pan_x=0.1, aspect=1.5)
    np.testing.assert_allclose(np.linalg.inv(there) @ there, STILL, atol=1e-12)
    steps = placement(zoom=1.1 ** (1 / 12), rotate=20 / 12, aspect=1.5)
    np.testing.assert_allclose(
        np.linalg.matrix_power(steps, 12), placement(zoom=1.1, rotate=20, aspect=1.5), atol=1e-12
    )


def test_a_still_picture_stays_as_it_is() -> None:
    picture = torch.rand(1, 3, 16, 24)
    torch.testing.assert_close(warp(picture, STILL, border="reflect"), picture, atol=1e-5, rtol=0)
    torch.testing.assert_close(warp(picture, STILL, border="wrap"), picture, atol=1e-5, rtol=0)


def test_what_leaves_a_wrapped_picture_comes_in_on_the_other_side() -> None:
    picture = torch.rand(1, 3, 16, 24)
    moved = warp(picture, placement(pan_x=0.25, pan_y=-0.5), border="wrap")
    torch.testing.assert_close(moved, picture.roll((-8, 6), dims=(2, 3)), atol=1e-5, rtol=0)


def test_what_comes_into_a_reflected_picture_is_its_mirror() -> None:
    picture = torch.rand(1, 3, 16, 24)
    moved = warp(picture, placement(pan_x=0.25), border="reflect")
    torch.testing.assert_close(moved[..., :6], picture[..., :6].flip(-1), atol=1e-5, rtol=0)


def test_the_camera_is_followed_when_it_is_half_a_cell_away() -> None:
    camera, step = Camera(64, 64, 8), placement(pan_x=1.5 / 64)
    assert [camera.go(step) for _ in range(3)] == [False, False, True]
    np.testing.assert_allclose(camera.arrive(), placement(pan_x=4.5 / 64), atol=1e-12)
    np.testing.assert_array_equal(camera.offset, STILL)


def artist(mini: Models, settings: Settings, steps: int = 12) -> Painter:
    made = Painter(mini, settings, generator=torch.Generator().manual_seed(7))
    for _ in made.paint(mini.clip.encode_text(["a boat"])[0], steps=steps, inertia=0):
        pass
    return made


def walk(painter: Painter, moves: list[Matrix]) -> list[Tensor]:
    """What is shown after each move, nothing being painted."""
    shown = []
    for move in moves:
        painter.move(move)
        shown.append(painter.show())
    return shown


def test_standing_still_changes_nothing(mini: Models, tiny: Settings) -> None:
    moved, untouched = artist(mini, tiny), artist(mini, tiny)
    shown = [*walk(moved, [STILL] * 3), moved.show(View())]
    assert all(torch.equal(picture, untouched.show()) for picture in shown)
    assert torch.equal(moved.latent, untouched.latent)


@pytest.mark.parametrize(
    ("step", "border"),
    [(placement(pan_x=0.02), "wrap"), (placement(zoom=1 / 1.03), "reflect"), (placement(rotate=3), "reflect")],
    ids=["pan", "zoom", "rotate"],
)
def test_a_moved_picture_keeps_its_colours_and_loses_nothing_at_once(
    step: Matrix, border: str, mini: Models, tiny: Settings
) -> None:
    """Sixteen times there and back, about one encoding every other frame."""
    painter = artist(mini, tiny.merged({"picture": {"height": 64}, "motion": {"border": border}}))
    first = painter.show()
    there, back = [step] * 8, [np.linalg.inv(step).astype(np.float64)] * 8
    once = walk(painter, there)
    total = np.linalg.matrix_power(step, 8)
    true = warp(first[None], total, border=border)[0].clamp(0, 1)
    assert (once[-1] - true).abs().mean() < 0.3 * (first - true).abs().mean()  # it went all the way
    last = walk(painter, back + (there + back) * 7)[-1]
    assert (last.mean(dim=(1, 2)) - first.mean(dim=(1, 2))).abs().max() < 0.02
    assert (last.std(dim=(1, 2)) / first.std(dim=(1, 2)) - 1).abs().max() < 0.1


def test_nothing_jumps_where_a_picture_is_encoded_again(mini: Models, tiny: Settings) -> None:
    painter = artist(mini, tiny)
    shown = walk(painter, [placement(pan_x=0.01)] * 24)
    changes = torch.stack([(a - b).abs().mean() for a, b in itertools.pairwise(shown)])
    assert changes.min() > 0
    assert changes.max() < 3 * changes.median()


def test_the_optimiser_goes_along_and_finds_on(mini: Models, tiny: Settings) -> None:
    painter = artist(mini, tiny)
    (state,) = painter.optimiser.state.values()
    moment = state["exp_avg"].clone()
    painter.move(placement(pan_x=0.125))  # one cell of eight
    torch.testing.assert_close(state["exp_avg"][..., 1:], moment[..., :-1], atol=1e-5, rtol=1e-3)
    for step in painter.paint(mini.clip.encode_text(["a boat"])[0], steps=2, inertia=0.05):
        assert torch.isfinite(step.loss)


def test_a_view_changes_what_is_shown_and_nothing_of_what_is_painted(mini: Models, tiny: Settings) -> None:
    painter = artist(mini, tiny)
    latent, plain = painter.latent.clone(), painter.show()
    grey, dark, near = (painter.show(view) for view in (View(saturation=0), View(brightness=0.5), View(zoom=1.5)))
    torch.testing.assert_close(grey[0], grey[2])
    torch.testing.assert_close(dark, plain / 2, atol=0.01, rtol=0)
    torch.testing.assert_close(
        near, warp(plain[None], placement(1.5), border="reflect")[0].clamp(0, 1), atol=0.02, rtol=0
    )
    assert torch.equal(painter.latent, latent)
    torch.testing.assert_close(painter.show(), plain, atol=0.02, rtol=0)
