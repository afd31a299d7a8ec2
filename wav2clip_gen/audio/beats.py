"""Where sounds set in, how fast they pulse, and where the beats fall, from one curve of onset strength."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wav2clip_gen.audio.spectra import HOP, RATE

Floats = NDArray[np.float64]

COLUMNS = RATE / HOP  # columns of the curve per second
WINDOW = 8.0  # seconds over which a pulse is looked for
USUAL_TEMPO = 120.0  # beats per minute, where tempi are most likely
SLOWEST, FASTEST = 40.0, 240.0  # beats per minute
TIGHTNESS = 100.0  # how much an uneven beat costs beside a strong one
PULSE = 0.15  # mean autocorrelation that a pulse has at least: noise has 0.04, a free djembe 0.28, clicks 0.9
LEAST = 0.05  # of the largest strength: what lies lower is no onset


def onset_times(strength: Floats) -> Floats:
    """Seconds at which sounds set in: peaks of a strength (K,) in [0, 1] that rise well above what is around them."""
    from scipy.ndimage import maximum_filter1d, uniform_filter1d

    if len(strength) < 3 or strength.max() <= 0:
        return np.zeros(0)
    near, around = round(0.03 * COLUMNS), round(0.1 * COLUMNS)
    highest = maximum_filter1d(strength, 2 * near + 1, mode="nearest") == strength
    usual = uniform_filter1d(strength, 2 * around + 1, mode="nearest")
    peaks = np.flatnonzero(highest & (strength >= usual + LEAST * strength.max()))
    apart = np.diff(peaks, prepend=-COLUMNS) > near  # of a flat top, the first
    return _refined(strength, peaks[apart]) / COLUMNS


def track_beats(strength: Floats) -> tuple[float | None, Floats]:
    """Beats per minute, and the seconds of the beats; None and none where nothing pulses.

    The tempo is the strongest period, and the beats are the even chain that meets the most onset strength
    (D. Ellis, "Beat tracking by dynamic programming", 2007). The tempo told is that of the chain itself.
    """
    period = _period(strength)
    if period is None:
        return None, np.zeros(0)
    chain = _refined(strength, _chain(strength, period))
    if len(chain) < 2:
        return None, np.zeros(0)
    spacing = float(np.polyfit(np.arange(len(chain)), chain, 1)[0])  # columns; a line averages the rounding out
    return 60 * COLUMNS / spacing, chain / COLUMNS


def _period(strength: Floats) -> float | None:
    """Columns from beat to beat: the peak of the mean local autocorrelation, where it lies near usual tempi.

    The windows are taken one after another, so the memory does not grow with the track.
    """
    from scipy.fft import irfft, rfft

    size, longest = round(WINDOW * COLUMNS), int(60 * COLUMNS / SLOWEST)
    shortest = int(60 * COLUMNS / FASTEST)
    if len(strength) < 2 * shortest or np.ptp(strength) == 0:
        return None
    total, weight = np.zeros(longest + 2), 0.0
    for start in range(0, max(1, len(strength) - size // 2), size // 2):
        piece = strength[start : start + size]
        spread = piece - piece.mean()
        products = irfft(np.abs(rfft(spread, 2 * size)) ** 2)[: len(total)]
        if products[0] > 0:
            total += products / products[0] * piece.sum()
            weight += piece.sum()
    lags = np.arange(len(total))
    lags[0] = 1
    octaves = np.log2(60 * COLUMNS / lags / USUAL_TEMPO)
    likely = total * np.exp(-0.5 * octaves**2)
    inner = np.arange(shortest, min(longest, len(strength) // 2) + 1)
    if len(inner) == 0:
        return None
    best = int(inner[np.argmax(likely[inner])])
    return float(_refined(total, np.array([best]))[0]) if total[best] > PULSE * weight else None


def _chain(strength: Floats, period: float) -> NDArray[np.int64]:
    """The columns of the evenest chain through the strongest onsets."""
    score = _local_score(strength, period)
    steps = np.arange(-round(2 * period), -max(round(period / 2), 1) + 1)
    penalty = -TIGHTNESS * np.log(-steps / period) ** 2
    total, before = score.copy(), np.full(len(score), -1)
    for column in range(len(score)):
        first = max(0, column + steps[0])
        stop = column + steps[-1] + 1
        if stop > first:
            reach = total[first:stop] + penalty[len(penalty) - (stop - first) :]
            best = int(np.argmax(reach))
            if reach[best] > 0:  # else the chain begins here
                total[column] += reach[best]
                before[column] = first + best
    chain = [int(np.argmax(total))]
    while before[chain[-1]] >= 0:
        chain.append(int(before[chain[-1]]))
    return _without_silent_ends(score, np.array(chain[::-1]))


def _local_score(strength: Floats, period: float) -> Floats:
    """The strength, blurred a little against small unevenness and divided by its deviation."""
    from scipy.signal import fftconvolve

    reach = np.arange(-round(period), round(period) + 1)
    blur = np.exp(-0.5 * (reach * 32 / period) ** 2)
    return fftconvolve(strength / max(strength.std(), 1e-12), blur, mode="same")


def _without_silent_ends(score: Floats, chain: NDArray[np.int64]) -> NDArray[np.int64]:
    """Leave out the first and last beats that meet nothing."""
    heard = np.flatnonzero(score[chain] > 0.5 * np.sqrt(np.mean(score[chain] ** 2)))
    return chain[heard[0] : heard[-1] + 1] if len(heard) else chain[:0]


def _refined(curve: Floats, peaks: NDArray[np.int64]) -> Floats:
    """The tops of the parabolas through peaks and their neighbours, in columns."""
    inside = np.clip(peaks, 1, len(curve) - 2)
    before, top, after = curve[inside - 1], curve[inside], curve[inside + 1]
    bend = before - 2 * top + after
    shift = np.where(bend < 0, 0.5 * (before - after) / np.where(bend < 0, bend, 1), 0)
    return np.where(inside == peaks, peaks + np.clip(shift, -0.5, 0.5), peaks)
