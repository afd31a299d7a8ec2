"""How well the picture of a film follows its sound: visual change against onsets, compared with chance.

Two measures, each at a tolerance of one frame: the correlation of visual change with onset strength, and AV-Align, the
intersection over union of the peaks of visual change and the onsets (G. Yariv et al., "Diverse and Aligned
Audio-to-Video Generation via Text-to-Video Model Adaptation", 2023). Chance is what the same film reaches with the sound
shifted in time.

Visual change is the mean absolute difference of neighbouring frames. AV-Align is published with optical flow; that is
blind to a flash, and a zoom changes the picture as much as it moves it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wav2clip_gen import ffmpeg
from wav2clip_gen.errors import VideoError

Floats = NDArray[np.float64]

SIDE = 64  # pixels: frames are compared at this size
SHIFTS = 200  # of the sound, evenly spread over the film
NEAREST_SHIFT = 1.0  # seconds: nearer ones would still be in sync
LAGS = (-1, 0, 1)  # frames
SHORTEST = 8  # frames, for anything to be measured
PROMINENCE = 0.5  # of a peak of visual change, in standard deviations: noise has peaks everywhere
STILL = 1e-4  # standard deviation of visual change, as a share of full scale, below which a picture stands still


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A measure of a film, and what shifted sound reaches."""

    value: float | None  # None where the picture stands still, or there is no onset
    chance: float | None  # 95th percentile of the values of shifted sound
    chance_99: float | None  # 99th percentile


@dataclass(frozen=True, kw_only=True)
class Reactivity:
    """How well a picture follows its sound."""

    correlation: Measure  # of visual change and onset strength, -1 to 1
    alignment: Measure  # AV-Align, 0 to 1


def visual_change(path: Path) -> Floats:
    """Mean absolute difference of each frame of a film from the one before, (F,); 1 is from black to white.

    Frames are compared at `SIDE` pixels, in colour. The first frame has no change.

    Raises:
        VideoError: The film cannot be decoded.
    """
    size = SIDE * SIDE * 3
    scaled = ["-map", "0:v:0", "-fps_mode", "passthrough", "-vf", f"scale={SIDE}:{SIDE}:flags=area,format=rgb24"]
    command = ["-i", ffmpeg.file_url(path), *scaled, "-f", "rawvideo", "pipe:1"]
    changes, last = [0.0], None
    with ffmpeg.reading(command, purpose=f"decode {path}") as pipe:
        while len(content := pipe.read(size)) == size:
            frame = np.frombuffer(content, np.uint8).astype(np.int16)
            if last is not None:
                changes.append(float(np.abs(frame - last).mean()) / 255)
            last = frame
    if last is None:
        raise VideoError(f"{path} has no picture", hint="it is not a film")
    return np.array(changes)


def measure_reactivity(change: Floats, onset: Floats, onset_frames: NDArray[np.int64], fps: float) -> Reactivity:
    """Compare the visual change of a film with the onsets of its sound.

    Args:
        change: From `visual_change`, (F,).
        onset: Onset strength of each frame of the song, (F,).
        onset_frames: The frames that contain an onset.
        fps: Frames per second.
    """
    frames = min(len(change), len(onset))
    change, onset, onset_frames = change[:frames], onset[:frames], onset_frames[onset_frames < frames]
    if frames < SHORTEST or change[1:].std() < STILL:
        nothing = Measure(value=None, chance=None, chance_99=None)
        return Reactivity(correlation=nothing, alignment=nothing)
    peaks = find_peaks(change)
    return Reactivity(
        correlation=_against_chance(lambda shift: _correlation(change, np.roll(onset, shift)), frames, fps, onset.any()),
        alignment=_against_chance(
            lambda shift: alignment(peaks, (onset_frames + shift) % frames), frames, fps, len(onset_frames) > 0
        ),
    )


def find_peaks(change: Floats) -> NDArray[np.int64]:
    """The frames at a peak of visual change that stands out by `PROMINENCE`; AV-Align counts every local maximum."""
    import scipy.signal

    return np.asarray(scipy.signal.find_peaks(change, prominence=PROMINENCE * float(change.std()))[0], np.int64)


def alignment(peaks: NDArray[np.int64], onsets: NDArray[np.int64]) -> float:
    """AV-Align: onsets with a peak within one frame, over all onsets and peaks."""
    if not len(peaks) or not len(onsets):
        return 0.0
    places = np.searchsorted(peaks, onsets)
    near = [np.abs(peaks[np.clip(places + side, 0, len(peaks) - 1)] - onsets) for side in (-1, 0)]
    both = int((np.minimum(*near) <= max(LAGS)).sum())
    return both / (len(peaks) + len(onsets) - both)


def _correlation(change: Floats, onset: Floats) -> float:
    """The best correlation within `LAGS`; the first frame, which has no change, is left out."""
    found = []
    for lag in LAGS:
        shown = np.roll(change, -lag)[1 : len(change) - 1]
        strength = onset[1 : len(onset) - 1]
        power = shown.std() * strength.std()
        found.append(float(np.mean((shown - shown.mean()) * (strength - strength.mean())) / power) if power else 0.0)
    return max(found)


def _against_chance(measure: Callable[[int], float], frames: int, fps: float, possible: bool) -> Measure:
    """A measure without a shift, and the percentiles of it with `SHIFTS` shifts."""
    if not possible:
        return Measure(value=None, chance=None, chance_99=None)
    nearest = min(round(NEAREST_SHIFT * fps), frames // 3)
    shifts = np.unique(np.linspace(nearest, frames - nearest, SHIFTS).round().astype(int))
    shifted = [measure(shift) for shift in shifts.tolist()]
    chance, chance_99 = np.percentile(shifted, [95, 99]).tolist()
    return Measure(value=measure(0), chance=chance, chance_99=chance_99)
