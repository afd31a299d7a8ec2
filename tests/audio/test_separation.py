from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from tests.audio.conftest import Save, noise
from wav2clip_gen.audio.separation import separated
from wav2clip_gen.audio.track import open_track

RATE = 1_000


@dataclass
class Quarters:
    """Gives each stem a quarter of the block, and remembers how long the blocks were."""

    seconds: float
    lengths: list[int] = field(default_factory=list)
    name: str = "quarters"
    version: str = "1"
    is_ready: bool = True

    def block_seconds(self, rate: int, channels: int) -> float:
        return self.seconds

    def separate(self, block: np.ndarray, rate: int) -> np.ndarray:
        self.lengths.append(block.shape[1])
        return np.stack([block / 4] * 4)


@pytest.mark.parametrize("seconds", [0.001, 1.0, 5.0, 6.999, 7.0, 7.001, 9.0, 31.5])
@pytest.mark.parametrize("block", [2.5, 5.0])
def test_blocks_join_without_a_seam(seconds: float, block: float, save: Save) -> None:
    song = open_track(save("song.wav", noise(seconds, RATE), RATE))
    separator = Quarters(block)
    stems = np.concatenate(list(separated(song, separator)), axis=2)
    assert stems.shape == (4, 2, song.samples)
    np.testing.assert_allclose(stems.sum(axis=0), song.read(), atol=1e-6)
    assert max(separator.lengths) < (block + 2) * RATE
    assert len(separator.lengths) == 1 or min(separator.lengths) >= 2 * 2 * RATE or block < 4


class Steps(Quarters):
    """Gives vocals everything in the first block, and nothing in the others."""

    def separate(self, block: np.ndarray, rate: int) -> np.ndarray:
        self.lengths.append(block.shape[1])
        return np.stack([block * (len(self.lengths) == 1)] + [0 * block] * 3)


def test_blocks_cross_over_evenly(save: Save) -> None:
    song = open_track(save("song.wav", np.ones((12 * RATE, 1), np.float32), RATE))
    vocals = np.concatenate(list(separated(song, Steps(5.0))), axis=2)[0, 0]
    assert (vocals[: 3 * RATE] == 1).all()
    np.testing.assert_allclose(vocals[3 * RATE : 5 * RATE], np.linspace(1, 0, 2 * RATE), atol=1e-6)
    assert not vocals[5 * RATE :].any()
