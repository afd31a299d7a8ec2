"""The losses of the VQGAN: reconstruction, perceptual distance, and a patch discriminator (arXiv 2012.09841).

The discriminator is taming-transformers' PatchGAN, smaller and with two strides instead of three, so that a score has a
receptive field of 34 px, about four cells of the small family's latent. The losses are ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from wav2clip_gen.models import checkpoints
from wav2clip_gen.models.clip import Perceptor
from wav2clip_gen.training.schedule import seeded

CHANNELS = 32  # of the discriminator's first layer, as the small VQGAN's
STRIDED_LAYERS = 2
LEARNING_RATE = 2e-4
MIN_GRADIENT = 1e-4  # in the adaptive weight's denominator, as in the paper
MAX_WEIGHT = 1e4
LOSS_DECAY = 0.99  # of the running mean that is reported


class PerceptualFeatures(nn.Module):
    """Features of the first stages of the robust image tower, as in LPIPS (Zhang et al., arXiv 1801.03924).

    Without LPIPS' learned weights: channels are normalized and count alike.
    """

    def __init__(self, clip: Path) -> None:
        super().__init__()
        perceptor = checkpoints.load(clip, role="clip")
        assert isinstance(perceptor, Perceptor)
        self.perceptor = perceptor

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images (B, 3, H, W) in [0, 1] to four stages' features (B, C, h, w), unit vectors along C."""
        inputs = (images - self.perceptor.mean) / self.perceptor.deviation
        visual: Any = self.perceptor.model.visual
        stages = visual.trunk.forward_intermediates(inputs, indices=[0, 1, 2, 3], intermediates_only=True)
        return [F.normalize(stage.float(), dim=1) for stage in stages]

    def distance(self, outputs: Tensor, images: Tensor) -> Tensor:
        """Mean squared distance of the features, summed over the stages; the gradient flows to `outputs`."""
        with torch.no_grad():
            targets = self(images)
        pairs = zip(self(outputs), targets, strict=True)
        return torch.stack([(one - other).square().sum(dim=1).mean() for one, other in pairs]).sum()


def random_shift(*images: Tensor, most: int, generator: torch.Generator) -> list[Tensor]:
    """Crop `most` rows and columns of each (B, 3, H, W), the same random 0 to `most` - 1 of them at the top left.

    The features' strides would otherwise always fall on the same pixels of a latent cell, and what they are blind to
    there would grow into a lattice.
    """
    top, left = torch.randint(most, (2,), generator=generator).tolist()
    height, width = images[0].shape[-2] - most, images[0].shape[-1] - most
    return [image[..., top : top + height, left : left + width] for image in images]


def reconstruction_losses(outputs: Tensor, images: Tensor) -> dict[str, Tensor]:
    """Distances of reconstructions (B, 3, H, W) from the images: pixels, edges, chroma, color.

    Color, the 4x-pooled difference, is squared: an absolute one gives up rare saturated colors, and a small codebook
    then reconstructs in blue and orange alone.
    """
    difference = outputs - images
    chroma = difference - difference.mean(dim=1, keepdim=True)
    edges = difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()
    pooled, pooled_chroma = F.avg_pool2d(difference, 4), F.avg_pool2d(chroma, 4)
    return {
        "pixels": difference.abs().mean(),
        "squares": 5 * difference.square().mean(),
        "edges": edges,
        "chroma": 2 * chroma.abs().mean(),
        "color": 10 * pooled.square().mean() + 40 * pooled_chroma.square().mean(),
    }


def edges_by_position(images: Tensor, *, cell: int) -> Tensor:
    """Mean absolute difference to the next pixel, right and below, at each position in a cell, over their mean.

    Args:
        images: (B, 3, H, W), sides multiples of `cell` and larger.
        cell: Pixels along each side.

    Returns:
        (2, cell, cell); about 1 everywhere for randomly cropped photographs.
    """
    inner = images[..., :-cell, :-cell]  # the last pixels have no next one
    steps = [images[..., :-cell, 1 : 1 - cell] - inner, images[..., 1 : 1 - cell, :-cell] - inner]
    edges = torch.stack([rearrange(step, "b c (h p) (w q) -> p q (b c h w)", p=cell, q=cell).abs() for step in steps])
    edges = edges.mean(dim=-1)
    return edges / edges.mean(dim=(1, 2), keepdim=True).clamp(min=1e-4)


def lattice_loss(outputs: Tensor, images: Tensor, *, cell: int) -> Tensor:
    """How much the positions of edges within cells differ between reconstructions and images (B, 3, H, W).

    A decoder that cannot know a texture draws it with the right strength at the same positions of every cell, which
    neither pixel differences nor features of a strided network penalize.
    """
    return F.mse_loss(edges_by_position(outputs, cell=cell), edges_by_position(images, cell=cell))


class Discriminator:
    """A patch discriminator with its own optimizer, trained alongside the generator."""

    def __init__(self, *, seed: int, device: torch.device) -> None:
        from taming.modules.discriminator.model import NLayerDiscriminator, weights_init

        with seeded(seed):
            network: nn.Module = NLayerDiscriminator(input_nc=3, ndf=CHANNELS, n_layers=STRIDED_LAYERS)
            network.apply(weights_init)
        self.network = network.to(device).train().requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=LEARNING_RATE, betas=(0.5, 0.9))
        self.loss = torch.ones((), device=device)  # running mean: 1 at chance, 0 if it is never fooled

    def score(self, images: Tensor) -> Tensor:
        """Score patches (B, 1, h, w) of images (B, 3, H, W) in [0, 1]: above 0 for real ones.

        The gradient flows to the images; only `update` changes the discriminator.
        """
        scores: Tensor = self.network(images * 2 - 1).float()
        return scores

    def update(self, real: Tensor, fake: Tensor) -> None:
        """Train for one step to distinguish real images (B, 3, H, W) from reconstructions."""
        self.network.requires_grad_(True)
        with torch.autocast(real.device.type, dtype=torch.bfloat16):
            loss = hinge_loss(self.score(real), self.score(fake.detach()))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.network.requires_grad_(False)
        self.loss.lerp_(loss.detach(), 1 - LOSS_DECAY)

    def state_dict(self) -> dict[str, Any]:
        """State for the checkpoint."""
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict(), "loss": self.loss}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.loss.copy_(state["loss"])


def hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's loss (Lim and Ye, arXiv 1705.02894), from scores of any shape.

    It is 0 once real patches score above 1 and fake ones below -1.
    """
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def adversarial_loss(fake: Tensor) -> Tensor:
    """The generator's loss: the negative mean of its patches' scores."""
    return -fake.mean()


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last_layer: Tensor) -> Tensor:
    """Weight () at which both losses have gradients of equal norm at the decoder's last layer (equation 7).

    Args:
        reconstruction: Sum () of the losses that compare with the real image.
        adversarial: The loss () of the discriminator's scores.
        last_layer: Parameter that both depend on; their graphs stay usable.
    """
    norms = [
        torch.linalg.vector_norm(torch.autograd.grad(loss, last_layer, retain_graph=True)[0].float())
        for loss in (reconstruction, adversarial)
    ]
    return (norms[0] / (norms[1] + MIN_GRADIENT)).clamp(max=MAX_WEIGHT).detach()
