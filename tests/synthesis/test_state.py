"""The state of an optimizer: saved, and restored into another one, the frames that follow are the same bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from tests.synthesis.conftest import make_optimizer, target_of
from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.config import Settings
from wav2clip_gen.models.registry import Models
from wav2clip_gen.synthesis.modulation import modulate
from wav2clip_gen.synthesis.optimizer import Frame, FrameOptimizer

GROUPS = [*pairwise([-1, 0, 2, 4, 6, 8])]  # of frames that end with an optimised one
CASES: dict[str, dict[str, Any]] = {
    "still": {},
    "encoded again": {"motion": {"pan_x": 3.0, "rotate": 30.0, "border": "wrap"}},
    "no average": {"motion": {"ema_half_life": 0}},
    "no steps": {"painting": {"steps": 0, "first_steps": 0}},
    "held": {"painting": {"init_weight": 2.0}, "run": {"precision": "bf16"}},
}


@pytest.mark.parametrize("case", CASES)
def test_a_restored_optimizer_makes_the_same_frames(case: str, mini: Models, small: Settings, tmp_path: Path) -> None:
    settings = small.merged({"picture": {"fps": 8, "painted_fps": 4}}).merged(CASES[case])
    parameters = modulate(settings, {}, Timeline(samples=9, sample_rate=8, fps=Fraction(8)))
    targets = [target_of(mini, text) for text in ("a dog", "a boat", "a forest")]

    def frames(optimizer: FrameOptimizer, groups: list[tuple[int, int]]) -> Iterator[Frame]:
        for after, index in groups:
            yield from optimizer.frames(index, targets[index % 3], parameters, after=after)

    first = make_optimizer(mini, settings)
    assert [frame.loss is None for frame in frames(first, GROUPS[:3])][:2] == [case == "no steps", True]
    safetensors.torch.save_file(first.state(), tmp_path / "state")
    again = make_optimizer(mini, settings, seed=8)  # another start
    again.restore(safetensors.torch.load_file(tmp_path / "state"))
    assert all(torch.equal(value, again.state()[name]) for name, value in first.state().items())
    assert ("residual" in first.state()) == (case == "encoded again")
    for one, other in zip(frames(first, GROUPS[3:]), frames(again, GROUPS[3:]), strict=True):
        np.testing.assert_array_equal(one.picture, other.picture)
        assert (one.loss, one.similarity) == (other.loss, other.similarity)
    assert all(torch.equal(value, again.state()[name]) for name, value in first.state().items())
    assert all(tensor.is_contiguous() for tensor in (first.latent, first._average.value))


def test_a_state_does_not_change_with_the_optimizer(mini: Models, small: Settings) -> None:
    parameters = modulate(small, {}, Timeline(samples=3, sample_rate=4, fps=Fraction(4)))
    optimizer = make_optimizer(mini, small)
    (_,) = optimizer.frames(0, target_of(mini), parameters)
    state = optimizer.state()
    copies = {name: value.clone() for name, value in state.items()}
    (_,) = optimizer.frames(1, target_of(mini), parameters)
    assert all(torch.equal(value, copies[name]) for name, value in state.items())
