"""What one frame is to show: the target itself, or what the family's prior reads in it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wav2clip_gen.config import PaintingSettings
from wav2clip_gen.models.families import Family
from wav2clip_gen.synthesis.losses import reading_distance, spherical_distance


@dataclass(frozen=True, eq=False)
class Goal:
    """What one frame is to show."""

    target: Tensor  # (D,) unit vector: as given, or in the words of the prior
    shares: Tensor | None = None  # (K,) of the prior's concepts in it
    layout: Tensor | None = None  # (1, 3, s, s), the colours that the prior expects


@torch.no_grad()
def set_goal(target: Tensor, family: Family, painting: PaintingSettings) -> Goal:
    """Ask the prior, where there is one and it is used, what a target (D,) means."""
    prior = family.prior
    if prior is None or not (painting.concept_weight or painting.layout_weight):
        return Goal(target)
    shares = prior.read(target, family.clip.scale).exp()
    layout = prior.layout(shares) if painting.layout_weight else None
    if not painting.concept_weight:
        return Goal(target, layout=layout)
    return Goal(prior.words_for(shares), shares, layout)


def mismatch(seen: Tensor, goal: Goal, family: Family, painting: PaintingSettings) -> Tensor:
    """How far what is seen in views (b, D) is from the goal: (b,)."""
    distance = spherical_distance(seen, goal.target)
    if goal.shares is None or family.prior is None:
        return distance
    scale = family.clip.scale
    # divided by the scale a nat's slope is that of a cosine, whatever the perceptor
    return distance + painting.concept_weight / scale * reading_distance(family.prior.read(seen, scale), goal.shares)
