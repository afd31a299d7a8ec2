"""Helpers of the synthesis tests."""

from __future__ import annotations

import torch
from torch import Tensor

from wav2clip_gen.config import Settings
from wav2clip_gen.models.registry import Models
from wav2clip_gen.synthesis.optimizer import FrameOptimizer


def make_optimizer(mini: Models, settings: Settings, seed: int = 7) -> FrameOptimizer:
    return FrameOptimizer(mini, settings, generator=torch.Generator().manual_seed(seed))


def target_of(mini: Models, text: str = "a dog") -> Tensor:
    return mini.clip.encode_text([text])[0]
