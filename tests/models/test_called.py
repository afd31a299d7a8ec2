"""What the shipped networks call a sound: neither its loudness nor what stands before a name changes it.

Of the shipped sounds, window by window, over ESC-50's names and those of instruments. The tolerance is a share of the
windows: where two names are almost equally near, a small change decides.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.conftest import SAMPLES
from wav2clip_gen.audio.track import ENCODER_RATE, open_track
from wav2clip_gen.evaluation.held_out import ESC_50
from wav2clip_gen.models.registry import Models

SOUNDS = (
    "africa",
    "sounds/tabla",
    "sounds/bell",
    "sounds/glass",
    "song/drums",
    "song/bass",
    "song/other",
    "song/vocals",
)
INSTRUMENTS = ("drum", "guitar", "piano", "violin", "flute", "trumpet", "saxophone", "harmonica", "choir")
NAMES = tuple(name.replace("_", " ") for name in (*ESC_50, *INSTRUMENTS))
QUIETER = 10 ** (-20 / 20)  # 20 dB


@pytest.fixture(scope="module")
def sounds() -> list[Tensor]:
    """The windows (W, N) of a second of each sound that are not silent."""
    found = []
    for name in SOUNDS:
        mono = np.concatenate(list(open_track(SAMPLES / f"{name}.ogg").mono_blocks(ENCODER_RATE)))
        windows = torch.from_numpy(mono).float().unfold(0, ENCODER_RATE, ENCODER_RATE)
        levels = windows.square().mean(dim=1).sqrt()
        found.append(windows[levels > 0.1 * levels.max()])
    return found


def embed(mini: Models, sounds: list[Tensor]) -> Tensor:
    """Unit vectors (W, D) of the windows of all sounds, each sound standardized by itself as in a film."""

    def embed_sound(windows: Tensor) -> Tensor:
        return mini.wav2clip.encode_windows(lambda: [windows])

    return torch.cat([embed_sound(windows) for windows in sounds])


@pytest.fixture(scope="module")
def embedded(mini: Models, sounds: list[Tensor]) -> Tensor:
    return embed(mini, sounds)


def called(mini: Models, embeddings: Tensor, *, template: str = "{}") -> Tensor:
    """Which of `NAMES` is nearest to each embedding (W, D)."""
    names = mini.clip.encode_text([template.format(name) for name in NAMES]).detach().cpu()
    return (embeddings @ names.T).argmax(dim=1)


def same(first: Tensor, second: Tensor) -> float:
    """The share of the windows that are called the same."""
    return (first == second).float().mean().item()


@torch.no_grad()
def test_a_quieter_sound_is_called_the_same(mini: Models, sounds: list[Tensor], embedded: Tensor) -> None:
    quiet = embed(mini, [QUIETER * windows for windows in sounds])
    assert (quiet * embedded).sum(dim=1).mean() > 0.98
    assert same(called(mini, quiet), called(mini, embedded)) >= 0.9


@torch.no_grad()
def test_a_quieter_window_is_called_the_same(mini: Models, sounds: list[Tensor], embedded: Tensor) -> None:
    """Every second window is quieter than those around it."""
    faded = [windows * torch.where(torch.arange(len(windows)) % 2 == 1, QUIETER, 1.0)[:, None] for windows in sounds]
    changed = torch.cat([torch.arange(len(windows)) % 2 == 1 for windows in sounds])
    quiet = embed(mini, faded)[changed]
    assert (quiet * embedded[changed]).sum(dim=1).mean() > 0.95
    assert same(called(mini, quiet), called(mini, embedded[changed])) >= 0.75


@pytest.mark.parametrize("template", ["the sound of {}", "a {}", "the sound of a {}"])
@torch.no_grad()
def test_what_stands_before_a_name_does_not_change_it(mini: Models, embedded: Tensor, template: str) -> None:
    assert same(called(mini, embedded, template=template), called(mini, embedded)) >= 0.85
