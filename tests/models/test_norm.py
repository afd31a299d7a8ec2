"""Group norm and SiLU in one: PyTorch's and the kernels, which Triton interprets where there is no GPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.conftest import ROOT
from wav2clip_gen.models.norm import fused_norm_works, norm_silu

INTERPRETED = """
import torch, torch.nn.functional as F
from torch import nn
from wav2clip_gen.models.norm import _NormSiLU
for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 0.04)):
    for shape, groups in (((2, 32, 9, 7), 4), ((1, 128, 6, 11), 32), ((1, 8, 50, 50), 2)):
        generator = torch.Generator().manual_seed(0)
        norm = nn.GroupNorm(groups, shape[1]).requires_grad_(False)
        norm.weight.normal_(1, 0.3, generator=generator), norm.bias.normal_(0, 1, generator=generator)
        norm.to(dtype)
        values = (3 * torch.randn(shape, generator=generator) + 2).to(dtype)
        values = values.to(memory_format=torch.channels_last).requires_grad_()
        made = [_NormSiLU.apply(values, norm.weight, norm.bias, groups, norm.eps), F.silu(norm(values))]
        weights = torch.randn(shape, generator=generator).to(dtype)
        gradients = [torch.autograd.grad(one, values, weights)[0] for one in made]
        torch.testing.assert_close(*made, atol=tolerance, rtol=tolerance)
        torch.testing.assert_close(*gradients, atol=tolerance, rtol=tolerance)
        assert made[0].stride() == values.stride() == gradients[0].stride()
print("equal")
"""


def test_on_a_cpu_it_is_pytorchs() -> None:
    norm, values = nn.GroupNorm(4, 32), torch.randn(1, 32, 8, 8)
    assert torch.equal(norm_silu(norm, values), F.silu(norm(values)))
    assert not fused_norm_works(torch.device("cpu"))


def test_the_kernels_compute_what_pytorch_does() -> None:
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-c", INTERPRETED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "equal\n", done.stderr[-2000:]
