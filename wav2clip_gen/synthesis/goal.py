"""What one frame is to show: the target itself, or what the family's prior reads in it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wav2clip_gen.models.registry import Models
from wav2clip_gen.settings import Painting
from wav2clip_gen.synthesis.losses import reading_distance, spherical_distance


@dataclass(frozen=True, eq=False)
class Goal:
    """What one frame is to show."""

    target: Tensor  # (D,) unit vector: as given, or in the words of the prior
    shares: Tensor | None = None  # (K,) of the prior's concepts in it
    layout: Tensor | None = None  # (1, 3, s, s), the colours that the prior expects


@torch.no_grad()
def set_goal(target: Tensor, family: Models, painting: Painting) -> Goal:
    """Ask the prior, where there is one and it is used, what a target (D,) means."""
    prior = family.prior
    if prior is None or not (painting.recognition or painting.layout):
        return Goal(target)
    shares = prior.concept_log_probs(target, family.clip.scale).exp()
    layout = prior.color_layout(shares) if painting.layout else None
    if not painting.recognition:
        return Goal(target, layout=layout)
    return Goal(prior.embed_concepts(shares), shares, layout)


def mismatch(seen: Tensor, goal: Goal, family: Models, painting: Painting) -> Tensor:
    """How far what is seen in views (b, D) is from the goal: (b,)."""
    distance = spherical_distance(seen, goal.target)
    if goal.shares is None or family.prior is None:
        return distance
    scale = family.clip.scale
    # divided by the scale a nat's slope is that of a cosine, whatever the perceptor
    return distance + painting.recognition / scale * reading_distance(
        family.prior.concept_log_probs(seen, scale), goal.shares
    )
