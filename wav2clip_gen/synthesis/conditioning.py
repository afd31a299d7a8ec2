"""From what is heard (and said) to one point of CLIP's space for each frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wav2clip_gen.audio.smoothing import zero_phase_smooth
from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.errors import SettingsError


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Where each frame of the film should land in CLIP's space."""

    targets: Tensor  # (F, D) unit vectors
    loudness: Tensor  # (F,) in [0, 1]
    fps: float  # frames per second
    silent: tuple[str, ...] = ()  # stems that are silent from start to end

    def __len__(self) -> int:
        return self.targets.shape[0]


def build_trajectory(
    heard: Tensor | None,
    loudness: np.ndarray,
    timeline: Timeline,
    *,
    half_life: float | np.ndarray,
    sound_weight: float = 1.0,
    prompts: Tensor | None = None,
    pulls: Tensor | None = None,
) -> Trajectory:
    """Smooth what is heard in each frame, and mix in the prompts.

    Args:
        heard: (F, D), written over; 0 where nothing is heard; None where prompts alone steer.
        loudness: (F,) in [0, 1]; a silent frame has little say in what its neighbours become.
        timeline: Times of frames.
        half_life: Of the smoothing, in seconds; one, or each frame's (F,).
        sound_weight: The sound's pull.
        prompts: (P, D) unit vectors of the prompts.
        pulls: (P, F), how much each pulls at each frame; less than 0: away.

    Raises:
        SettingsError: Nothing pulls in any frame.
    """
    energy = torch.as_tensor(loudness, dtype=torch.float32).clamp(0, 1)
    if heard is not None:
        _hold_over_gaps_(heard)
        _normalise_(heard)
        targets = smooth(heard, half_life * float(timeline.fps), weights=say(energy))
        _normalise_(targets)
    if prompts is not None and pulls is not None:
        said = pulls.to(prompts).T @ prompts  # (F, D)
        targets = said if heard is None else targets.mul_(sound_weight).add_(said)
        _hold_over_gaps_(targets)
        _normalise_(targets)
    return Trajectory(targets, energy, float(timeline.fps))


def say(loudness: Tensor) -> Tensor:
    """What weight frames of this loudness (F,) in [0, 1] have beside others: silent ones little, but some."""
    return 0.05 + 0.95 * loudness


def mean_target(trajectory: Trajectory, frames: slice) -> Tensor:
    """The mean direction (D,) of some frames' targets, in which the loud ones have more say."""
    targets = trajectory.targets[frames]
    mean = say(trajectory.loudness[frames]) @ targets
    length = torch.linalg.vector_norm(mean)
    return mean / length if length > 1e-4 else targets[0]


def hold_scenes(trajectory: Trajectory, scenes: Sequence[slice], *, crossfade: float) -> Trajectory:
    """Aim at one target in each scene, the mean of its own, and cross over where the next begins.

    Args:
        trajectory: Whose targets are held.
        scenes: Spans of frames, one after the other, that cover all of them.
        crossfade: Over how many seconds.
    """
    times = np.arange(len(trajectory)) / trajectory.fps
    starts = [scene.start / trajectory.fps for scene in scenes]
    targets = torch.zeros_like(trajectory.targets)
    for scene, start, end in zip(scenes, starts, [*starts[1:], None], strict=True):
        share = pull_curve(1.0, times, start=start, end=end, crossfade=crossfade)
        targets += share.unsqueeze(1) * mean_target(trajectory, scene)
    _normalise_(targets)
    return replace(trajectory, targets=targets)


def pull_curve(
    weight: float | np.ndarray, times: np.ndarray, *, start: float | None, end: float | None, crossfade: float
) -> Tensor:
    """How much words pull at times (F,), in seconds: their weight, or weights (F,), from `start` to `end`, else 0.

    They come and go along straight lines of `crossfade` seconds round both ends, so that words which begin where others
    cease take over from them with the sum of both unchanged.
    """

    def share(distance: np.ndarray) -> np.ndarray:
        return np.clip(distance / crossfade + 0.5, 0, 1) if crossfade else (distance >= 0).astype(float)

    curve = np.full(len(times), weight, dtype=float)
    if start:
        curve *= share(times - start)
    if end is not None:
        curve *= 1 - share(times - end)
    return torch.as_tensor(curve, dtype=torch.float32)


def _hold_over_gaps_(targets: Tensor) -> None:
    """Where nothing pulls, aim where something pulled last, or will first, in place."""
    steered = torch.linalg.vector_norm(targets, dim=-1) > 1e-4
    places = steered.nonzero().flatten()
    if len(places) == 0:
        raise SettingsError(
            "nothing steers the picture at any time", hint="give words that fall into the film, or the sound a weight"
        )
    last = torch.bucketize((~steered).nonzero().flatten(), places) - 1
    targets[~steered] = targets[places[last.clamp(min=0)]]


def _normalise_(vectors: Tensor) -> None:
    """Give the rows of (N, D) length 1, in place: a long film has many."""
    vectors.div_(torch.linalg.vector_norm(vectors, dim=-1, keepdim=True).clamp(min=1e-12))


def at_times(embeddings: Tensor, positions: np.ndarray) -> Tensor:
    """Read unit vectors (W, D) at fractional positions (F,) in [0, W - 1] by spherical interpolation."""
    last = embeddings.shape[0] - 1
    places = np.clip(positions, 0, last)
    low = np.minimum(places.astype(np.int64), max(last - 1, 0))
    share = torch.as_tensor(places - low, dtype=embeddings.dtype).unsqueeze(1)  # (F, 1)
    first = torch.as_tensor(low)
    read = embeddings.new_empty(len(places), embeddings.shape[1])
    for rows in torch.arange(len(places)).split(1024):  # slerp needs many times what it gives
        read[rows] = slerp(embeddings[first[rows]], embeddings[(first[rows] + 1).clamp(max=last)], share[rows])
    return read


def slerp(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """Go `share` (..., 1) in [0, 1] of the way along the great circle from unit vectors a to b (..., D).

    Shoemake, "Animating rotation with quaternion curves", 1985. Where a and b (nearly) coincide or oppose each
    other the circle is not defined, and the normalised straight line is taken.
    """
    angle = (a * b).sum(dim=-1, keepdim=True).clamp(-1, 1).arccos()
    sine = angle.sin()
    straight = F.normalize(torch.lerp(a, b, share), dim=-1)
    safe = torch.where(sine < 1e-4, torch.ones_like(sine), sine)
    arc = (((1 - share) * angle).sin() * a + (share * angle).sin() * b) / safe
    return torch.where(sine < 1e-4, straight, arc)


def smooth(values: Tensor, half_life: float | np.ndarray, *, weights: Tensor) -> Tensor:
    """Average each row of values (F, D) with its neighbours before and after: the picture does not lag.

    A row `n` rows away counts `2^(-n / half_life)` times its weight (F,); see `audio.smoothing.zero_phase_smooth`.
    """
    if not np.any(half_life) or values.shape[0] == 1:
        return values
    result, trust = torch.empty_like(values), weights.double().numpy()
    for columns in torch.arange(values.shape[1]).split(64):  # float64 for a few columns at a time
        part = zero_phase_smooth(values[:, columns].double().numpy(), half_life, trust)
        result[:, columns] = torch.from_numpy(part).to(values.dtype)
    return result
