"""The discriminator of the VQGAN (Esser et al., arXiv 2012.09841): patch by patch, is it a photograph or drawn?

The network is taming-transformers' PatchGAN, smaller and with two strides instead of three, so that a score looks
at 34 px, about four cells of the small family's latent. The losses are ours.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wav2clip_gen.training.loop import seeded

CHANNELS = 32  # of the first layer, as the small VQGAN's
STRIDED_LAYERS = 2
LEARNING_RATE = 2e-4
SMALLEST_GRADIENT = 1e-4  # in the adaptive weight's denominator, as in the paper
LARGEST_WEIGHT = 1e4
LOSS_DECAY = 0.99  # of the running mean that is reported


class Discriminator:
    """A patch discriminator with its own optimiser; it learns beside the network that it judges."""

    def __init__(self, *, seed: int, device: torch.device) -> None:
        from taming.modules.discriminator.model import NLayerDiscriminator, weights_init

        with seeded(seed):
            network: nn.Module = NLayerDiscriminator(input_nc=3, ndf=CHANNELS, n_layers=STRIDED_LAYERS)
            network.apply(weights_init)
        self.network = network.to(device).train().requires_grad_(False)
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=LEARNING_RATE, betas=(0.5, 0.9))
        self.loss = torch.ones((), device=device)  # running mean: 1 if it cannot tell, 0 if it is never fooled

    def judge(self, pictures: Tensor) -> Tensor:
        """Score patches (B, 1, h, w) of pictures (B, 3, H, W) in [0, 1]: above 0 for a photograph.

        The gradient goes to the pictures; only `learn` changes the discriminator.
        """
        scores: Tensor = self.network(pictures * 2 - 1).float()
        return scores

    def learn(self, pictures: Tensor, drawn: Tensor) -> None:
        """Take one step in telling true pictures (B, 3, H, W) from drawn ones."""
        self.network.requires_grad_(True)
        with torch.autocast(pictures.device.type, dtype=torch.bfloat16):
            loss = hinge_loss(self.judge(pictures), self.judge(drawn.detach()))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.network.requires_grad_(False)
        self.loss.lerp_(loss.detach(), 1 - LOSS_DECAY)

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {"network": self.network.state_dict(), "optimiser": self.optimiser.state_dict(), "loss": self.loss}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.loss.copy_(state["loss"])


def hinge_loss(true: Tensor, drawn: Tensor) -> Tensor:
    """What the discriminator minimises (Lim and Ye, arXiv 1705.02894), from scores of any shape.

    It is 0 once true patches score above 1 and drawn ones below -1.
    """
    return 0.5 * (F.relu(1 - true).mean() + F.relu(1 + drawn).mean())


def adversarial_loss(drawn: Tensor) -> Tensor:
    """What the drawing network minimises: the negative mean of its patches' scores."""
    return -drawn.mean()


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last_layer: Tensor) -> Tensor:
    """Weight () at which both losses pull equally hard at the decoder's last layer (the paper's equation 7).

    Args:
        reconstruction: Sum () of the losses that know the true picture.
        adversarial: The loss () that only knows the discriminator.
        last_layer: Parameter that both depend on; their graphs stay usable.
    """
    pulls = [
        torch.linalg.vector_norm(torch.autograd.grad(loss, last_layer, retain_graph=True)[0].float())
        for loss in (reconstruction, adversarial)
    ]
    return (pulls[0] / (pulls[1] + SMALLEST_GRADIENT)).clamp(max=LARGEST_WEIGHT).detach()
