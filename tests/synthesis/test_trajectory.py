"""One target per frame: on the sphere, in time, and not lagging."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from wav2clip_gen.synthesis.trajectory import (
    Trajectory,
    at_times,
    build_trajectory,
    hold_scenes,
    mean_target,
    pull_curve,
    slerp,
    smooth,
)

from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.errors import SettingsError


def unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def timeline(seconds: float, fps: float) -> Timeline:
    return Timeline(samples=round(seconds * 16_000), sample_rate=16_000, fps=Fraction(str(fps)))


def at_frames(windows: Tensor, line: Timeline) -> Tensor:
    return at_times(windows, line.frame_times() / line.hop)


def test_slerp_goes_at_even_speed_along_the_great_circle() -> None:
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    for share in (0.0, 0.25, 0.5, 1.0):
        angle = torch.tensor(share * torch.pi / 2)
        expected = torch.stack([angle.cos(), angle.sin()])
        torch.testing.assert_close(slerp(a, b, torch.tensor([share])), expected, atol=1e-6, rtol=0)


@given(st.integers(0, 2**31), st.floats(0, 1), st.sampled_from([0.0, 1e-7, 1e-3, 1.0]))
def test_slerp_never_leaves_the_sphere(seed: int, share: float, apart: float) -> None:
    a = unit(8, seed=seed)
    b = F.normalize(a + apart * unit(8, seed=seed + 1), dim=-1)
    between = slerp(a, b, torch.tensor([share]))
    assert between.norm().item() == pytest.approx(1, abs=1e-4)
    assert torch.isfinite(slerp(a, -a, torch.tensor([share]))).all()


def test_frames_between_windows_lie_between_their_embeddings() -> None:
    windows = unit(4, 16)
    there = at_times(windows, np.array([0.0, 1.0, 1.5, 3.0, 9.0]))
    torch.testing.assert_close(there[[0, 1, 3, 4]], windows[[0, 1, 3, 3]], atol=1e-6, rtol=0)
    assert (there[2] @ windows[1]).item() == pytest.approx((there[2] @ windows[2]).item(), abs=1e-5)
    assert at_times(windows[:1], np.array([0.0, 5.0])).shape == (2, 16)


def test_smoothing_does_not_lag() -> None:
    pulse = torch.zeros(101, 1)
    pulse[50] = 1
    out = smooth(pulse, 5.0, weights=torch.ones(101)).squeeze(1)
    torch.testing.assert_close(out, out.flip(0), atol=1e-6, rtol=0)
    assert out.argmax() == 50
    assert (out[55] / out[50]).item() == pytest.approx(0.5, rel=1e-3)  # the half-life means what it says


def test_smoothing_is_the_plain_weighted_mean() -> None:
    values, weights = unit(30, 4), torch.rand(30, generator=torch.Generator().manual_seed(1)) + 0.1
    distance = (torch.arange(30).view(-1, 1) - torch.arange(30)).abs()
    kernel = 2.0 ** (-distance / 3.0) * weights
    plain = kernel @ values / kernel.sum(dim=1, keepdim=True)
    torch.testing.assert_close(smooth(values, 3.0, weights=weights), plain, atol=1e-5, rtol=1e-4)


def test_a_constant_stays_constant_to_its_very_ends() -> None:
    torch.testing.assert_close(smooth(torch.ones(20, 3), 4.0, weights=torch.ones(20)), torch.ones(20, 3))


def test_another_frame_rate_dances_the_same_dance() -> None:
    windows, places = unit(41, 32), (0.5, 2.0, 3.75)
    slow, fast = (
        build_trajectory(at_frames(windows, line), np.ones(line.frames), line, half_life=0.3).targets
        for line in (timeline(4, 12), timeline(4, 48))
    )
    for seconds in places:
        assert (slow[round(seconds * 12)] @ fast[round(seconds * 48)]).item() > 0.995


def test_a_silent_moment_takes_its_colour_from_its_neighbours() -> None:
    line = timeline(2, 10)
    windows = torch.zeros(line.windows, 2)
    windows[:, 0], windows[10] = 1, torch.tensor([0.0, 1.0])
    loud = np.ones(line.frames)
    silent = loud.copy()
    silent[10] = 0
    heard, unheard = (
        build_trajectory(at_frames(windows, line), level, line, half_life=0.1).targets[10, 1].item()
        for level in (loud, silent)
    )
    assert unheard < 0.2 * heard


def test_prompts_pull_by_their_weight() -> None:
    line, windows, prompts = timeline(1, 10), unit(11, 16), unit(2, 16, seed=9)
    args = {"half_life": 0.0, "prompts": prompts, "pulls": torch.tensor([[1.0], [0.0]]).expand(2, 10)}
    heard, again = (at_frames(windows, line) for _ in range(2))
    mixed = build_trajectory(heard, np.ones(10), line, **args).targets  # type: ignore[arg-type]
    only = build_trajectory(again, np.ones(10), line, sound_weight=0.0, **args).targets  # type: ignore[arg-type]
    torch.testing.assert_close(only, prompts[:1].expand(10, -1), atol=1e-6, rtol=0)
    torch.testing.assert_close(mixed, F.normalize(windows[:10] + prompts[0], dim=-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(mixed.norm(dim=1), torch.ones(10))


def test_words_pull_when_they_are_said_and_cross_over() -> None:
    times = np.arange(0, 10, 0.5)
    first = pull_curve(0.8, times, start=2.0, end=5.0, crossfade=2.0)
    second = pull_curve(0.8, times, start=5.0, end=None, crossfade=2.0)
    assert first[times <= 1].max() == 0
    torch.testing.assert_close(first[(times >= 3) & (times <= 4)], torch.full((3,), 0.8))
    assert first[times == 5].item() == pytest.approx(0.4)
    torch.testing.assert_close((first + second)[times >= 3], torch.full((14,), 0.8))
    hard = pull_curve(-1.0, times, start=2.0, end=5.0, crossfade=0.0)
    assert (hard == -1).tolist() == [2 <= time < 5 for time in times]


def test_where_nothing_is_heard_the_target_stays_where_it_was() -> None:
    line, windows = timeline(1, 10), unit(2, 16)
    heard = torch.zeros(10, 16)
    heard[2:4], heard[7:] = windows[0], 3 * windows[1]
    made = build_trajectory(heard, np.ones(10), line, half_life=0.0).targets
    torch.testing.assert_close(made, windows[[0, 0, 0, 0, 0, 0, 0, 1, 1, 1]], atol=1e-6, rtol=0)


def test_negative_words_push_away() -> None:
    line, windows, prompts = timeline(1, 10), unit(11, 16), unit(1, 16, seed=9)

    def likeness(weight: float) -> float:
        pulls = torch.full((1, 10), weight)
        made = build_trajectory(
            at_frames(windows, line), np.ones(10), line, half_life=0.0, prompts=prompts, pulls=pulls
        )
        return (made.targets @ prompts[0]).mean().item()

    assert likeness(-0.5) < likeness(0.0) < likeness(0.5)


def test_a_gap_between_words_holds_what_was_said_before() -> None:
    line, prompts, pulls = timeline(1, 10), unit(2, 16, seed=9), torch.zeros(2, 10)
    pulls[0, 2:4] = pulls[1, 7:9] = 1.0
    made = build_trajectory(None, np.ones(10), line, half_life=0.0, prompts=prompts, pulls=pulls)
    expected = prompts[[0, 0, 0, 0, 0, 0, 0, 1, 1, 1]]
    torch.testing.assert_close(made.targets, expected, atol=1e-6, rtol=0)
    with pytest.raises(SettingsError, match="at any time"):
        build_trajectory(None, np.ones(10), line, half_life=0.0, prompts=prompts, pulls=torch.zeros(2, 10))


def test_a_scene_holds_its_mean_and_crosses_over_round_its_borders() -> None:
    heard = Trajectory(F.normalize(unit(40, 8) + 2 * unit(8, seed=1), dim=-1), torch.linspace(0, 1, 40), fps=4.0)
    scenes = [slice(0, 16), slice(16, 24), slice(24, 40)]
    means = [mean_target(heard, scene) for scene in scenes]
    sharp = hold_scenes(heard, scenes, crossfade=0)
    for scene, mean in zip(scenes, means, strict=True):
        torch.testing.assert_close(sharp.targets[scene], mean.expand(len(sharp.targets[scene]), -1))
    soft = hold_scenes(heard, scenes, crossfade=1)
    torch.testing.assert_close(soft.targets[16], F.normalize(means[0] + means[1], dim=0))
    torch.testing.assert_close(soft.targets[17], F.normalize(means[0] + 3 * means[1], dim=0))
    still = [frame for frame in range(40) if min(abs(frame - border) for border in (16, 24)) >= 2]
    torch.testing.assert_close(soft.targets[still], sharp.targets[still])
    assert soft.loudness is heard.loudness


def test_one_scene_is_one_target_from_end_to_end() -> None:
    heard = Trajectory(unit(9, 8), torch.ones(9), fps=3.0)
    held = hold_scenes(heard, [slice(0, 9)], crossfade=60)
    torch.testing.assert_close(held.targets, mean_target(heard, slice(0, 9)).expand(9, -1))
