"""Where a track becomes something else: boundaries of its parts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SHORTEST, LONGEST = 2.0, 8.0  # seconds that are compared on either side of a boundary
SHARE = 8  # of the track: a side is this part of it, within these bounds
CONTRAST = 0.15  # what a boundary must reach; see `novelty`. Noise stays below 0.05, a drum that enters has 0.17
SNAP = 0.5  # seconds by which a boundary may move onto a beat


def boundaries(features: Floats, step: float, duration: float, beats: Floats) -> Floats:
    """Seconds at which sections begin and end, from 0 to `duration`, (S + 1,).

    Args:
        features: (n, D) what the sound is like during each `step`, all in comparable units (10 dB, say).
        step: Seconds.
        duration: Of the track, in seconds.
        beats: Seconds; a boundary that lies near a beat is put onto it.
    """
    from scipy.signal import find_peaks

    side = max(2, round(min(max(duration / SHARE, SHORTEST), LONGEST) / step))
    if len(features) < 2 * side:
        return np.array([0.0, duration])
    curve = np.pad(novelty(features, side), 1)
    peaks = find_peaks(curve, height=CONTRAST, distance=side)[0] - 1
    inner = [_on_beat(peak * step, beats) for peak in peaks if side <= peak <= len(features) - side]
    inner = [second for second in inner if 0 < second < duration]
    return np.array([0.0, *np.unique(inner), duration])


def novelty(features: Floats, side: int) -> Floats:
    """How much more alike each side of a place is in itself than the two sides are to each other, (n + 1,).

    Foote's checkerboard ("Automatic audio segmentation using a measure of audio novelty", 2000), tapered, over
    cosines between differences from the track's mean: about 0 inside a part, 1 between two that are each
    uniform. Only the band of similarities that the board covers is ever computed.
    """
    centred = features - features.mean(axis=0)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    units = centred / (lengths + 0.5)  # a difference much smaller than a unit says little
    padded = np.concatenate([np.zeros((side, units.shape[1])), units, np.zeros((side, units.shape[1]))])
    offsets = np.arange(side) + 0.5
    taper = np.exp(-2 * (offsets / side) ** 2)
    taper /= taper.sum()
    count = len(features) + 1
    before, after = np.zeros((count, units.shape[1])), np.zeros((count, units.shape[1]))
    alone = np.zeros(count)  # what vectors have in common with themselves, which says nothing of a side
    squares = np.square(padded).sum(axis=1)
    for distance, weight in enumerate(taper):
        earlier, later = (
            slice(side - 1 - distance, side - 1 - distance + count),
            slice(side + distance, side + distance + count),
        )
        before += weight * padded[earlier]
        after += weight * padded[later]
        alone += weight**2 * (squares[earlier] + squares[later])
    within = (np.square(before).sum(axis=1) + np.square(after).sum(axis=1) - alone) / 2
    across = (before * after).sum(axis=1)
    return (within / (1 - np.square(taper).sum()) - across) / 2


def _on_beat(second: float, beats: Floats) -> float:
    if len(beats) == 0:
        return second
    nearest = float(beats[np.argmin(np.abs(beats - second))])
    return nearest if abs(nearest - second) <= SNAP else second
