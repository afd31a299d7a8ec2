"""Networks of published size with random weights, for developers who build or measure and cannot fetch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wav2clip_gen.models import checkpoints


def write_random(out: Path, *, role: str, config: dict[str, Any], seed: int = 0, precision: str = "fp16") -> None:
    """Write a network with seeded random weights as a weights file marked `training: {"random": seed}`.

    Args:
        out: The weights file.
        role: "wav2clip", "vqgan" or "clip".
        config: As for `checkpoints.build`.
        seed: Decides the weights.
        precision: Of the parameters, "fp32", "fp16" or "bf16".

    Raises:
        OutputError: `out` cannot be written.
    """
    network = random_network(role, config, seed=seed)
    checkpoints.save(network, out, training={"random": seed}, precision=precision)


def random_network(role: str, config: dict[str, Any], *, seed: int = 0) -> nn.Module:
    """A network in evaluation mode whose every weight and statistic is drawn from a generator of `seed`.

    Weights of two or more dimensions are scaled by their fan-in, so that signals neither vanish nor explode.
    """
    network = checkpoints.build(role, config, device="cpu")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(_draw(parameter, generator))
        for name, buffer in network.named_buffers():
            if name.endswith("running_var"):
                buffer.copy_(1 + 0.1 * torch.rand(buffer.shape, generator=generator))
            elif name.endswith("running_mean"):
                buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))
    return network.requires_grad_(False).eval()


def _draw(parameter: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(parameter.shape, generator=generator)
    if parameter.ndim > 1:
        return noise * parameter[0].numel() ** -0.5
    return parameter + 0.02 * noise  # gains stay near 1, biases near 0, a temperature where it was
