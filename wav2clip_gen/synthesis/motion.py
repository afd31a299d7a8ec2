"""Camera moves between frames, in coordinates from -1 to 1 across the picture and down.

A VQGAN snaps a picture that moved by less than a pixel back to the codes that it had, so moving it a little at every
frame would not move it at all. Here the codes stay on their grid while the camera goes on, and what is shown is seen
through the camera; only when that is half a cell away is the picture itself moved and encoded again.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from wav2clip_gen.config import View
from wav2clip_gen.synthesis.cutouts import look_through, saturated

Matrix = NDArray[np.float64]  # (3, 3), from where a point was to where it is, both as (x, y, 1)

REACH = 0.5  # of a latent cell: how far the camera may be from the grid of the codes
TAPS = 2  # pixels beyond an edge that bicubic interpolation looks at


def placement(zoom: float = 1, pan_x: float = 0, pan_y: float = 0, rotate: float = 0, *, aspect: float = 1) -> Matrix:
    """A move of the picture: enlarged and turned about its centre, then shifted.

    Args:
        zoom: Factor; 1.1 is 10 % nearer.
        pan_x: To the right, as a share of the width.
        pan_y: Downwards, as a share of the height.
        rotate: Clockwise, in degrees.
        aspect: Width / height of the picture.
    """
    angle = math.radians(rotate)
    across, along = zoom * math.cos(angle), zoom * math.sin(angle)
    return np.array([[across, -along / aspect, 2 * pan_x], [along * aspect, across, 2 * pan_y], [0, 0, 1]])


def warp(pictures: Tensor, move: Matrix, *, border: str, smooth: bool = False) -> Tensor:
    """Move pictures (N, C, H, W), or latents.

    Args:
        pictures: What is moved.
        move: Whereto.
        border: What comes in over an edge: "reflect", the picture's mirror, or "wrap", its other side.
        smooth: Keep to the range of the values (bilinear), instead of to the details (cubic).
    """
    height, width = pictures.shape[-2:]
    back = torch.as_tensor(np.linalg.inv(move), dtype=pictures.dtype, device=pictures.device)
    grid = look_through(back[None], height, width).expand(len(pictures), -1, -1, -1)
    if border == "wrap":
        pictures = F.pad(pictures, (TAPS,) * 4, mode="circular")
        whole = pictures.new_tensor([width / (width + 2 * TAPS), height / (height + 2 * TAPS)])
        grid = ((grid + 1) % 2 - 1) * whole
    bilinear = F.grid_sample(pictures, grid, padding_mode="reflection", align_corners=False)
    if smooth:
        return bilinear
    cubic = F.grid_sample(pictures, grid, mode="bicubic", padding_mode="reflection", align_corners=False)
    # torch's kernel (a = -0.75) sharpens by up to 3 %, every time; with a third of the bilinear one it is that of Keys
    # ("Cubic convolution interpolation for digital image processing", 1981; a = -0.5), which does not.
    return torch.lerp(bilinear, cubic, 2 / 3)


class Camera:
    """Where the camera is, against the grid of the codes."""

    def __init__(self, width: int, height: int, stride: int) -> None:
        """Stand where the codes are; all in pixels, `stride` to a cell."""
        self.offset: Matrix = np.eye(3)
        self._half_sides = np.array([[width / 2], [height / 2]])
        self._reach = REACH * stride
        self._aspect = width / height

    def go(self, move: Matrix) -> bool:
        """Make a move; tell whether a corner of the picture is now too far from its cells."""
        self.offset = move @ self.offset
        corners = np.array([[-1, -1, 1, 1], [-1, 1, -1, 1], [1, 1, 1, 1]])
        strayed = ((self.offset @ corners)[:2] - corners[:2]) * self._half_sides
        return bool(np.hypot(*strayed).max() > self._reach)

    def look(self, pictures: Tensor, view: View, *, border: str) -> Tensor:
        """See pictures (N, 3, H, W) of the codes from where the camera is; not clamped."""
        stand = placement(view.zoom, view.pan_x, view.pan_y, view.rotate, aspect=self._aspect) @ self.offset
        if not np.array_equal(stand, np.eye(3)):
            pictures = warp(pictures, stand, border=border)
        if view.saturation != 1:
            pictures = saturated(pictures, view.saturation)
        return pictures * view.brightness if view.brightness != 1 else pictures

    def arrive(self) -> Matrix:
        """Stand where the codes are again, as they have moved; give by how much."""
        offset, self.offset = self.offset, np.eye(3)
        return offset
