"""From a song to its four stems, block by block; blocks overlap and cross over, so that no seam is heard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from wav2clip_gen.audio.track import Samples, Track

STEMS = ("vocals", "drums", "bass", "other")  # what every separator makes, in this order
CROSSOVER = 2.0  # seconds that neighbouring blocks share


class Separator(Protocol):
    """Shares a block of sound out among `STEMS`."""

    name: str  # as it is asked for

    @property
    def version(self) -> str:
        """Another one wherever the stems of the same song are others."""

    @property
    def is_ready(self) -> bool:
        """Whether all that it needs is on this machine; `version` can be told at once then."""

    def block_seconds(self, rate: int, channels: int) -> float:
        """How much to give at once, in seconds; more than `CROSSOVER`."""

    def separate(self, block: Samples, rate: int) -> Samples:
        """The stems (4, C, n) of a block (C, n)."""


def separated(song: Track, separator: Separator) -> Iterator[Samples]:
    """The stems as a stream of (4, C, n) arrays, `song.samples` in all.

    Raises:
        SoundError: The song changed while it was read.
    """
    rate, shared = song.sample_rate, round(CROSSOVER * song.sample_rate)
    length = round(separator.block_seconds(rate, song.channels) * rate)
    rise = np.linspace(0, 1, shared, dtype=np.float32)
    fading: Samples | None = None
    for block, is_last in _overlapping(song, length, shared):
        stems = separator.separate(block, rate)
        if fading is not None:
            stems[..., :shared] = fading * (1 - rise) + stems[..., :shared] * rise
        end = stems.shape[2] if is_last else stems.shape[2] - shared
        fading = stems[..., end:]
        yield stems[..., :end]


def _overlapping(song: Track, length: int, shared: int) -> Iterator[tuple[Samples, bool]]:
    """Blocks (C, n) of `length` samples, each beginning with the last `shared` of the one before; the last may differ.

    It is told which is the last. No block has less than `shared` new samples, for a mask needs something to go by.
    """
    held, count = [np.zeros((song.channels, 0), np.float32)], 0
    for block in song.blocks():
        held.append(block)
        count += block.shape[1]
        while count >= length + shared:
            joined = np.concatenate(held, axis=1)
            yield joined[:, :length], False
            held = [joined[:, length - shared :]]
            count = held[0].shape[1]
    yield np.concatenate(held, axis=1), True
