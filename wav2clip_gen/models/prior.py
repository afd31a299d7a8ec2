"""What a family expects pictures of a concept to look like: the concepts' text embeddings and their color layouts.

A sound's embedding is far from that of every picture and text (the modality gap, arXiv 2203.02053), but nearest to
those of the right texts. So it is not the target itself: it is classified among concepts, as CLIP classifies pictures,
and those concepts are the target.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConceptPrior(nn.Module):
    """Concepts that an image tower was trained on, and the mean color layout of the pictures of each."""

    def __init__(self, *, concepts: tuple[str, ...], embedding: int = 512, side: int = 16) -> None:
        """Build an empty one.

        Args:
            concepts: Their K names.
            embedding: D, dimensions of CLIP's space.
            side: Cells of a layout along each side.
        """
        super().__init__()
        self.concepts = concepts
        self.words = nn.Parameter(torch.zeros(len(concepts), embedding))  # (K, D) unit vectors of their texts
        self.layouts = nn.Parameter(torch.zeros(len(concepts), 3, side, side))  # about [0, 1]

    def concept_log_probs(self, points: Tensor, scale: Tensor) -> Tensor:
        """Log-probabilities (..., K) of the concepts at unit vectors (..., D).

        Zero-shot classification as in CLIP (arXiv 2103.00020, section 3.1); `scale` is its inverse temperature.
        """
        return (scale * points @ self.words.T).log_softmax(dim=-1)

    def embed_concepts(self, probs: Tensor) -> Tensor:
        """The unit vector (D,) of a mixture of concepts (K,) in text space."""
        return F.normalize(probs @ self.words, dim=-1)

    def color_layout(self, probs: Tensor) -> Tensor:
        """The colors (1, 3, side, side) in [0, 1] of a mixture of concepts (K,)."""
        return torch.einsum("k, k c h w -> c h w", probs, self.layouts).clamp(0, 1).unsqueeze(0)
