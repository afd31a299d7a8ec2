"""The VQGAN's adversary: a patch discriminator, and the adaptive weight of its loss (arXiv 2012.09841)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wav2clip_gen.training.schedule import seeded

CHANNELS = 32  # of the discriminator's first layer, as the small VQGAN's
STRIDED_LAYERS = 2
LEARNING_RATE = 2e-4
MIN_GRADIENT = 1e-4  # in the adaptive weight's denominator, as in the paper
MAX_WEIGHT = 1e4
LOSS_DECAY = 0.99  # of the running mean that is reported


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


def adaptive_weight(outputs: Tensor, reconstruction: Tensor, adversarial: Tensor, last_layer: Tensor) -> Tensor:
    """Weight () at which both losses have gradients of equal norm at the decoder's last layer (equation 7).

    Args:
        outputs: Reconstructions (B, 3, H, W); their graph stays usable.
        reconstruction: Gradient on them of the losses that compare with the real images.
        adversarial: Gradient on them of the loss of the discriminator's scores.
        last_layer: Parameter that the outputs depend on.
    """
    norms = []
    for gradient in (reconstruction, adversarial):
        (found,) = torch.autograd.grad(outputs, last_layer, gradient.to(outputs.dtype), retain_graph=True)
        norms.append(torch.linalg.vector_norm(found.float()))
    return (norms[0] / (norms[1] + MIN_GRADIENT)).clamp(max=MAX_WEIGHT).detach()
