"""Camera motion between frames, in normalised coordinates (-1 to 1 along both axes).

Quantisation maps a picture that moved by less than a pixel back to the codes it had, so re-encoding a small move at
every frame would not move it at all. Here the latent stays on its grid while a camera offset accumulates and is applied
to the decoded picture; only when the offset reaches half a latent cell is the picture warped and encoded again.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from wav2clip_gen.config import View
from wav2clip_gen.synthesis.cutouts import adjust_saturation, projective_grid

Matrix = NDArray[np.float64]  # (3, 3) homogeneous transform of points (x, y, 1)

REACH = 0.5  # of a latent cell: the largest offset before the picture is encoded again
TAPS = 2  # pixels beyond an edge that bicubic interpolation reads


def similarity_transform(
    zoom: float = 1, pan_x: float = 0, pan_y: float = 0, rotate: float = 0, *, aspect: float = 1
) -> Matrix:
    """The transform that scales and rotates about the centre, then translates.

    Args:
        zoom: Scale factor; 1.1 enlarges by 10 %.
        pan_x: To the right, as a fraction of the width.
        pan_y: Downwards, as a fraction of the height.
        rotate: Clockwise, in degrees.
        aspect: Width / height of the picture.
    """
    angle = math.radians(rotate)
    across, along = zoom * math.cos(angle), zoom * math.sin(angle)
    return np.array([[across, -along / aspect, 2 * pan_x], [along * aspect, across, 2 * pan_y], [0, 0, 1]])


def warp(pictures: Tensor, move: Matrix, *, border: str, smooth: bool = False) -> Tensor:
    """Apply a transform to pictures or latents (N, C, H, W).

    Args:
        pictures: The input.
        move: Where each point goes.
        border: How the area beyond an edge is filled: "reflect" or "wrap".
        smooth: Interpolate bilinearly, which keeps the range of the values; else bicubically, which keeps detail.
    """
    height, width = pictures.shape[-2:]
    back = to_device(np.linalg.inv(move), pictures)
    grid = projective_grid(back[None], height, width).expand(len(pictures), -1, -1, -1)
    if border == "wrap":
        pictures = F.pad(pictures, (TAPS,) * 4, mode="circular")
        whole = to_device(np.array([width / (width + 2 * TAPS), height / (height + 2 * TAPS)]), pictures)
        grid = ((grid + 1) % 2 - 1) * whole
    bilinear = F.grid_sample(pictures, grid, padding_mode="reflection", align_corners=False)
    if smooth:
        return bilinear
    cubic = F.grid_sample(pictures, grid, mode="bicubic", padding_mode="reflection", align_corners=False)
    # torch's kernel (a = -0.75) sharpens by up to 3 % at each application. Mixed with a third of the bilinear result it
    # equals that of Keys ("Cubic convolution interpolation for digital image processing", 1981; a = -0.5).
    return torch.lerp(bilinear, cubic, 2 / 3)


def to_device(values: NDArray[np.floating[Any]], like: Tensor) -> Tensor:
    """Values as a tensor of the type of another and on its device, without waiting for that."""
    tensor = torch.from_numpy(values).to(like.dtype)
    return tensor.pin_memory().to(like.device, non_blocking=True) if like.is_cuda else tensor.to(like.device)


class Camera:
    """The offset of the camera from the grid of the latent."""

    def __init__(self, width: int, height: int, stride: int) -> None:
        """Start on the grid; sizes in pixels, `stride` per latent cell."""
        self.offset: Matrix = np.eye(3)
        self._half_sides = np.array([[width / 2], [height / 2]])
        self._reach = REACH * stride
        self._aspect = width / height

    def advance(self, move: Matrix) -> bool:
        """Add a move to the offset; return whether a corner of the picture is now too far from its cells."""
        self.offset = move @ self.offset
        corners = np.array([[-1, -1, 1, 1], [-1, 1, -1, 1], [1, 1, 1, 1]])
        shift = ((self.offset @ corners)[:2] - corners[:2]) * self._half_sides
        return bool(np.hypot(*shift).max() > self._reach)

    def apply(self, pictures: Tensor, offset: Matrix, view: View, *, border: str) -> Tensor:
        """Show decoded pictures (N, 3, H, W) through an offset from their grid and a frame's view; not clamped."""
        transform = similarity_transform(view.zoom, view.pan_x, view.pan_y, view.rotate, aspect=self._aspect)
        transform = transform @ offset
        if not np.array_equal(transform, np.eye(3)):
            pictures = warp(pictures, transform, border=border)
        if view.saturation != 1:
            pictures = adjust_saturation(pictures, view.saturation)
        return pictures * view.brightness if view.brightness != 1 else pictures

    def take_offset(self) -> Matrix:
        """Return the offset and reset it, for a latent that is moved by it."""
        offset, self.offset = self.offset, np.eye(3)
        return offset
