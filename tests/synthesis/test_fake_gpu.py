"""What a step does on a GPU, with tensors that are on one but hold nothing: devices, waits and Adam's arguments.

The backward passes are left out, as PyTorch takes them only where there is a GPU; `make gpu-check` has them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from wav2clip_gen.config import Settings
from wav2clip_gen.models import norm
from wav2clip_gen.models.registry import Models
from wav2clip_gen.synthesis.losses import resolve_target
from wav2clip_gen.synthesis.step import LatentStep

GPU = torch.device("cuda", 1)


class FakeGenerator(torch.Generator):
    device = GPU


class Operations(TorchDispatchMode):
    """All that is computed, by name; what touches a tensor on the host is kept apart."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names, self.on_host, self.adam = set[str](), set[str](), list[Any]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.name(), dict(kwargs or {})
        if "generator" in kwargs:  # of which only the device is that of a GPU
            assert kwargs["generator"] is not None
            kwargs["generator"] = None
        self.names.add(name)
        if name.startswith("aten::_fused_adam_"):  # PyTorch cannot tell its result without computing it
            self.adam += [args, kwargs]
            return None
        result = func(*args, **kwargs)
        if any(one.device != GPU for one in tree_leaves((args, kwargs, result)) if isinstance(one, Tensor)):
            self.on_host.add(name)
        return result


def move(network: Any) -> Any:
    """Put a network on the GPU."""
    for module in network.modules():
        for held in (module._parameters, module._buffers):
            for name, one in held.items():
                if one is not None:
                    fake = torch.empty_strided(one.shape, one.stride(), dtype=one.dtype, device=GPU)
                    held[name] = nn.Parameter(fake, requires_grad=False) if held is module._parameters else fake
    return network


@pytest.fixture(params=["fp32", "bf16"])
def models(request: pytest.FixtureRequest, mini: Models, monkeypatch: pytest.MonkeyPatch) -> Iterator[Models]:
    found = mini.in_precision(request.param)
    networks: dict[str, Any] = {role: copy.deepcopy(getattr(found, role)) for role in ("clip", "vqgan", "prior")}
    networks["vqgan"].to(memory_format=torch.channels_last)
    monkeypatch.setattr(norm, "fused_norm_works", lambda device: False)
    monkeypatch.setattr(
        torch.autograd,
        "grad",
        lambda outputs, inputs, *_: [torch.empty_like(one) for one in tree_leaves(inputs)],
    )
    with FakeTensorMode():
        yield replace(found, **{role: move(network) for role, network in networks.items()})


def test_a_step_stays_on_its_gpu_and_waits_for_nothing(models: Models) -> None:
    settings = Settings().merged(
        {
            "picture": {"width": 64, "height": 48},
            "painting": {"cuts": 4, "cut_batch": 3, "tv_weight": 0.1, "init_weight": 0.1},
        }
    )
    start = torch.empty(1, models.vqgan.config.embed_dim, 6, 8, device=GPU, memory_format=torch.channels_last)
    residual = torch.empty(1, 3, 48, 64, device=GPU)
    step = LatentStep(models, settings, generator=FakeGenerator(), start=start)
    with Operations() as done:
        target = resolve_target(torch.empty(512, device=GPU), models, settings.painting)
        step.aim(target, temporal_weight=0.1, learning_rate=0.1, residual=residual)
        step.take()
    assert {"aten::convolution", "aten::grid_sampler_2d", "aten::argmin", "aten::rand.generator"} <= done.names
    assert not {"aten::rand", "aten::randn"} & done.names
    assert not done.on_host
    waits = ("local_scalar", "nonzero", "lift_fresh", "pin_memory", "masked_select")
    assert not [name for name in done.names if any(one in name for one in waits)]
    arguments, named = done.adam  # as the fused kernel wants them
    tensors = [one for group in arguments[:4] for one in group]
    assert len(tensors) == 4
    assert {one.stride() for one in tensors} == {(6 * 8 * step.latent.shape[1], 6 * 8, 8, 1)}
    assert {one.dtype for one in tensors} == {torch.float32}
    assert isinstance(named["lr"], Tensor)
