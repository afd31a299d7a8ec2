"""What is minimised, as pure functions named as in the papers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def spherical_distance(a: Tensor, b: Tensor) -> Tensor:
    """Squared spherical distance between unit vectors (..., D) -> (...), from 0 (same) to pi^2 / 2 (opposite).

    `2 asin(|a - b| / 2)^2`, the prompt loss of VQGAN-CLIP (arXiv 2204.08583, section 3).
    """
    chord = torch.linalg.vector_norm(a - b, dim=-1)
    # At opposite poles the slope of asin is infinite, at equal ones that of the norm is: both are kept finite.
    return 2 * (chord / 2).clamp(1e-6, 1 - 1e-6).arcsin().square()


def reading_distance(reading: Tensor, shares: Tensor) -> Tensor:
    """Cross-entropy, in nats, between log shares of concepts (..., K) and those wanted (K,) -> (...)."""
    return -(shares * reading).sum(dim=-1)


def layout_distance(picture: Tensor, layout: Tensor) -> Tensor:
    """Mean square difference between a picture (1, 3, H, W) and a layout (1, 3, s, s), cell by cell."""
    return (F.interpolate(picture, size=layout.shape[-2:], mode="area") - layout).square().mean()


def drift(latent: Tensor, before: Tensor, spread: Tensor) -> Tensor:
    """Mean square distance of a latent (1, D, h, w) from an earlier one, in units of the codes' spread (1, D, 1, 1)."""
    return ((latent - before) / spread).square().mean()


def total_variation(picture: Tensor) -> Tensor:
    """Mean square difference of neighbouring pixels of a picture (1, 3, H, W), summed over both directions.

    Mahendran & Vedaldi, arXiv 1412.0035, equation 5, with beta 2.
    """
    return picture.diff(dim=-1).square().mean() + picture.diff(dim=-2).square().mean()
