"""Audio features -> one curve per setting: the value of each modulated setting at every frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from wav2clip_gen.audio.features import Features
from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.config import DESTINATIONS, MIX, PITCHES, AudioMap, Settings, View
from wav2clip_gen.synthesis.camera import Matrix, similarity_transform

Floats = NDArray[np.float64]

SMALLEST = 1e-6  # lower limit of a setting that must be above 0


@dataclass(frozen=True, eq=False)
class PromptWeight:
    """The weight of a prompt, modulated by maps, which prompts share: a film may have thousands of prompts."""

    weight: float
    changes: tuple[Floats, ...] = ()  # (F,) each, from maps

    def at(self, frames: slice) -> Floats:
        """The weights at some frames, (n,)."""
        curve = np.full(len(range(frames.stop)[frames]), float(self.weight))
        for change in self.changes:
            curve += change[frames]
        return _clip_to_range(curve, "prompt")


@dataclass(frozen=True, eq=False)
class ParameterCurves:
    """The settings that audio can modulate, at each frame; those without a map are constant."""

    curves: dict[str, Floats]  # (F,) of each destination but prompts
    prompts: tuple[PromptWeight, ...]
    fps: float
    aspect: float  # width / height of the picture

    def view(self, frame: int) -> View:
        """How the decoded frame is shown."""
        return View(**{item.name: float(self.curves[item.name.replace("_", "-")][frame]) for item in fields(View)})

    def steps(self, frame: int) -> int:
        """Optimiser steps of a frame after the first."""
        return round(float(self.curves["steps"][frame]))

    def camera_move(self, frame: int) -> Matrix:
        """The camera's move since the frame before: the speeds integrated over one frame."""
        zoom, *others = (
            float(self.curves[name][frame]) for name in ("zoom-speed", "pan-x-speed", "pan-y-speed", "rotate-speed")
        )
        first = frame == 0
        pan_x, pan_y, rotate = (0.0 if first else speed / self.fps for speed in others)
        scale = 1 if first else (1 + zoom) ** (1 / self.fps)
        return similarity_transform(scale, pan_x, pan_y, rotate, aspect=self.aspect)


def modulate(settings: Settings, features: Mapping[str, Features], timeline: Timeline) -> ParameterCurves:
    """Apply the settings' audio maps.

    Args:
        settings: Base values and maps.
        features: By source name, for each source that a map names.
        timeline: Times of frames.
    """
    changes = [(one, _change(one, features[one.stem or MIX], timeline)) for one in settings.maps]

    def curve_of(destination: str, value: float) -> Floats:
        curve = np.full(timeline.frames, float(value))
        for one, change in changes:
            if one.to == destination:
                curve += change
        return _clip_to_range(curve, destination)

    return ParameterCurves(
        {name: curve_of(name, _base_value(settings, name)) for name in DESTINATIONS if name != "prompt"},
        tuple(
            PromptWeight(
                prompt.weight, tuple(change for one, change in changes if one.to == "prompt" or one.prompt == number)
            )
            for number, prompt in enumerate(settings.prompts, 1)
        ),
        float(timeline.fps),
        settings.picture.width / settings.picture.height,
    )


def _base_value(settings: Settings, destination: str) -> float:
    """The value of a setting that no map modulates."""
    group, name = DESTINATIONS[destination]
    holders = (settings.painting, settings.motion, View())
    return float(getattr(next(holder for holder in holders if isinstance(holder, group)), name))


def _clip_to_range(curve: Floats, destination: str) -> Floats:
    """Clip a curve to the range of its setting."""
    group, name = DESTINATIONS[destination]
    allowed = next(item.metadata for item in fields(group) if item.name == name)
    lowest = SMALLEST if allowed["above"] is not None else allowed["minimum"]
    return np.clip(curve, lowest, allowed["maximum"])


def _change(one: AudioMap, features: Features, timeline: Timeline) -> Floats:
    """What a map adds to its setting at each frame, (F,)."""
    curve = feature_curve(features, one.feature, timeline)
    return one.scale * envelope_follower(curve, float(timeline.fps), attack=one.attack, decay=one.decay) + one.offset


def feature_curve(features: Features, name: str, timeline: Timeline) -> Floats:
    """A feature by its name, (F,) in [0, 1]; onsets and beats are 1 in the frame that contains one."""
    if name in ("onsets", "beats"):
        times = features.onsets if name == "onsets" else features.beats
        pulses = np.zeros(timeline.frames)
        pulses[np.searchsorted(timeline.frame_times(), times, side="right") - 1] = 1
        return pulses
    return features.chroma[:, PITCHES.index(name)] if name in PITCHES else features.curves[name].values


def envelope_follower(curve: Floats, fps: float, *, attack: float = 0.0, decay: float = 0.0) -> Floats:
    """Follow a curve (F,) with separate time constants for rise and fall; independent of the frame rate.

    Args:
        curve: The input.
        fps: Frames per second.
        attack: Half-life in seconds of the distance to a higher value; 0: immediate.
        decay: Half-life in seconds of the distance to a lower value; 0: immediate.
    """
    if not attack and not decay:
        return curve
    rise, fall = (2 ** (-1 / (fps * half_life)) if half_life else 0.0 for half_life in (attack, decay))
    envelope = np.empty_like(curve)
    value = float(curve[0])
    for frame, target in enumerate(curve.tolist()):
        value = target + (value - target) * (rise if target > value else fall)
        envelope[frame] = value
    return envelope
