"""Write `wav2clip_gen/models/structures/`: the tensors of the published files, from reference code alone.

`python -m tests.structures`. The references are the PyPI package wav2clip, taming-transformers' own Encoder and Decoder
joined as its VQModel and GumbelVQ join them, and open_clip's models, with a sound encoder in AudioCLIP; none of our
networks is asked. All is built on the `meta` device, but for open_clip's, which compute while they are built.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from wav2clip_gen.models import convert

DDCONFIG: dict[str, Any] = {
    "double_z": False, "z_channels": 256, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128,
    "num_res_blocks": 2, "dropout": 0.0,
}  # fmt: skip
F16 = {**DDCONFIG, "ch_mult": (1, 1, 2, 2, 4), "attn_resolutions": (16,)}
F8 = {**DDCONFIG, "ch_mult": (1, 1, 2, 4), "attn_resolutions": (32,)}


class VQModel(nn.Module):
    """taming's VQModel, or GumbelVQ, as its inference needs it; written from its published description.

    Args:
        ddconfig: Of Encoder and Decoder.
        n_embed: Codes.
        embed_dim: Dimensions of a code.
        gumbel: Codes are scored by a 1x1 convolution instead of measured.
    """

    def __init__(self, ddconfig: dict[str, Any], *, n_embed: int, embed_dim: int = 256, gumbel: bool = False) -> None:
        super().__init__()
        from taming.modules.diffusionmodules.model import Decoder, Encoder

        channels = ddconfig["z_channels"]
        with contextlib.redirect_stdout(io.StringIO()):
            self.encoder, self.decoder = Encoder(**ddconfig), Decoder(**ddconfig)
        self.quantize = nn.Module()
        if gumbel:
            self.quantize.proj = nn.Conv2d(channels, n_embed, 1)
            self.quantize.embed = nn.Embedding(n_embed, embed_dim)
        else:
            self.quantize.embedding = nn.Embedding(n_embed, embed_dim)
        self.quant_conv = nn.Conv2d(channels, embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(embed_dim, channels, 1)


class PublishedWav2CLIP(nn.Module):
    """The published checkpoint's own names round the package's network."""

    def __init__(self) -> None:
        super().__init__()
        from wav2clip.model.encoder import MLPLayers, ResNetExtractor

        self.audio_encoder = ResNetExtractor(scenario="supervise").encoder
        self.audio_transform = MLPLayers(units=[512, 512, 512])


def clip(architecture: str) -> Callable[[], nn.Module]:
    """A builder of an open_clip model."""

    def build() -> nn.Module:
        import open_clip

        network: nn.Module = open_clip.create_model(architecture, pretrained=None, load_weights=False)
        return network

    return build


def audioclip() -> nn.Module:
    """AudioCLIP, as its code joins torchvision's ResNeXt-50, attention and wavelets with CLIP's RN50."""
    from torchvision.models import resnext50_32x4d

    network, audio = clip("RN50-quickgelu")(), resnext50_32x4d(num_classes=1024)
    audio.register_buffer("window", torch.zeros(1654))
    audio.fbsp = nn.ParameterDict({"m": torch.zeros(1025), "fb": torch.zeros(1025), "fc": torch.zeros(1025)})
    audio.fbsp["bias"] = nn.Parameter(torch.zeros(0))
    places = ((64, 256, (3, 1)), (256, 512, (1, 5)), (512, 1024, (3, 1)), (1024, 2048, (1, 5)), (2048, 2048, (3, 5)))
    for number, (channels_in, channels, kernel) in enumerate(places, 1):
        attention = nn.Module()
        attention.conv_depth = nn.Conv2d(channels_in, channels_in, kernel, groups=channels_in)
        attention.conv_point = nn.Conv2d(channels_in, channels, 1)
        attention.bn = nn.BatchNorm2d(channels)
        audio.add_module(f"att{number}", attention)
    network.audio = audio
    network.logit_scale_ai, network.logit_scale_at = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))
    return network


REFERENCES: dict[str, Callable[[], nn.Module]] = {
    "wav2clip": PublishedWav2CLIP,
    "vqgan-f16-1024": lambda: VQModel(F16, n_embed=1024),
    "vqgan-f16-8192": lambda: VQModel(F16, n_embed=8192),
    "vqgan-f16-16384": lambda: VQModel(F16, n_embed=16_384),
    "vqgan-f8-8192-gumbel": lambda: VQModel(F8, n_embed=8192, gumbel=True),
    "clip-vit-b-32": clip("ViT-B-32-quickgelu"),
    "clip-vit-b-16": clip("ViT-B-16-quickgelu"),
    "clip-vit-l-14": clip("ViT-L-14-quickgelu"),
    "audioclip": audioclip,
    "clip-rn50": clip("RN50-quickgelu"),
}


def lines(name: str) -> str:
    """The file of one published network."""
    where = "cpu" if name.startswith(("clip", "audioclip")) else "meta"
    with torch.device(where):
        tensors = REFERENCES[name]().state_dict()
    return "".join(
        f"{tensor} {str(value.dtype).removeprefix('torch.')} {'x'.join(map(str, value.shape)) or '()'}\n"
        for tensor, value in tensors.items()
    )


def main() -> None:
    """Write all files."""
    convert.STRUCTURES.mkdir(exist_ok=True)
    for name in REFERENCES:
        (convert.STRUCTURES / f"{name}.txt").write_text(lines(name), encoding="utf-8")


if __name__ == "__main__":
    main()
