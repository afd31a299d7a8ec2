from __future__ import annotations

import numpy as np
import torch

from wav2clip_gen.training.mini.windows import (
    LOUDEST,
    QUIETEST,
    loud_starts,
    mask_spectrogram,
    normalized,
    random_excerpts,
    random_levels,
    windows_at,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_changed_speed_changes_the_pitch() -> None:
    tone = (20_000 * np.sin(2 * np.pi * 1000 * np.arange(32_000) / 16_000)).astype(np.int16)
    parts = random_excerpts([tone] * 20, 16_000, generator=seeded(), device=torch.device("cpu"))
    pitches = torch.fft.rfft(parts).abs().argmax(dim=1)
    assert pitches.min() >= 850
    assert pitches.max() <= 1150
    assert pitches.max() - pitches.min() > 150


def test_a_short_sound_is_repeated() -> None:
    ramp = np.arange(100, dtype=np.int16)
    parts = random_excerpts([ramp], 1000, generator=seeded(), device=torch.device("cpu"))
    assert parts.shape == (1, 1000)
    assert (parts.diff() < 0).sum() >= 8


def test_the_loudest_window_is_found() -> None:
    quiet = torch.zeros(1, 400)
    quiet[:, 100:300] = 1.0
    starts = torch.cat([loud_starts(quiet, 100, generator=seeded(seed)) for seed in range(50)])
    energies = torch.stack([windows_at(quiet, start[None], 100).sum() for start in starts])
    assert energies.mean() > 80  # of 100; a random window has 67


def test_sounds_are_equally_loud_and_then_at_any_level() -> None:
    sounds = torch.randn(4, 500, generator=seeded()) * torch.tensor([1e-3, 0.1, 1.0, 5.0])[:, None]
    torch.testing.assert_close(normalized(sounds).std(dim=1), torch.ones(4))
    assert normalized(torch.zeros(1, 9)).isfinite().all()
    levels = random_levels(500, generator=seeded())
    assert levels.min() >= QUIETEST
    assert levels.max() <= LOUDEST
    assert levels.median() < 0.06


def test_a_band_of_frequencies_and_one_of_columns_are_masked() -> None:
    masked = mask_spectrogram(torch.ones(16, 1, 257, 46), generator=seeded())
    rows, columns = (masked == 0).all(dim=3)[:, 0], (masked == 0).all(dim=2)[:, 0]
    assert 0 < rows.sum(dim=1).max() < 40
    assert 0 < columns.sum(dim=1).max() < 8
    assert torch.equal(masked == 0, rows[:, None, :, None] | columns[:, None, None, :])
