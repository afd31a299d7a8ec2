"""Helpers of the synthesis tests."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wav2clip_gen.config import Settings
from wav2clip_gen.models.registry import Models
from wav2clip_gen.synthesis.optimizer import FrameOptimizer


@pytest.fixture(scope="session")
def small(tiny: Settings) -> Settings:
    """As `tiny`, with frames of half the size."""
    return tiny.merged({"picture": {"width": 32, "height": 32}})


def make_optimizer(mini: Models, settings: Settings, seed: int = 7) -> FrameOptimizer:
    return FrameOptimizer(mini, settings, generator=torch.Generator().manual_seed(seed))


def target_of(mini: Models, text: str = "a dog") -> Tensor:
    return mini.clip.encode_text([text])[0]
