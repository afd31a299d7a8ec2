"""Random cutouts of a picture, augmented, so that CLIP judges the scene rather than one arrangement of pixels.

As in VQGAN-CLIP (arXiv 2204.08583, section 3.1) each cutout is a random crop with rotation, shear, perspective, colour
jitter, noise and erasing. Unlike there, crop and geometry are one homography per cutout and one `grid_sample` for all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # shares of red, green and blue, Rec. 601


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Strength of the augmentations; the defaults are close to those of VQGAN-CLIP's authors."""

    smallest: float = 0.5  # side of the smallest crop, as a fraction of the picture's shorter side
    rotation: float = 15.0  # degrees, to either side
    shear: float = 0.1
    perspective: float = 0.15  # fraction by which the far edge may be shortened
    mirror: float = 0.5  # probability of a mirrored cutout
    color: float = 0.1  # strength of contrast, saturation and brightness jitter
    noise: float = 0.1  # largest standard deviation of the added noise
    erase: float = 0.3  # probability of an erased rectangle
    erased: float = 0.4  # longest side of the rectangle, as a fraction of the cutout


def random_cutouts(
    picture: Tensor, size: int, count: int, *, generator: torch.Generator, augmentation: Augmentation | None = None
) -> Tensor:
    """Cut `count` random cutouts (count, 3, size, size) from a picture (1, 3, H, W) in [0, 1]; differentiable.

    Args:
        picture: The whole picture.
        size: Side of a cutout, in pixels.
        count: How many cutouts.
        generator: Source of all random numbers; on the picture's device.
        augmentation: Strength of the augmentations.
    """
    augmentation = augmentation or Augmentation()
    height, width = picture.shape[-2:]
    homographies = draw_homographies(count, width / height, generator=generator, augmentation=augmentation)
    cutouts = sample(picture, homographies, size)
    cutouts = jitter_colors(cutouts, generator=generator, strength=augmentation.color)
    cutouts = add_noise(cutouts, generator=generator, strength=augmentation.noise)
    return erase(cutouts, generator=generator, chance=augmentation.erase, longest=augmentation.erased)


def draw_homographies(count: int, aspect: float, *, generator: torch.Generator, augmentation: Augmentation) -> Tensor:
    """Draw maps (count, 3, 3) from cutout to picture coordinates, both in [-1, 1]; `aspect` is width / height."""
    draws = torch.rand(9, count, generator=generator, device=generator.device)
    signed = draws * 2 - 1
    scale = augmentation.smallest + (1 - augmentation.smallest) * draws[0]  # of the shorter side
    across, down = scale * min(1, 1 / aspect), scale * min(1, aspect)  # of width, of height
    angle = signed[1] * math.radians(augmentation.rotation)
    shear = signed[2] * augmentation.shear
    tilt_x, tilt_y = signed[3] * augmentation.perspective / 2, signed[4] * augmentation.perspective / 2
    mirror = torch.where(draws[5] < augmentation.mirror, -1.0, 1.0)
    centre_x, centre_y = signed[6] * (1 - across), signed[7] * (1 - down)
    cos, sin = angle.cos(), angle.sin()
    one = torch.ones_like(cos)
    # rows act on (x, y, 1) of the cutout; the third row is the perspective divisor
    rows = [
        across * cos * mirror + centre_x * tilt_x, across * (shear - sin) + centre_x * tilt_y, centre_x,
        down * sin * mirror + centre_y * tilt_x, down * cos + centre_y * tilt_y, centre_y,
        tilt_x, tilt_y, one,
    ]  # fmt: skip
    return torch.stack(rows, dim=1).view(count, 3, 3)


def sample(picture: Tensor, homographies: Tensor, size: int) -> Tensor:
    """Sample a picture (1, 3, H, W) through homographies (N, 3, 3): cutouts (N, 3, size, size).

    Each pixel is the mean of as many bilinear samples as avoid aliasing where the picture is larger than the cutout.
    """
    oversampling = max(1, math.ceil(min(picture.shape[-2:]) / size))
    side = size * oversampling
    grid = projective_grid(homographies.to(picture.dtype), side, side)
    cutouts = F.grid_sample(picture.expand(len(grid), -1, -1, -1), grid, padding_mode="reflection", align_corners=False)
    return F.avg_pool2d(cutouts, oversampling) if oversampling > 1 else cutouts


def projective_grid(homographies: Tensor, height: int, width: int) -> Tensor:
    """Sampling points (N, height, width, 2) of homographies (N, 3, 3), for pixel centres."""
    rows, columns = (
        (torch.arange(side, device=homographies.device, dtype=homographies.dtype) * 2 + 1) / side - 1
        for side in (height, width)
    )
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    points = homographies @ torch.stack([x, y, torch.ones_like(x)]).view(3, -1)  # (N, 3, height * width)
    return (points[:, :2] / points[:, 2:]).transpose(1, 2).reshape(-1, height, width, 2)


def jitter_colors(cutouts: Tensor, *, generator: torch.Generator, strength: float) -> Tensor:
    """Change saturation, contrast and brightness of each cutout (N, 3, s, s) by up to `strength`."""
    signed = torch.rand(3, cutouts.shape[0], 1, 1, 1, generator=generator, device=cutouts.device) * 2 - 1
    saturation, contrast, brightness = (one.view(-1, 1, 1) for one in signed * strength)
    saturation, contrast = 1 + 2 * saturation, 1 + contrast
    luma = torch.stack([torch.full((3,), weight, device=cutouts.device) for weight in LUMA], dim=1)
    unit = torch.eye(3, device=cutouts.device)
    # all three are linear: one product of matrices, one pass over memory; made on the device, which need not wait then
    change = contrast * torch.lerp(luma, unit, saturation)  # (N, 3, 3)
    shift = 0.5 * (1 - contrast) + brightness
    return torch.baddbmm(shift, change, cutouts.flatten(2)).view_as(cutouts)


def adjust_saturation(pictures: Tensor, factor: Tensor | float) -> Tensor:
    """Scale the distance of pictures (N, 3, H, W) from grey by `factor`."""
    red, green, blue = pictures.split(1, dim=1)
    luma = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    return torch.lerp(luma, pictures, factor)


def add_noise(cutouts: Tensor, *, generator: torch.Generator, strength: float) -> Tensor:
    """Add to each cutout (N, 3, s, s) Gaussian noise of its own deviation, drawn up to `strength`."""
    deviation = torch.rand(cutouts.shape[0], 1, 1, 1, generator=generator, device=cutouts.device) * strength
    return torch.addcmul(cutouts, deviation, torch.randn(cutouts.shape, generator=generator, device=cutouts.device))


def erase(cutouts: Tensor, *, generator: torch.Generator, chance: float, longest: float) -> Tensor:
    """Grey out a rectangle in each cutout (N, 3, s, s) with probability `chance`, sides at most `longest` of theirs."""
    count, size = cutouts.shape[0], cutouts.shape[-1]
    draws = torch.rand(5, count, 1, 1, 1, generator=generator, device=cutouts.device)
    side_x, side_y = draws[0] * longest, draws[1] * longest
    left, top = draws[2] * (1 - side_x), draws[3] * (1 - side_y)
    place = (torch.arange(size, device=cutouts.device) + 0.5) / size
    within_x = (place >= left) & (place < left + side_x)  # (N, 1, 1, s)
    y = place.view(size, 1)
    hidden = within_x & (y >= top) & (y < top + side_y) & (draws[4] < chance)
    return torch.where(hidden, 0.5, cutouts)
