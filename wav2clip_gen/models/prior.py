"""What a family expects pictures of a concept to look like: its concepts' words, and how their colours lie.

A sound's embedding lies far from every picture's and every word's (the modality gap, arXiv 2203.02053), but nearest to
the right words. So it is not aimed at; it is read as CLIP reads pictures, among concepts, and those are painted.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConceptPrior(nn.Module):
    """Concepts that an image tower was taught, and the mean layout of colours that it means by each."""

    def __init__(self, *, concepts: tuple[str, ...], embedding: int = 512, side: int = 16) -> None:
        """Build an empty one.

        Args:
            concepts: Their K names.
            embedding: D, dimensions of CLIP's space.
            side: Cells of a layout along each side.
        """
        super().__init__()
        self.concepts = concepts
        self.words = nn.Parameter(torch.zeros(len(concepts), embedding))  # (K, D) unit vectors
        self.layouts = nn.Parameter(torch.zeros(len(concepts), 3, side, side))  # about [0, 1]

    def concept_log_probs(self, points: Tensor, scale: Tensor) -> Tensor:
        """How much of each concept there is at unit vectors (..., D): logarithms (..., K) of shares that sum to 1.

        As CLIP classifies without training (arXiv 2103.00020, section 3.1); `scale` is its inverse temperature.
        """
        return (scale * points @ self.words.T).log_softmax(dim=-1)

    def embed_concepts(self, shares: Tensor) -> Tensor:
        """The unit vector (D,) of a mixture of concepts (K,) in words."""
        return F.normalize(shares @ self.words, dim=-1)

    def color_layout(self, shares: Tensor) -> Tensor:
        """The colours (1, 3, side, side) in [0, 1] of a mixture of concepts (K,)."""
        return torch.einsum("k, k c h w -> c h w", shares, self.layouts).clamp(0, 1).unsqueeze(0)
