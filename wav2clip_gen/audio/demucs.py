"""HTDemucs, a network that separates (arXiv 2211.08553), through the package `demucs`.

torch is imported only when something is separated.
"""

from __future__ import annotations

import os
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wav2clip_gen.audio.demucs_weights import (
    CHANNELS,
    MODEL,
    Weights,
    cached_weights,
    fetch_bag,
    fetch_weights,
    load,
    weights_in,
)
from wav2clip_gen.audio.separation import STEMS
from wav2clip_gen.audio.track import Samples
from wav2clip_gen.environment import asked_to_stay_offline
from wav2clip_gen.errors import SettingsError, W2CError, WeightsError

if TYPE_CHECKING:
    from torch import Tensor

BLOCK_SECONDS = 30.0  # the network hears 7.8 s at once
OVERLAP = 0.25  # of what it hears at once


class DemucsSeparator:
    """Separates by HTDemucs; about as long as the song on two cores."""

    name = "demucs"

    def __init__(self, weights: Weights | None) -> None:
        """Take these weights, or, if None, the published ones, which are fetched when they are needed."""
        self._given = weights

    @property
    def version(self) -> str:
        """The package's version and what the weights are."""
        return f"{version('demucs')} {self._weights.fingerprint}"

    @property
    def is_ready(self) -> bool:
        """Whether the weights are there."""
        return self._given is not None

    def block_seconds(self, rate: int, channels: int) -> float:
        """Long beside what the network hears at once, and short beside a GPU's memory."""
        return BLOCK_SECONDS

    def separate(self, block: Samples, rate: int) -> Samples:
        """The stems (4, C, n) of a block (C, n) of one or two channels; they add up to it only roughly."""
        import torch
        from demucs.apply import apply_model

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = self._model
        heard = np.repeat(_resampled(block, rate, model.samplerate), CHANNELS // len(block), axis=0)
        mix = torch.from_numpy(heard)
        mean, scale = mix.mean(), mix.mean(dim=0).std(correction=0) + 1e-8  # as it was trained
        made: Tensor = apply_model(
            model, ((mix - mean) / scale)[None], shifts=0, overlap=OVERLAP, device=device
        )[0]  # (S, C, n); shifts are random  # fmt: skip
        sounds = dict(zip(model.sources, (made.cpu() * scale + mean).numpy(), strict=True))
        stems = [sounds.pop(name) for name in STEMS[:-1]]
        stems.append(np.sum(list(sounds.values()), axis=0))  # a network of six stems has more than one other
        if len(block) == 1:
            stems = [stem.mean(axis=0, keepdims=True) for stem in stems]
        return np.stack([_fitted(_resampled(stem, model.samplerate, rate), block.shape[1]) for stem in stems])

    @cached_property
    def _weights(self) -> Weights:
        return self._given or fetch_weights()

    @cached_property
    def _model(self) -> Any:
        return load(self._weights)


def find_demucs(*, required: bool, repo: Path | None, channels: int) -> DemucsSeparator | None:
    """Demucs with its weights, as far as can be told without importing torch; None where it is not at hand.

    Args:
        required: It is asked for: None is an error then, and published weights that are not there will be fetched
            when they are needed; that they can be is made sure at once.
        repo: Folder of weights, instead of `W2C_DEMUCS_REPO` or the published ones.
        channels: Of the song.

    Raises:
        W2CError: It is required and not installed, or cannot separate so many channels.
        WeightsError: The folder holds no weights, or they are not there and may not or cannot be fetched.
    """
    if repo is None and (chosen := os.environ.get("W2C_DEMUCS_REPO")):
        repo = Path(chosen).expanduser()
    required = required or repo is not None
    if channels > CHANNELS:
        if required:
            raise SettingsError(f"Demucs cannot separate {channels} channels", hint="use --separator dsp")
        return None
    if find_spec("demucs") is None:
        if required:
            raise W2CError("Demucs is not installed", hint="pip install 'wav2clip-gen[demucs]', or use --separator dsp")
        return None
    weights = weights_in(repo) if repo else cached_weights()
    if weights is None and required and asked_to_stay_offline():
        raise WeightsError(
            f"the weights of {MODEL} are not there, and W2C_OFFLINE is set",
            hint="unset it once to fetch them, give their folder with --demucs-repo, or use --separator dsp",
        )
    if weights is None and required:
        fetch_bag()
    return DemucsSeparator(weights) if weights or required else None


def _resampled(sound: Samples, source: int, rate: int) -> Samples:
    """A whole (C, n) at another rate."""
    import soxr

    if source == rate:
        return sound
    return np.ascontiguousarray(soxr.resample(np.ascontiguousarray(sound.T), source, rate).T, dtype=np.float32)


def _fitted(sound: Samples, samples: int) -> Samples:
    """Exactly so many samples, which rounding may have changed by one."""
    return np.pad(sound[:, :samples], ((0, 0), (0, max(0, samples - sound.shape[1]))))
