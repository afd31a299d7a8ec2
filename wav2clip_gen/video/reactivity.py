"""How well the picture of a film follows its sound: visual change against onsets, compared with chance.

Two measures, each at a tolerance of one frame: the correlation of visual change with onset strength, and AV-Align, the
intersection over union of the peaks of visual change and the onsets (G. Yariv et al., "Diverse and Aligned
Audio-to-Video Generation via Text-to-Video Model Adaptation", 2023).

Visual change is the mean absolute difference of neighbouring frames. AV-Align is published with optical flow; OpenCV's
(Farneback) misses flashes in a picture that drifts (correlation 0.13, against 0.86 by differences), and differences see
pulses of zoom and pan as well as flow does (0.82 against 0.86, and 0.86 against 0.87).

Chance is what the film reaches with its sound shifted in time. Besides the shift of the whole, each second is shifted
by up to a second of its own: a steady beat that is shifted by whole beats is in sync again, and chance would be as good
as any film (0.87 of 0.87 for flashes at 120 beats per minute).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wav2clip_gen import ffmpeg
from wav2clip_gen.errors import VideoError

if TYPE_CHECKING:
    from wav2clip_gen.audio.features import Features

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

SIDE = 64  # pixels: frames are compared at this size
SHIFTS = 200  # of the sound, evenly spread over the film
NEAREST_SHIFT = 2.0  # seconds: nearer ones would still be in sync
PIECE = 1.0  # seconds that are shifted together, by up to as much of their own in either direction
LAGS = (-1, 0, 1)  # frames
SHORTEST = 8  # frames, for anything to be measured
PROMINENCE = 0.5  # of a peak of visual change, in standard deviations: noise has peaks everywhere
STEADY = 1e-4  # standard deviation of visual change, as a share of full scale, below which nothing can follow it
STILL = 5e-4  # mean of it below which a picture stands still, but for where chunks begin; calm films have 7e-3


@dataclass(frozen=True, eq=False)
class Onsets:
    """The onsets of a sound, frame by frame."""

    strength: Floats  # (F,)
    frames: Indices  # (n,) that contain an onset, ascending

    @classmethod
    def of(cls, features: Features, fps: Fraction) -> Onsets:
        """Those of a measured track; nothing else of its features is kept."""
        strength = features.curves["onset"].values.copy()
        frames = np.unique(np.floor(features.onsets * float(fps)).astype(np.int64))
        return cls(strength, frames[frames < len(strength)])


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A measure of a film, and what shifted sound reaches; None where that cannot be measured."""

    value: float | None = None
    chance: float | None = None  # 95th percentile of the values of shifted sound
    chance_99: float | None = None  # 99th percentile


@dataclass(frozen=True, kw_only=True)
class Reactivity:
    """How well a picture follows its sound."""

    correlation: Measure  # of visual change and onset strength, -1 to 1
    alignment: Measure  # AV-Align, 0 to 1
    reason: str | None = None  # why nothing can be measured

    def __str__(self) -> str:
        """The correlation in words."""
        value, chance = self.correlation.value, self.correlation.chance
        if value is None or chance is None:
            return f"cannot be measured: {self.reason}"
        return f"{value:.2f}, by chance {chance:.2f}"


def visual_change(path: Path, *, fps: Fraction | None = None) -> Floats:
    """Mean absolute difference of each frame of a film from the one before, (F,); 1 is from black to white.

    Frames are compared at `SIDE` pixels, in colour. The first frame has no change.

    Args:
        path: The film.
        fps: Frames per second, for films whose frames are shown for different times; as they are stored by default.

    Raises:
        VideoError: The film cannot be decoded.
    """
    size = SIDE * SIDE * 3
    filters = f"{f'fps={fps},' if fps else ''}scale={SIDE}:{SIDE}:flags=area,format=rgb24"
    output = ["-map", "0:v:0", "-fps_mode", "passthrough", "-vf", filters, "-f", "rawvideo", "pipe:1"]
    changes, last = [0.0], None
    with ffmpeg.reading(["-i", ffmpeg.file_url(path), *output], purpose=f"decode {path}") as pipe:
        while len(content := pipe.read(size)) == size:
            frame = np.frombuffer(content, np.uint8).astype(np.int16)
            if last is not None:
                changes.append(float(np.abs(frame - last).mean()) / 255)
            last = frame
    if last is None:
        raise VideoError(f"{path} has no picture", hint="it is not a film")
    return np.array(changes)


def measure_reactivity(change: Floats, onsets: Onsets, fps: Fraction) -> Reactivity:
    """Compare the visual change of a film with the onsets of its sound, as far as there are both.

    Args:
        change: From `visual_change`, (F,).
        onsets: Of the sound.
        fps: Frames per second.
    """
    frames = min(len(change), len(onsets.strength))
    change, strength, has_onset = change[:frames], onsets.strength[:frames], np.zeros(frames, np.bool_)
    has_onset[onsets.frames[onsets.frames < frames]] = True
    if reason := _reason(change, has_onset):
        return Reactivity(correlation=Measure(), alignment=Measure(), reason=reason)
    shifted, peaks = _shifted_frames(frames, fps), find_peaks(change)
    return Reactivity(
        correlation=_against_chance(lambda places: correlation(change, strength[places]), shifted),
        alignment=_against_chance(lambda places: alignment(peaks, np.flatnonzero(has_onset[places])), shifted),
    )


def _reason(change: Floats, has_onset: NDArray[np.bool_]) -> str | None:
    """Why nothing can be measured, if that is so."""
    if len(change) < SHORTEST:
        return f"the film is shorter than {SHORTEST} frames"
    if change[1:].std() < STEADY or change[1:].mean() < STILL:
        return "the picture stands still"
    if not has_onset[1:].any():  # the first frame has no change
        return "the sound has no onsets"
    return None


def _shifted_frames(frames: int, fps: Fraction) -> list[Indices]:
    """Frames at which the sound is taken instead of each (F,): as they are, then shifted; the same at every call."""
    places, generator = np.arange(frames), np.random.default_rng(0)
    piece, nearest = (round(seconds * fps) or 1 for seconds in (PIECE, NEAREST_SHIFT))
    nearest = min(nearest, frames // 3)
    pieces = places // piece
    own = generator.integers(-piece, piece, (SHIFTS, int(pieces[-1]) + 1), endpoint=True)
    shifts = np.linspace(nearest, frames - nearest, SHIFTS).round().astype(np.int64)
    return [places, *((places - shift - one[pieces]) % frames for shift, one in zip(shifts, own, strict=True))]


def _against_chance(measure: Callable[[Indices], float], shifted: list[Indices]) -> Measure:
    """A measure at the sound's own frames, which come first, and the percentiles of it at shifted ones."""
    value, *others = map(measure, shifted)
    chance, chance_99 = np.percentile(others, [95, 99]).tolist()
    return Measure(value=value, chance=chance, chance_99=chance_99)


def correlation(change: Floats, strength: Floats) -> float:
    """The best correlation of visual change and onset strength, (F,) each, within `LAGS`; 0 where one is constant."""
    reach = max(LAGS)
    first, stop = 1 + reach, len(change) - reach  # the first frame has no change
    wanted = strength[first:stop] - strength[first:stop].mean()
    found = []
    for lag in LAGS:
        shown = change[first + lag : stop + lag]
        power = float(np.linalg.norm(wanted) * np.linalg.norm(shown - shown.mean()))
        found.append(float(wanted @ shown) / power if power else 0.0)
    return max(found)


def find_peaks(change: Floats) -> Indices:
    """The frames at a peak of visual change that stands out by `PROMINENCE`; AV-Align counts every local maximum."""
    import scipy.signal

    return np.asarray(scipy.signal.find_peaks(change, prominence=PROMINENCE * float(change.std()))[0], np.int64)


def alignment(peaks: Indices, onsets: Indices) -> float:
    """AV-Align: pairs of an onset and a peak within `LAGS`, over all onsets and peaks, both ascending.

    Each belongs to one pair at most; the published code counts a peak for each onset near it, and can exceed 1.
    """
    some, others, both = peaks.tolist(), onsets.tolist(), 0
    while some and others:
        gap = some[-1] - others[-1]
        both += gap in LAGS
        if gap >= min(LAGS):
            some.pop()
        if gap <= max(LAGS):
            others.pop()
    return both / max(len(peaks) + len(onsets) - both, 1)
