"""The VQGAN (Esser et al., arXiv 2012.09841): a picture as a grid of codes, and back.

Encoder and Decoder are taming-transformers'; codebook and straight-through are ours, because the package's own
model files import a module that lightning dropped. State-dict names are those of the CompVis checkpoints.
"""

from __future__ import annotations

import contextlib
import copy
import io
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from taming.modules.diffusionmodules.model import Decoder, Encoder, ResnetBlock
from torch import Tensor, nn

from wav2clip_gen.models.norm import FastResnetBlock, norm_silu


@dataclass(frozen=True, kw_only=True)
class VQGANConfig:
    """Size of the networks, named as in taming's `ddconfig`; the defaults are ImageNet f16 16384."""

    ch: int = 128  # channels at full resolution
    ch_mult: tuple[int, ...] = (1, 1, 2, 2, 4)  # channels per level; each level after the first halves the picture
    num_res_blocks: int = 2
    attn_resolutions: tuple[int, ...] = (16,)
    resolution: int = 256  # pixels in training; only decides where the attention blocks are
    z_channels: int = 256
    embed_dim: int = 256  # dimensions of a code
    n_embed: int = 16_384  # codes
    norm_groups: int = 32  # of the group norms; taming fixes 32, where at ch = 32 a group is a single channel
    gumbel: bool = False  # trained by Gumbel softmax (arXiv 1611.01144): the encoder scores the codes


class Codebook(nn.Module):
    """Codes in one matrix, `embedding.weight`, and the quantization of a latent to them.

    In a Gumbel VQGAN they are `embed.weight`, and `proj` scores them: the encoder's output stands for the code with the
    highest score. A latent that is optimized is in the space of the codes in every VQGAN, and quantized to the nearest.
    """

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        self.gumbel = config.gumbel
        if config.gumbel:
            self.proj = nn.Conv2d(config.z_channels, config.n_embed, 1)
            self.embed = nn.Embedding(config.n_embed, config.embed_dim)
        else:
            self.embedding = nn.Embedding(config.n_embed, config.embed_dim)
            nn.init.uniform_(self.embedding.weight, -1 / config.n_embed, 1 / config.n_embed)

    @property
    def codes(self) -> Tensor:
        """All codes, (n_embed, embed_dim)."""
        return (self.embed if self.gumbel else self.embedding).weight

    def nearest(self, latent: Tensor) -> Tensor:
        """Index (B, h, w) of the code nearest to each cell of a latent (B, D, h, w)."""
        cells = rearrange(latent, "b d h w -> (b h w) d").to(self.codes.dtype)
        # |cell - code|^2 without |cell|^2, which does not change the minimum
        scores = torch.addmm(self.codes.square().sum(dim=1), cells, self.codes.T, alpha=-2)
        return scores.argmin(dim=1).view(latent.shape[0], *latent.shape[2:])

    def look_up(self, indices: Tensor) -> Tensor:
        """Codes (B, D, h, w) of indices (B, h, w)."""
        return rearrange(F.embedding(indices, self.codes), "b h w d -> b d h w")

    def latent(self, encoded: Tensor) -> Tensor:
        """The latent (B, D, h, w) of the encoder's output: itself, or the codes with the highest scores."""
        return self.look_up(self.proj(encoded).argmax(dim=1)) if self.gumbel else encoded


class VQGAN(nn.Module):
    """Pictures are (B, 3, H, W) in [0, 1]; latents (B, embed_dim, H / stride, W / stride), of any grid size."""

    def __init__(self, config: VQGANConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or VQGANConfig()
        networks = {
            "ch": config.ch, "ch_mult": config.ch_mult, "num_res_blocks": config.num_res_blocks,
            "attn_resolutions": config.attn_resolutions, "resolution": config.resolution,
            "z_channels": config.z_channels, "in_channels": 3, "out_ch": 3, "double_z": False, "dropout": 0.0,
        }  # fmt: skip
        with contextlib.redirect_stdout(io.StringIO()):  # taming prints the latent's shape when built
            self.encoder = Encoder(**networks)
            self.decoder = Decoder(**networks)
        self.decoder.give_pre_end = True  # its last norm is ours too, in `decode`
        for module in self.modules():
            if isinstance(module, nn.GroupNorm):
                module.num_groups = config.norm_groups
            elif isinstance(module, ResnetBlock):
                module.__class__ = FastResnetBlock  # the same parameters, a faster forward pass
        self.quantize = Codebook(config)
        self.quant_conv = nn.Conv2d(config.z_channels, config.embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.embed_dim, config.z_channels, 1)

    @property
    def stride(self) -> int:
        """Pixels per latent cell, along each side."""
        return int(2 ** (len(self.config.ch_mult) - 1))

    def encode(self, pictures: Tensor) -> Tensor:
        """Map pictures (B, 3, H, W) in [0, 1] to latents (B, D, h, w); continuous, but codes in a Gumbel VQGAN."""
        encoded = self.encoder((pictures * 2 - 1).to(self._dtype))
        return self.quantize.latent(self.quant_conv(encoded).float())

    def quantise(self, latent: Tensor) -> Tensor:
        """Replace each cell by its nearest code; the gradient passes straight through to `latent`."""
        codes = self.quantize.look_up(self.quantize.nearest(latent.detach()))
        return latent + (codes - latent).detach()

    def decode(self, quantised: Tensor, *, recompute: bool = False) -> Tensor:
        """Map quantised latents (B, D, h, w) to pictures (B, 3, H, W), in about [0, 1] but not clamped.

        With `recompute`, the backward pass computes activations again instead of keeping them.
        """
        for block in self.decoder.modules():
            if isinstance(block, FastResnetBlock):
                block.recompute = recompute
        hidden = norm_silu(self.decoder.norm_out, self.decoder(self.post_quant_conv(quantised.to(self._dtype))))
        return (self.decoder.conv_out(hidden).float() + 1) / 2

    @property
    def _dtype(self) -> torch.dtype:
        return self.quant_conv.weight.dtype

    def in_bf16(self) -> VQGAN:
        """A copy with encoder and decoder in bfloat16; the codebook stays float32, as bfloat16 confuses near codes."""
        copied = copy.deepcopy(self, {id(self.quantize): self.quantize})
        for network in (copied.encoder, copied.decoder, copied.quant_conv, copied.post_quant_conv):
            network.to(torch.bfloat16)
        return copied
