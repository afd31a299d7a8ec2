"""The mono signal that is analysed: the mean of a track's channels, unless they cancel each other in it.

A channel that was inverted by a cable, or a very wide stereo effect, cancels the others in a mean. What is lost is
measured in windows of a second and in two bands (the signal, in which the low end dominates, and its differences, in
which the high end does), so that channels of which only a part is opposed are found too.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
Weights = tuple[float, ...]  # of the channels in the mono signal

CANCELLED = 0.5  # a mix has cancelled if it has less than this share of the power that unrelated channels would leave
MOST_LOST = 0.4  # of the audible windows and bands, from which the plain mean is not used
AUDIBLE = 1e-4  # power of an audible window relative to the loudest
OPPOSED = 0.25  # by this share of its power a channel has to lower that of the others to be inverted
MOST_CHANNELS = 8  # of a track that is measured


class ChannelMeter:
    """Measures how the channels of a track relate to each other, block by block."""

    def __init__(self, rate: int) -> None:
        self._window = rate  # samples: one second
        self._products: list[NDArray[np.float64]] = []  # of each window: (2, C, C), the signal's and its differences'

    def add(self, block: Samples) -> None:
        """Measure the next (C, n) samples."""
        if not 1 < len(block) <= MOST_CHANNELS:
            return
        for first in range(0, block.shape[1], self._window):
            window = block[:, first : first + self._window].astype(np.float64)
            self._products.append(np.stack([band @ band.T for band in (window, np.diff(window))]))

    def weights(self) -> Weights | None:
        """The weights of the channels in the mono signal; None for their plain mean, where little of it is lost."""
        if not self._products:
            return None
        products = np.array(self._products)
        power = np.trace(products, axis1=2, axis2=3)  # (windows, 2)
        cells = products[power > AUDIBLE * power.max(axis=0)]  # (K, C, C)
        if not len(cells):
            return None
        cells /= np.trace(cells, axis1=1, axis2=2)[:, None, None]
        plain, *others = _candidates(cells.mean(axis=0))
        if _lost(cells, plain) < MOST_LOST:
            return None
        best = min(others, key=lambda weights: _lost(cells, weights))  # if equal, the first: it has all channels
        return tuple(best.tolist()) if _lost(cells, best) < _lost(cells, plain) else None


def _lost(cells: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """The share of windows and bands that are cancelled in a mix."""
    power = np.einsum("i,kij,j->k", weights, cells, weights)
    return float((power < CANCELLED / len(weights) ** 2).mean())  # unrelated channels: 1 / C^2, where their sum is 1


def _candidates(mean: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """Weights to choose from: the plain mean, one with inverted channels, and the loudest channel alone."""
    count = len(mean)
    yield np.full(count, 1 / count)
    signs, power = np.zeros(count), mean.diagonal()
    for channel in np.argsort(-power, kind="stable"):  # the loudest decides first
        signs[channel] = -1 if signs @ mean[channel] < -OPPOSED * power[channel] else 1
    yield signs * signs[0] / count
    yield np.eye(count)[power.argmax()]


def mix_down(block: Samples, weights: Weights | None) -> Samples:
    """The mono signal (n,) of channels (C, n)."""
    return block.mean(axis=0, dtype=np.float32) if weights is None else np.asarray(weights, np.float32) @ block


def invert_opposed(block: Samples, weights: Weights | None) -> Samples:
    """The channels (..., C, n) with those inverted that are inverted in the mono signal; twice is as before."""
    if weights is None or min(weights) >= 0:
        return block
    return block * np.where(np.array(weights) < 0, -1, 1).astype(np.float32)[:, None]


def describe_weights(name: str, weights: Weights | None) -> str | None:
    """A note for the user; None where the plain mean is used."""
    if weights is None:
        return None
    inverted = [str(number) for number, weight in enumerate(weights, 1) if weight < 0]
    used = [str(number) for number, weight in enumerate(weights, 1) if weight]
    how = f"channel {', '.join(inverted)} is inverted" if inverted else f"only channel {', '.join(used)} is used"
    return f"the channels of {name} cancel each other: {how} in the analysis; the film has the sound as it is"
