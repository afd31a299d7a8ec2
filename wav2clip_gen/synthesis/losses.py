"""The losses of the latent optimisation, as pure functions, and the target they are measured against."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wav2clip_gen.config import PaintingSettings
from wav2clip_gen.models.clip import ConceptPrior, mix_layouts
from wav2clip_gen.models.registry import Models


@dataclass(frozen=True, eq=False)
class Target:
    """What one frame is optimised towards."""

    embedding: Tensor  # (D,) unit vector; with a concept prior, the mean text embedding of its concepts
    concept_probs: Tensor | None = None  # (K,) distribution over the prior's concepts
    color_layout: Tensor | None = None  # (1, 3, s, s) in [0, 1]


@torch.no_grad()
def resolve_target(
    embedding: Tensor, models: Models, painting: PaintingSettings, layouts: Tensor | None = None
) -> Target:
    """Turn a conditioning vector (D,) into a target; with a concept prior, through the concepts it is classified as.

    An audio embedding is far from every image embedding (the modality gap, arXiv 2203.02053) but nearest to the right
    text embeddings, so it is classified and the concepts become the target; with their `layouts` (K, 3, s, s), so do
    the colors.
    """
    prior = models.prior
    if prior is None or not (painting.concept_weight or painting.layout_weight):
        return Target(embedding)
    probs = prior.concept_log_probs(embedding, models.clip.scale).exp()
    layout = mix_layouts(layouts, probs) if layouts is not None and painting.layout_weight else None
    if not painting.concept_weight:
        return Target(embedding, color_layout=layout)
    return Target(prior.embed_concepts(probs), probs, layout)


def guidance_loss(
    seen: Tensor, target: Target, *, prior: ConceptPrior | None, scale: Tensor, concept_weight: float
) -> Tensor:
    """Loss of cutout embeddings (B, D) against a target: (B,).

    Args:
        seen: Unit vectors.
        target: From `resolve_target`.
        prior: The family's concept prior, if it has one.
        scale: CLIP's inverse temperature.
        concept_weight: Weight of the concepts' cross-entropy.
    """
    distance = spherical_distance(seen, target.embedding)
    if target.concept_probs is None or prior is None:
        return distance
    # Divided by the scale, so that the gradient of one nat is that of one unit of cosine for every perceptor.
    cross_entropy = concept_cross_entropy(prior.concept_log_probs(seen, scale), target.concept_probs)
    return distance + concept_weight / scale * cross_entropy


def spherical_distance(a: Tensor, b: Tensor) -> Tensor:
    """Squared spherical distance between unit vectors (..., D) -> (...), from 0 (equal) to pi^2 / 2 (opposite).

    `2 asin(|a - b| / 2)^2`, the prompt loss of VQGAN-CLIP (arXiv 2204.08583, section 3).
    """
    chord = torch.linalg.vector_norm(a - b, dim=-1)
    # The slope of asin is infinite at opposite poles, that of the norm at equal vectors: both are clamped.
    return 2 * (chord / 2).clamp(1e-6, 1 - 1e-6).arcsin().square()


def concept_cross_entropy(log_probs: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy in nats between log probabilities (..., K) and a target distribution (K,) -> (...)."""
    return -(target * log_probs).sum(dim=-1)


def layout_loss(picture: Tensor, layout: Tensor) -> Tensor:
    """Mean square difference between a picture (1, 3, H, W), averaged over cells, and a layout (1, 3, s, s)."""
    return (F.interpolate(picture, size=layout.shape[-2:], mode="area") - layout).square().mean()


def temporal_loss(latent: Tensor, previous: Tensor, spread: Tensor) -> Tensor:
    """Mean square distance between latents (1, C, h, w), in units of the codebook's deviation (1, C, 1, 1)."""
    return ((latent - previous) / spread).square().mean()


def total_variation(picture: Tensor) -> Tensor:
    """Mean square difference of neighbouring pixels of a picture (1, 3, H, W), summed over both directions.

    Mahendran & Vedaldi, arXiv 1412.0035, equation 5, with beta 2.
    """
    return picture.diff(dim=-1).square().mean() + picture.diff(dim=-2).square().mean()
