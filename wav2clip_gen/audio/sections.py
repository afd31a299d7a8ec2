"""Section boundaries of a track, by novelty."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SHORTEST, LONGEST = 2.0, 8.0  # seconds that are compared on either side of a boundary, ...
SHARE = 8  # ... else one eighth of the track
CONTRAST = 0.15  # the least novelty of a boundary: noise stays below 0.05, drums that enter have 0.17
SNAP = 0.5  # seconds by which a boundary may move onto a beat


def boundaries(features: Floats, step: float, duration: float, beats: Floats) -> Floats:
    """Seconds at which sections begin and end, from 0 to `duration`, (S + 1,).

    Args:
        features: (n, D) timbre and harmony of each `step`, all in comparable units (such as 10 dB).
        step: Seconds.
        duration: Of the track, in seconds.
        beats: Seconds; a boundary near a beat is moved onto it.
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
    """How much more similar each side of a position is to itself than to the other side, (n + 1,).

    Foote's checkerboard ("Automatic audio segmentation using a measure of audio novelty", 2000), tapered, over
    cosines between differences from the track's mean: about 0 within a section, 1 between two uniform ones. Only the
    band of similarities that the kernel covers is computed.
    """
    centred = features - features.mean(axis=0)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    units = centred / (lengths + 0.5)  # differences much smaller than a unit count little
    padded = np.concatenate([np.zeros((side, units.shape[1])), units, np.zeros((side, units.shape[1]))])
    offsets = np.arange(side) + 0.5
    taper = np.exp(-2 * (offsets / side) ** 2)
    taper /= taper.sum()
    count = len(features) + 1
    before, after = np.zeros((count, units.shape[1])), np.zeros((count, units.shape[1]))
    alone = np.zeros(count)  # similarity of vectors to themselves, which does not count
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
