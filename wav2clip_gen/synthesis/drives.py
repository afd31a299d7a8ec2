"""What the sound's features make of the settings, frame by frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from wav2clip_gen.audio.features import Features
from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.settings import DESTINATIONS, PITCHES, Drive, Settings, View
from wav2clip_gen.synthesis.motion import Matrix, placement

Floats = NDArray[np.float64]

SMALLEST = 1e-6  # what a setting that must be above 0 is at least


@dataclass(frozen=True, eq=False)
class Drives:
    """The settings that a sound can drive, at each frame; those that nothing drives keep their value."""

    curves: dict[str, Floats]  # (F,) of each destination but prompts
    prompts: Floats  # (P, F) weights
    fps: float
    aspect: float  # width / height of the picture

    def view(self, frame: int) -> View:
        """How the picture is seen."""
        return View(**{item.name: float(self.curves[item.name.replace("_", "-")][frame]) for item in fields(View)})

    def steps(self, frame: int) -> int:
        """How many steps a frame after the first takes."""
        return round(float(self.curves["steps"][frame]))

    @property
    def mean_steps(self) -> float:
        """How many steps such a frame takes on average."""
        return float(np.rint(self.curves["steps"]).mean())

    def way(self, frame: int) -> Matrix:
        """How the picture goes on from the frame before; each speed is a part of a second's way."""
        zoom, *others = (
            float(self.curves[name][frame]) for name in ("zoom-speed", "pan-x-speed", "pan-y-speed", "rotate-speed")
        )
        still = frame == 0
        pan_x, pan_y, rotate = (0.0 if still else speed / self.fps for speed in others)
        return placement(1 if still else (1 + zoom) ** (1 / self.fps), pan_x, pan_y, rotate, aspect=self.aspect)


def follow_maps(settings: Settings, features: Mapping[str | None, Features], timeline: Timeline) -> Drives:
    """Follow the features that drive a setting.

    Args:
        settings: The settings, and what drives them.
        features: Of the stems that are needed, and of the song, None.
        timeline: Where frames lie.
    """
    changes = [(one, _change(one, features[one.stem], timeline)) for one in settings.maps]

    def driven(destination: str, value: float, number: int = 0) -> Floats:
        curve = np.full(timeline.frames, float(value))
        for one, change in changes:
            if one.to == destination or (number and one.prompt == number):
                curve += change
        return _within(curve, destination)

    prompts = [driven("prompt", prompt.weight, number) for number, prompt in enumerate(settings.prompts, 1)]
    return Drives(
        {name: driven(name, _value(settings, name)) for name in DESTINATIONS if name != "prompt"},
        np.reshape(prompts, (len(prompts), timeline.frames)),
        float(timeline.fps),
        settings.picture.width / settings.picture.height,
    )


def _value(settings: Settings, destination: str) -> float:
    """What a setting is while nothing drives it."""
    group, name = DESTINATIONS[destination]
    holder = View() if group is View else getattr(settings, group.__name__.lower())
    return float(getattr(holder, name))


def _within(curve: Floats, destination: str) -> Floats:
    """Keep a curve within its knob's range."""
    group, name = DESTINATIONS[destination]
    allowed = next(item.metadata for item in fields(group) if item.name == name)
    lowest = SMALLEST if allowed["above"] is not None else allowed["minimum"]
    return np.clip(curve, lowest, allowed["maximum"])


def _change(one: Drive, features: Features, timeline: Timeline) -> Floats:
    """What is added to a setting at each frame, (F,)."""
    heard = feature_curve(features, one.feature, timeline)
    return one.scale * follow(heard, float(timeline.fps), attack=one.attack, decay=one.decay) + one.offset


def feature_curve(features: Features, name: str, timeline: Timeline) -> Floats:
    """A feature by its name, (F,) in [0, 1]; onsets and beats are 1 in the frame into which one falls."""
    if name in ("onsets", "beats"):
        moments = features.onsets if name == "onsets" else features.beats
        pulses = np.zeros(timeline.frames)
        pulses[np.searchsorted(timeline.frame_times(), moments, side="right") - 1] = 1
        return pulses
    return features.chroma[:, PITCHES.index(name)] if name in PITCHES else features.curves[name].values


def follow(curve: Floats, fps: float, *, attack: float = 0.0, decay: float = 0.0) -> Floats:
    """Follow a curve (F,) from frame to frame, slower upwards or downwards; at any rate, at the same speed.

    Args:
        curve: What is followed.
        fps: Frames per second.
        attack: Half-life in seconds of the distance to a value above; 0: at once.
        decay: Half-life in seconds of the distance to a value below; 0: at once.
    """
    if not attack and not decay:
        return curve
    rise, fall = (2 ** (-1 / (fps * half_life)) if half_life else 0.0 for half_life in (attack, decay))
    followed = np.empty_like(curve)
    value = float(curve[0])
    for frame, heard in enumerate(curve.tolist()):
        value = heard + (value - heard) * (rise if heard > value else fall)
        followed[frame] = value
    return followed
