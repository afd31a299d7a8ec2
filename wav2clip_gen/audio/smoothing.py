"""Curves over time: columns pooled into frames, smoothed with zero phase, normalised to [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

LOW, HIGH = 1, 99  # percentiles of the frames that become 0 and 1


@dataclass(frozen=True, eq=False)
class Curve:
    """One feature of a track, frame by frame: a value `v` stands for `low + v * (high - low)` of its unit."""

    values: Floats  # (F,) in [0, 1]
    low: float
    high: float
    unit: str


class Pool:
    """Means, or maxima, of columns by the group that they belong to; columns arrive in blocks and are not kept."""

    def __init__(self, owners: Indices, groups: int, width: int, *, peak: bool = False) -> None:
        """Prepare for columns of `width` values, column `k` of which belongs to group `owners[k]` (ascending)."""
        self._owners, self._peak, self._next = owners, peak, 0
        self._sums = np.zeros((groups, width))
        self._counts = np.bincount(owners, minlength=groups)

    def add(self, values: NDArray[np.floating]) -> None:
        """Add the next columns (k, width)."""
        owners = self._owners[self._next : self._next + len(values)]
        self._next += len(values)
        if len(owners) == 0:
            return
        starts = np.flatnonzero(np.diff(owners, prepend=-1))
        if self._peak:
            groups = owners[starts]
            self._sums[groups] = np.maximum(self._sums[groups], np.maximum.reduceat(values, starts, axis=0))
        else:
            self._sums[owners[starts]] += np.add.reduceat(values.astype(np.float64), starts, axis=0)

    def values(self) -> Floats:
        """The pooled values, (groups, width); 0 where no column belongs to a group."""
        return self._sums if self._peak else self._sums / np.maximum(self._counts, 1)[:, None]


def zero_phase_smooth(values: Floats, half_life: float | Floats, weights: Floats | None = None) -> Floats:
    """Average rows (F,) or (F, C) with their neighbours on both sides, exponentially weighted, without delay.

    Args:
        values: Rows at equal distances.
        half_life: In rows: a row that far away counts half as much as the row itself; 0: no smoothing. Or (F,), one for
            each row, which attenuates everything that is averaged across that row.
        weights: (F,) weight of each row; all the same by default.
    """
    if not np.any(half_life) or len(values) < 2:
        return values
    keep = np.broadcast_to(np.exp2(-1 / np.maximum(half_life, 1e-3)), len(values))  # 0 where the half-life is 0
    rows = values.reshape(len(values), -1)
    trust = np.ones((len(values), 1)) if weights is None else np.maximum(weights, 1e-12)[:, None]
    return (_both_directions(rows * trust, keep) / _both_directions(trust, keep)).reshape(values.shape)


def _both_directions(rows: Floats, keep: Floats) -> Floats:
    """The sum over all rows, each attenuated by `keep` (F,) for every row of distance."""
    return _decayed(rows, keep) + _decayed(rows[::-1], keep[::-1])[::-1] - rows


def _decayed(rows: Floats, keep: Floats) -> Floats:
    """The sum over a row and all before it, each attenuated by `keep` for every row of distance."""
    decayed = rows.copy()
    for row in range(1, len(rows)):
        decayed[row] += keep[row] * decayed[row - 1]
    return decayed


def normalize_to_peak(values: Floats, *, floor: float = 0.0, unit: str = "") -> Curve:
    """Divide by the 99th percentile of the frames, or by `floor` if that is more; 0 stays 0."""
    high = max(float(np.percentile(values, HIGH)) or float(values.max()), floor)
    return Curve(np.clip(values / high, 0, 1) if high > 0 else np.zeros_like(values), 0.0, high, unit)


def normalize_range(values: Floats, valid: NDArray[np.bool_], *, span: float = 0.0, unit: str = "") -> Curve:
    """Map the percentiles 1 and 99 of the `valid` frames to 0 and 1; all 0 where none is.

    Args:
        values: (F,) of any range.
        valid: (F,) which frames count.
        span: The least distance from 0 to 1, so that a steady value does not become a wild curve.
        unit: Of the values.
    """
    if not valid.any():
        return Curve(np.zeros_like(values), 0.0, span, unit)
    low, high = (float(value) for value in np.percentile(values[valid], (LOW, HIGH)))
    if high - low < span:
        low = (low + high - span) / 2
        high = low + span
    return Curve(np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros_like(values), low, high, unit)
