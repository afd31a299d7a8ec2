"""The camera: where a picture moves, that nothing is lost on the way, and that no move changes nothing."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.synthesis.conftest import make_optimizer, target_of
from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.config import Settings, View
from wav2clip_gen.models.registry import Models
from wav2clip_gen.synthesis.camera import Camera, Matrix, similarity_transform, warp
from wav2clip_gen.synthesis.modulation import modulate
from wav2clip_gen.synthesis.optimizer import FrameOptimizer

IDENTITY = np.eye(3)


def spot(height: int = 32, width: int = 48, *, x: int = 24, y: int = 16) -> Tensor:
    """A picture (1, 1, height, width) that is black except for a soft spot."""
    down, across = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.exp(-((across - x + 0.5) ** 2 + (down - y + 0.5) ** 2) / 8.0)[None, None]


def centroid(picture: Tensor) -> tuple[float, float]:
    """The centroid of a picture (1, 1, H, W), in pixels from its left and from its top."""
    light = picture[0, 0] / picture.sum()
    across, down = (torch.arange(side) + 0.5 for side in (picture.shape[3], picture.shape[2]))
    return float(light.sum(dim=0) @ across), float(light.sum(dim=1) @ down)


@pytest.mark.parametrize(
    ("move", "x", "y"),
    [
        ({"pan_x": 0.25}, 30 + 12, 16),
        ({"pan_y": 0.25}, 30, 16 + 8),
        ({"zoom": 2}, 24 + 2 * 6, 16),
        ({"rotate": 90}, 24, 16 + 6),  # clockwise: from the right of the centre to below it
    ],
)
def test_a_transform_moves_a_picture(move: dict[str, float], x: float, y: float) -> None:
    moved = warp(spot(x=30), similarity_transform(**move, aspect=48 / 32), border="reflect")
    assert centroid(moved) == pytest.approx((x, y), abs=0.05)


def test_transforms_compose() -> None:
    there = similarity_transform(zoom=1.1, rotate=20, pan_x=0.1, aspect=1.5)
    np.testing.assert_allclose(np.linalg.inv(there) @ there, IDENTITY, atol=1e-12)
    steps = similarity_transform(zoom=1.1 ** (1 / 12), rotate=20 / 12, aspect=1.5)
    np.testing.assert_allclose(
        np.linalg.matrix_power(steps, 12), similarity_transform(zoom=1.1, rotate=20, aspect=1.5), atol=1e-12
    )


def test_the_identity_changes_nothing() -> None:
    picture = torch.rand(1, 3, 16, 24)
    torch.testing.assert_close(warp(picture, IDENTITY, border="reflect"), picture, atol=1e-5, rtol=0)
    torch.testing.assert_close(warp(picture, IDENTITY, border="wrap"), picture, atol=1e-5, rtol=0)


def test_a_wrapped_picture_continues_on_the_other_side() -> None:
    picture = torch.rand(1, 3, 16, 24)
    moved = warp(picture, similarity_transform(pan_x=0.25, pan_y=-0.5), border="wrap")
    torch.testing.assert_close(moved, picture.roll((-8, 6), dims=(2, 3)), atol=1e-5, rtol=0)


def test_a_reflected_picture_continues_as_its_mirror() -> None:
    picture = torch.rand(1, 3, 16, 24)
    moved = warp(picture, similarity_transform(pan_x=0.25), border="reflect")
    torch.testing.assert_close(moved[..., :6], picture[..., :6].flip(-1), atol=1e-5, rtol=0)


def test_the_offset_is_too_large_at_half_a_cell() -> None:
    camera, step = Camera(64, 64, 8), similarity_transform(pan_x=1.5 / 64)
    assert [camera.advance(step) for _ in range(3)] == [False, False, True]
    np.testing.assert_allclose(camera.take_offset(), similarity_transform(pan_x=4.5 / 64), atol=1e-12)
    np.testing.assert_array_equal(camera.offset, IDENTITY)


def optimized(mini: Models, settings: Settings, steps: int = 12) -> FrameOptimizer:
    optimizer = make_optimizer(mini, settings)
    optimizer.optimize(target_of(mini, "a boat"), steps=steps, temporal_weight=0)
    return optimizer


def decode_moves(optimizer: FrameOptimizer, moves: list[Matrix]) -> list[Tensor]:
    """The picture after each move, without optimising in between."""
    decoded = []
    for move in moves:
        optimizer.move(move)
        decoded.append(optimizer.decode())
    return decoded


def test_no_move_changes_nothing(mini: Models, tiny: Settings) -> None:
    moved, untouched = optimized(mini, tiny, 3), optimized(mini, tiny, 3)
    pictures = [*decode_moves(moved, [IDENTITY] * 3), moved.decode(View())]
    assert all(torch.equal(picture, untouched.decode()) for picture in pictures)
    assert torch.equal(moved.latent, untouched.latent)


@pytest.mark.parametrize(
    ("step", "border"),
    [
        (similarity_transform(pan_x=0.02), "wrap"),
        (similarity_transform(zoom=1 / 1.03, rotate=2), "reflect"),
    ],
    ids=["pan", "zoom and rotate"],
)
def test_a_moved_picture_keeps_its_colors_and_contrast(step: Matrix, border: str, mini: Models, tiny: Settings) -> None:
    """Twice there and back, encoded again at about every other frame."""
    optimizer = optimized(mini, tiny.merged({"picture": {"height": 64}, "motion": {"border": border}}))
    first = optimizer.decode()
    there, back = [step] * 8, [np.linalg.inv(step).astype(np.float64)] * 8
    once = decode_moves(optimizer, there)
    total = np.linalg.matrix_power(step, 8)
    true = warp(first[None], total, border=border)[0].clamp(0, 1)
    assert (once[-1] - true).abs().mean() < 0.3 * (first - true).abs().mean()  # it moved all the way
    last = decode_moves(optimizer, back + there + back)[-1]
    assert (last.mean(dim=(1, 2)) - first.mean(dim=(1, 2))).abs().max() < 0.02
    assert (last.std(dim=(1, 2)) / first.std(dim=(1, 2)) - 1).abs().max() < 0.1


def test_encoding_again_is_not_visible_as_a_jump(mini: Models, tiny: Settings) -> None:
    pictures = decode_moves(optimized(mini, tiny), [similarity_transform(pan_x=0.01)] * 24)
    changes = torch.stack([(a - b).abs().mean() for a, b in itertools.pairwise(pictures)])
    assert changes.min() > 0
    assert changes.max() < 3 * changes.median()


def test_detail_that_the_codes_cannot_represent_fades(mini: Models, tiny: Settings) -> None:
    """Else it is warped again and again in a film whose camera moves, and becomes grain."""
    optimizer = optimized(mini, tiny)
    optimizer.decode()
    assert optimizer.move(similarity_transform(pan_x=0.125))
    first = optimizer.state()["residual"]
    parameters = modulate(tiny, {}, Timeline(samples=8_000, sample_rate=1_000, fps=Fraction(4)))
    for index in range(1, 5):  # a second
        (_,) = optimizer.frames(index, target_of(mini, "a boat"), parameters)
    torch.testing.assert_close(optimizer.state()["residual"], first / 4)


def test_the_moments_move_with_the_latent_and_optimisation_continues(mini: Models, tiny: Settings) -> None:
    optimizer = optimized(mini, tiny)
    (state,) = optimizer.step.optimizer.state.values()
    moment = state["exp_avg"].clone()
    optimizer.move(similarity_transform(pan_x=0.125))  # one of eight cells
    torch.testing.assert_close(state["exp_avg"][..., 1:], moment[..., :-1], atol=1e-5, rtol=1e-3)
    for step in optimizer.iterate(target_of(mini, "a boat"), steps=2, temporal_weight=0.05):
        assert torch.isfinite(step.loss)


def test_a_view_changes_the_decoded_picture_but_not_the_latent(mini: Models, tiny: Settings) -> None:
    optimizer = optimized(mini, tiny)
    latent, plain = optimizer.latent.clone(), optimizer.decode()
    grey, dark, near = (optimizer.decode(view) for view in (View(saturation=0), View(brightness=0.5), View(zoom=1.5)))
    torch.testing.assert_close(grey[0], grey[2])
    shown = plain < 1  # the others are clamped
    torch.testing.assert_close(dark[shown], plain[shown] / 2, atol=0.01, rtol=0)
    torch.testing.assert_close(
        near, warp(plain[None], similarity_transform(1.5), border="reflect")[0].clamp(0, 1), atol=0.02, rtol=0
    )
    assert torch.equal(optimizer.latent, latent)
    torch.testing.assert_close(optimizer.decode(), plain, atol=0.02, rtol=0)
