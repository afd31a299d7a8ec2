"""Random views of a picture, so that CLIP is pleased by the scene and not by one arrangement of pixels.

As in VQGAN-CLIP (arXiv 2204.08583, section 3.1) each view is a random crop, turned, tilted, coloured, noised and
partly erased. Here all views are one homography each and one `grid_sample` takes them all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How different the views may be; the defaults are close to those of VQGAN-CLIP's authors."""

    smallest: float = 0.5  # side of the smallest crop, as a share of the picture's shorter side
    rotation: float = 15.0  # degrees, to either side
    shear: float = 0.1
    perspective: float = 0.15  # share by which the far edge may look shorter
    mirror: float = 0.5  # chance of a mirrored view
    colour: float = 0.1  # strength of contrast, saturation and brightness jitter
    noise: float = 0.1  # largest standard deviation of the added noise
    erase: float = 0.3  # chance that a rectangle is hidden
    erased: float = 0.4  # longest side of the rectangle, as a share of the view


def random_views(
    picture: Tensor, size: int, count: int, *, generator: torch.Generator, augmentation: Augmentation | None = None
) -> Tensor:
    """Cut `count` random views (count, 3, size, size) from a picture (1, 3, H, W) in [0, 1]; differentiable.

    Args:
        picture: What is looked at.
        size: Side of a view, in pixels.
        count: How many views.
        generator: Decides all; on the picture's device, so that nothing is copied.
        augmentation: How different the views may be.
    """
    augmentation = augmentation or Augmentation()
    height, width = picture.shape[-2:]
    homographies = draw_homographies(count, width / height, generator=generator, augmentation=augmentation)
    views = sample(picture, homographies, size)
    views = jitter_colours(views, generator=generator, strength=augmentation.colour)
    views = add_noise(views, generator=generator, strength=augmentation.noise)
    return erase(views, generator=generator, chance=augmentation.erase, longest=augmentation.erased)


def draw_homographies(count: int, aspect: float, *, generator: torch.Generator, augmentation: Augmentation) -> Tensor:
    """Draw maps (count, 3, 3) from view to picture coordinates, both in [-1, 1]; `aspect` is width / height."""
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
    # rows act on (x, y, 1) of the view; the third row is the perspective divisor
    rows = [
        across * cos * mirror + centre_x * tilt_x, across * (shear - sin) + centre_x * tilt_y, centre_x,
        down * sin * mirror + centre_y * tilt_x, down * cos + centre_y * tilt_y, centre_y,
        tilt_x, tilt_y, one,
    ]  # fmt: skip
    return torch.stack(rows, dim=1).view(count, 3, 3)


def sample(picture: Tensor, homographies: Tensor, size: int) -> Tensor:
    """Look at a picture (1, 3, H, W) through homographies (N, 3, 3): views (N, 3, size, size).

    Each pixel of a view is the mean of as many bilinear samples as keep a shrunk picture free of aliasing.
    """
    oversampling = max(1, math.ceil(min(picture.shape[-2:]) / size))
    side = size * oversampling
    grid = look_through(homographies.to(picture.dtype), side, side)
    views = F.grid_sample(picture.expand(len(grid), -1, -1, -1), grid, padding_mode="reflection", align_corners=False)
    return F.avg_pool2d(views, oversampling) if oversampling > 1 else views


def look_through(homographies: Tensor, height: int, width: int) -> Tensor:
    """The points (N, height, width, 2) at which homographies (N, 3, 3) see the middles of a view's pixels."""
    rows, columns = (
        (torch.arange(side, device=homographies.device, dtype=homographies.dtype) * 2 + 1) / side - 1
        for side in (height, width)
    )
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    seen = homographies @ torch.stack([x, y, torch.ones_like(x)]).view(3, -1)  # (N, 3, height * width)
    return (seen[:, :2] / seen[:, 2:]).transpose(1, 2).reshape(-1, height, width, 2)


def jitter_colours(views: Tensor, *, generator: torch.Generator, strength: float) -> Tensor:
    """Change saturation, contrast and brightness of each view (N, 3, s, s) by up to `strength`."""
    signed = torch.rand(3, views.shape[0], 1, 1, 1, generator=generator, device=views.device) * 2 - 1
    saturation, contrast, brightness = 1 + signed[0] * strength * 2, 1 + signed[1] * strength, signed[2] * strength
    return contrast * (saturated(views, saturation) - 0.5) + 0.5 + brightness


def saturated(pictures: Tensor, factor: Tensor | float) -> Tensor:
    """Pictures (N, 3, H, W) whose colours are `factor` times as far from grey."""
    red, green, blue = pictures.split(1, dim=1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue  # Rec. 601
    return torch.lerp(luma, pictures, factor)


def add_noise(views: Tensor, *, generator: torch.Generator, strength: float) -> Tensor:
    """Add to each view (N, 3, s, s) Gaussian noise of its own deviation, drawn up to `strength`."""
    deviation = torch.rand(views.shape[0], 1, 1, 1, generator=generator, device=views.device) * strength
    return views + deviation * torch.randn(views.shape, generator=generator, device=views.device)


def erase(views: Tensor, *, generator: torch.Generator, chance: float, longest: float) -> Tensor:
    """Paint a grey rectangle over a `chance` of the views (N, 3, s, s), its sides at most `longest` of theirs."""
    count, size = views.shape[0], views.shape[-1]
    draws = torch.rand(5, count, 1, 1, 1, generator=generator, device=views.device)
    side_x, side_y = draws[0] * longest, draws[1] * longest
    left, top = draws[2] * (1 - side_x), draws[3] * (1 - side_y)
    place = (torch.arange(size, device=views.device) + 0.5) / size
    within_x = (place >= left) & (place < left + side_x)  # (N, 1, 1, s)
    y = place.view(size, 1)
    hidden = within_x & (y >= top) & (y < top + side_y) & (draws[4] < chance)
    return torch.where(hidden, 0.5, views)
