"""Windows of sounds for training, many at a time on any device: excerpts, mixtures, noise, and masked bands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from wav2clip_gen.training.data import Array

SPEED = 0.15  # up to which a sound is played faster or slower
TRIES = 3  # random windows of which the loudest is taken: sounds are often padded with silence
QUIETEST, LOUDEST = 0.003, 0.3  # standard deviation of the samples
MASKS = ((2, 40), (3, 8))  # axis of a spectrogram, and the widest band of it that is zeroed


def random_excerpts(
    sounds: Sequence[Array], length: int, *, generator: torch.Generator, device: torch.device
) -> Tensor:
    """A random part (B, length) of each sound of int16 samples, at a random speed; repeated if it is too short."""
    factors, places = torch.rand(2, len(sounds), generator=generator)
    needed = int(length * (1 + SPEED)) + 2
    cut = np.empty((len(sounds), needed), dtype=np.int16)
    for line, (samples, place) in enumerate(zip(sounds, places.tolist(), strict=True)):
        whole = samples if len(samples) >= needed else np.tile(samples, -(-needed // len(samples)))
        start = int(place * (len(whole) - needed + 1))
        cut[line] = whole[start : start + needed]
    parts = torch.from_numpy(cut).to(device).float() / 32768
    speeds = (1 + SPEED * (2 * factors - 1)).to(device)
    positions = torch.arange(length, device=device) * speeds[:, None]
    before = positions.long()
    return torch.lerp(parts.gather(1, before), parts.gather(1, before + 1), positions - before)


def normalized(sounds: Tensor) -> Tensor:
    """Scale sounds (B, N) to unit deviation."""
    return sounds / sounds.std(dim=1, keepdim=True).clamp(min=1e-4)


def random_levels(count: int, *, generator: torch.Generator) -> Tensor:
    """Loudness (B, 1): what a sound is called does not depend on it."""
    return QUIETEST * (LOUDEST / QUIETEST) ** torch.rand(count, 1, generator=generator)


def loud_starts(contexts: Tensor, length: int, *, generator: torch.Generator) -> Tensor:
    """Where (B,) a window of each sound (B, N) begins, the loudest of some random ones."""
    starts = torch.randint(contexts.shape[1] - length + 1, (len(contexts), TRIES), generator=generator)
    starts = starts.to(contexts.device)
    energy = torch.stack([windows_at(contexts, column, length).square().sum(dim=1) for column in starts.T])
    return starts.gather(1, energy.argmax(dim=0)[:, None])[:, 0]


def windows_at(sounds: Tensor, starts: Tensor, length: int) -> Tensor:
    """The window (B, length) of each sound (B, N) from its start (B,)."""
    return sounds.gather(1, starts[:, None] + torch.arange(length, device=sounds.device))


def mask_spectrogram(spectrogram: Tensor, *, generator: torch.Generator) -> Tensor:
    """Zero a band of frequencies and one of columns in each of (B, 1, F, T) (Park et al., arXiv 1904.08779)."""
    for axis, widest in MASKS:
        length = spectrogram.shape[axis]
        widths, places = torch.rand(2, len(spectrogram), 1, generator=generator)
        sizes = (widths * widest).long()
        starts = (places * (length - sizes)).long()
        positions = torch.arange(length)
        hidden = ((positions >= starts) & (positions < starts + sizes)).to(spectrogram.device)
        shape = [len(spectrogram), 1, 1, 1]
        shape[axis] = length
        spectrogram = spectrogram.masked_fill(hidden.view(shape), 0.0)
    return spectrogram
