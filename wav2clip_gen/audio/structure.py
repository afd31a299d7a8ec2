"""Onsets, tempo and beats from a curve of onset strength; section boundaries from novelty."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wav2clip_gen.audio.decode import FEATURE_RATE as RATE
from wav2clip_gen.environment import is_writable, private_folder, user_cache

if TYPE_CHECKING:
    from filelock import FileLock

Floats = NDArray[np.float64]

HOP = 256  # samples from one column of the curve to the next, 11.6 ms
COLUMNS = RATE / HOP  # columns per second
WINDOW = 8.0  # seconds of an autocorrelation
USUAL_TEMPO = 120.0  # beats per minute, the centre of the prior
SLOWEST, FASTEST = 40.0, 240.0  # beats per minute
TIGHTNESS = 100.0  # cost of an uneven beat relative to the strength of an onset
PULSE = 0.15  # least mean autocorrelation of a pulse: noise has 0.04, a free djembe 0.28, clicks 0.9
LEAST = 0.05  # of the largest strength: by how much an onset exceeds its surroundings

SHORTEST, LONGEST = 2.0, 8.0  # seconds that are compared on either side of a boundary, ...
SHARE = 8  # ... else one eighth of the track
CONTRAST = 0.15  # the least novelty of a boundary: noise stays below 0.05, drums that enter have 0.17
SNAP = 0.5  # seconds by which a boundary may move onto a beat


def librosa_lock() -> FileLock:
    """A lock for importing librosa.

    At its first import in an environment librosa compiles code with numba, for about 20 s, into a cache next to its
    files. Two processes that write this cache at once corrupt it, and the compiled code then crashes.
    """
    from filelock import FileLock

    return FileLock(private_folder() / "librosa.lock")


@cache
def import_librosa() -> None:
    """Import those modules of librosa that features need, one process at a time; see `librosa_lock`."""
    with librosa_lock():
        _place_numba_cache()
        import librosa.feature
        import librosa.filters
        import librosa.onset  # noqa: F401


def _place_numba_cache() -> None:
    """Choose a folder for numba's cache where it finds none: librosa's and the user's cannot be written to."""
    own = find_spec("librosa")
    assert own
    assert own.origin
    if not any(map(is_writable, (Path(own.origin).parent / "util" / "__pycache__", user_cache().parent / "numba"))):
        os.environ.setdefault("NUMBA_CACHE_DIR", str(private_folder() / "numba"))


def onset_times(strength: Floats) -> Floats:
    """Seconds of the onsets: peaks of a strength (K,) that rise well above their surroundings.

    librosa's peak picking, with a maximum over 30 ms on both sides, so that onsets are not early.
    """
    if len(strength) < 3 or strength.max() <= 0:
        return np.zeros(0)
    import_librosa()
    from librosa.onset import onset_detect

    near = round(0.03 * COLUMNS)
    peaks = onset_detect(
        onset_envelope=strength, sr=RATE, hop_length=HOP, normalize=False, delta=LEAST * float(strength.max()),
        pre_max=near, post_max=near + 1, wait=near,
    )  # fmt: skip
    return _refined(strength, peaks) / COLUMNS


def track_beats(strength: Floats) -> tuple[float | None, Floats]:
    """Beats per minute, and the seconds of the beats; None and none where there is no pulse.

    The beats are the even chain that collects the most onset strength (D. Ellis, "Beat tracking by dynamic
    programming", 2007), and the tempo is that of the chain. `librosa.beat` does the same but finds beats in noise too,
    and compiles code for 2 s in every process, where this takes 0.2 s for a song of four minutes.
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
    """Columns from beat to beat, by librosa's tempo prior over the mean local autocorrelation; None without a pulse.

    The windows are taken one after another, so that memory does not grow with the track.
    """
    size, longest, shortest = (round(seconds * COLUMNS) for seconds in (WINDOW, 60 / SLOWEST, 60 / FASTEST))
    if len(strength) <= 2 * shortest or np.ptp(strength) == 0:
        return None
    import_librosa()
    from librosa import autocorrelate
    from librosa.feature import tempo

    total, weight = np.zeros(min(longest + 1, len(strength) // 2 + 1)), 0.0
    for start in range(0, max(1, len(strength) - size // 2), size // 2):
        window = strength[start : start + size]
        products = autocorrelate(window - window.mean(), max_size=len(total))
        if products[0] > 0:
            total[: len(products)] += products / products[0] * window.sum()
            weight += window.sum()
    likelihood = np.maximum(total, 0)[:, None]
    bpm = tempo(tg=likelihood, sr=RATE, hop_length=HOP, start_bpm=USUAL_TEMPO, max_tempo=FASTEST)
    best = round(60 * COLUMNS / float(bpm[0]))
    return float(_refined(total, np.array([best]))[0]) if total[best] > PULSE * weight else None


def _chain(strength: Floats, period: float) -> NDArray[np.int64]:
    """The columns of the most even chain through the strongest onsets, from the first clear one to the last."""
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
    columns = np.array(chain[::-1])
    strong = np.flatnonzero(score[columns] > 0.5 * np.sqrt(np.mean(score[columns] ** 2)))
    return columns[strong[0] : strong[-1] + 1] if len(strong) else columns[:0]


def _local_score(strength: Floats, period: float) -> Floats:
    """The strength, divided by its deviation and blurred a little against small unevenness."""
    from scipy.signal import fftconvolve

    reach = np.arange(-round(period), round(period) + 1)
    blur = np.exp(-0.5 * (reach * 32 / period) ** 2)
    return fftconvolve(strength / max(strength.std(), 1e-12), blur, mode="same")


def _refined(curve: Floats, peaks: NDArray[np.int64]) -> Floats:
    """The maxima of the parabolas through peaks and their neighbours, in columns."""
    inside = np.clip(peaks, 1, len(curve) - 2)
    before, top, after = curve[inside - 1], curve[inside], curve[inside + 1]
    bend = before - 2 * top + after
    shift = np.where(bend < 0, 0.5 * (before - after) / np.where(bend < 0, bend, 1), 0)
    return np.where(inside == peaks, peaks + np.clip(shift, -0.5, 0.5), peaks)


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
