"""Group normalisation followed by SiLU: a third of a decoder's time where each of its passes goes through memory.

On a GPU, two Triton kernels each way keep channels last, as convolutions want them; PyTorch's own group norm copies its
input to channels first. Elsewhere it is PyTorch's.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from taming.modules.diffusionmodules.model import ResnetBlock
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

ELEMENTS = 4096  # of a tile that one program of a kernel reads at a time
TILES = 4  # that it reads one after the other
LARGEST = 2**31  # elements; the kernels address them in 32 bits


def norm_silu(norm: nn.GroupNorm, values: Tensor) -> Tensor:
    """SiLU of normalised values (N, C, H, W)."""
    if values.is_cuda and fused_norm_works(values.device) and _is_supported(norm, values):
        return _NormSiLU.apply(values, norm.weight, norm.bias, norm.num_groups, norm.eps)  # type: ignore[no-untyped-call]
    return F.silu(norm(values))


class FastResnetBlock(ResnetBlock):  # type: ignore[misc]
    """taming's residual block, which spells SiLU as a product."""

    recompute = False  # activations in the backward pass, instead of keeping them (arXiv 1604.06174)

    def forward(self, x: Tensor, temb: Tensor | None = None) -> Tensor:
        """Map (N, C, H, W) to (N, C', H, W)."""
        if self.recompute and x.requires_grad:
            made: Tensor = checkpoint(self._compute, x, use_reentrant=False, preserve_rng_state=False)
            return made
        return self._compute(x)

    def _compute(self, x: Tensor) -> Tensor:
        hidden = self.conv1(norm_silu(self.norm1, x))
        hidden = self.conv2(self.dropout(norm_silu(self.norm2, hidden)))
        shortcut: Tensor = x if self.in_channels == self.out_channels else self.nin_shortcut(x)
        return shortcut + hidden


def _is_supported(norm: nn.GroupNorm, values: Tensor) -> bool:
    channels = values.shape[1]
    frozen = not (norm.weight.requires_grad or norm.bias.requires_grad)
    power_of_two = channels & (channels - 1) == 0 and norm.num_groups & (norm.num_groups - 1) == 0
    return frozen and power_of_two and channels <= ELEMENTS and values.numel() < LARGEST


@cache
def fused_norm_works(device: torch.device) -> bool:
    """Whether the kernels compile on a GPU, and compute what PyTorch does."""
    if device.type != "cuda":
        return False
    try:
        norm = nn.GroupNorm(4, 32).to(device).requires_grad_(False)
        values = torch.randn(2, 32, 9, 7, device=device).to(memory_format=torch.channels_last).requires_grad_()
        fused = _NormSiLU.apply(values, norm.weight, norm.bias, norm.num_groups, norm.eps)  # type: ignore[no-untyped-call]
        plain = F.silu(norm(values))
        weights = torch.randn_like(plain)
        gradients = [torch.autograd.grad(one, values, weights)[0] for one in (fused, plain)]
    except Exception:  # there is no Triton, no C compiler, or a GPU that it does not support
        return False
    pairs = ((fused, plain), gradients)
    return all(torch.allclose(one, other, atol=1e-4) for one, other in pairs)


class _NormSiLU(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917
        ctx: Any, values: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
    ) -> Tensor:
        kernels, grid, shape = _kernels(), _grid(values), _shape(values, groups)
        values = values.contiguous(memory_format=torch.channels_last)
        moments = torch.zeros(len(values), 2, groups, device=values.device)
        out = torch.empty_like(values)
        with torch.cuda.device_of(values):  # Triton's launches are on the current device
            kernels.moments[grid](values, moments, **shape)
            kernels.apply[grid](values, moments, weight, bias, out, eps, **shape)
        ctx.save_for_backward(values, moments, weight, bias)
        ctx.groups, ctx.eps = groups, eps
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        values, moments, weight, bias = ctx.saved_tensors
        (gradient,) = gradients
        kernels, grid, shape = _kernels(), _grid(values), _shape(values, ctx.groups)
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        sums, out = torch.zeros_like(moments), torch.empty_like(values)
        with torch.cuda.device_of(values):
            kernels.gradient_sums[grid](values, moments, weight, bias, gradient, sums, ctx.eps, **shape)
            kernels.gradient[grid](values, moments, weight, bias, gradient, sums, out, ctx.eps, **shape)
        return out, None, None, None, None


def _shape(values: Tensor, groups: int) -> dict[str, int]:
    channels, rows = values.shape[1], max(ELEMENTS // values.shape[1], 1)
    cells = values.shape[2] * values.shape[3]
    return {"cells": cells, "CHANNELS": channels, "GROUPS": groups, "ROWS": rows, "TILES": TILES}


def _grid(values: Tensor) -> tuple[int, int]:
    rows = max(ELEMENTS // values.shape[1], 1) * TILES
    return -(-values.shape[2] * values.shape[3] // rows), len(values)


@cache
def _kernels() -> Any:
    from wav2clip_gen.models import norm_kernels

    return norm_kernels
