"""How far drawn pictures are from the true ones, in what the training of the VQGAN minimises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from wav2clip_gen.models import checkpoints
from wav2clip_gen.models.clip import Perceptor


class PerceptualFeatures(nn.Module):
    """What the first stages of the robust image tower see, as in LPIPS (Zhang et al., arXiv 1801.03924).

    Without LPIPS' learned weights: channels are normalised and count alike.
    """

    def __init__(self, clip: Path) -> None:
        super().__init__()
        perceptor = checkpoints.load(clip, role="clip")
        assert isinstance(perceptor, Perceptor)
        self.perceptor = perceptor

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Map pictures (B, 3, H, W) in [0, 1] to four stages' features (B, C, h, w), unit vectors along C."""
        inputs = (pictures - self.perceptor.mean) / self.perceptor.deviation
        visual: Any = self.perceptor.model.visual
        stages = visual.trunk.forward_intermediates(inputs, indices=[0, 1, 2, 3], intermediates_only=True)
        return [F.normalize(stage.float(), dim=1) for stage in stages]

    def distance(self, drawn: Tensor, pictures: Tensor) -> Tensor:
        """Mean squared distance of the features, summed over the stages; the gradient goes to `drawn`."""
        with torch.no_grad():
            wanted = self(pictures)
        pairs = zip(self(drawn), wanted, strict=True)
        return torch.stack([(one - other).square().sum(dim=1).mean() for one, other in pairs]).sum()


def shifted(*pictures: Tensor, most: int, generator: torch.Generator) -> list[Tensor]:
    """Cut the same random 0 to `most` - 1 rows and columns off the top left of each (B, 3, H, W), `most` in all.

    The features' strides would otherwise always fall on the same pixels of a cell, and what they cannot see there
    grows into a lattice.
    """
    top, left = torch.randint(most, (2,), generator=generator).tolist()
    height, width = pictures[0].shape[-2] - most, pictures[0].shape[-1] - most
    return [picture[..., top : top + height, left : left + width] for picture in pictures]


def reconstruction_losses(drawn: Tensor, pictures: Tensor) -> dict[str, Tensor]:
    """How far drawn pictures (B, 3, H, W) are from the true ones: pixels, edges, chroma, colour.

    Colour, the 4x-pooled difference, is squared: an absolute one gives up the rare saturated colours, and a small
    codebook then paints in blue and orange alone.
    """
    difference = drawn - pictures
    chroma = difference - difference.mean(dim=1, keepdim=True)
    edges = difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()
    pooled, pooled_chroma = F.avg_pool2d(difference, 4), F.avg_pool2d(chroma, 4)
    return {
        "pixels": difference.abs().mean(),
        "squares": 5 * difference.square().mean(),
        "edges": edges,
        "chroma": 2 * chroma.abs().mean(),
        "colour": 10 * pooled.square().mean() + 40 * pooled_chroma.square().mean(),
    }


def edges_by_place(pictures: Tensor, *, cell: int) -> Tensor:
    """Mean absolute difference to the next pixel, right and below, at each place in a cell, over their mean.

    Args:
        pictures: (B, 3, H, W), sides multiples of `cell` and larger.
        cell: Pixels along each side.

    Returns:
        (2, cell, cell); about 1 everywhere for photographs cut at random.
    """
    whole = pictures[..., :-cell, :-cell]  # the last pixels have no next one
    steps = [pictures[..., :-cell, 1 : 1 - cell] - whole, pictures[..., 1 : 1 - cell, :-cell] - whole]
    edges = torch.stack([rearrange(step, "b c (h p) (w q) -> p q (b c h w)", p=cell, q=cell).abs() for step in steps])
    edges = edges.mean(dim=-1)
    return edges / edges.mean(dim=(1, 2), keepdim=True).clamp(min=1e-4)


def lattice_loss(drawn: Tensor, pictures: Tensor, *, cell: int) -> Tensor:
    """How much the places of the edges within cells differ between drawn and true pictures (B, 3, H, W).

    A decoder that cannot know a texture gives it the right strength at the same places of every cell, which neither
    differences of pixels nor features of a network with strides punish.
    """
    return F.mse_loss(edges_by_place(drawn, cell=cell), edges_by_place(pictures, cell=cell))
