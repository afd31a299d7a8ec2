"""The perceptor: CLIP's embeddings of pictures and texts, through open_clip.

The small family's CLIP is an open_clip model like the published ones, built from `architectures/w2c-mini.json`; its
image tower is a timm network that this file registers.
"""

from __future__ import annotations

import copy
import logging
import warnings
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn

QUICK_GELU = 1.702  # OpenAI's slope
ARCHITECTURES = Path(__file__).with_name("architectures")


class Perceptor(nn.Module):
    """An open_clip model with its preprocessing: pictures and texts to unit vectors."""

    mean: Tensor  # (1, 3, 1, 1), what the image tower subtracts
    deviation: Tensor  # (1, 3, 1, 1), what it divides by

    def __init__(
        self, architecture: str, *, mean: tuple[float, ...] | None = None, std: tuple[float, ...] | None = None
    ) -> None:
        """Build an untrained model.

        Args:
            architecture: A name that open_clip knows, ours included.
            mean: Of the colors it was trained on, in [0, 1]; the architecture's own when None.
            std: Their standard deviation, likewise.
        """
        super().__init__()
        _register_architectures()
        import open_clip

        self.architecture = architecture
        with silent_log():  # it warns that weights are missing; they come later
            self.model = open_clip.create_model(architecture, pretrained=None, load_weights=False)
        self.tokenizer = open_clip.get_tokenizer(architecture)
        visual: Any = self.model.visual
        preprocessing = visual.preprocess_cfg
        size = preprocessing["size"]  # a number for ResNets, (height, width) for transformers
        self.size: int = size if isinstance(size, int) else size[0]  # px along each side of what the image tower takes
        colors = {"mean": mean or preprocessing["mean"], "deviation": std or preprocessing["std"]}
        for name, values in colors.items():
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.mean.device

    @property
    def scale(self) -> Tensor:
        """The inverse temperature () of its cosines."""
        scale: Tensor = self.model.logit_scale
        return scale.exp()

    def encode_images(self, images: Tensor) -> Tensor:
        """Map pictures (B, 3, size, size) in [0, 1] to unit vectors (B, D); differentiable."""
        features = self.model.encode_image(((images - self.mean) / self.deviation).to(self._dtype))
        return F.normalize(features.float(), dim=-1)

    @property
    def _dtype(self) -> torch.dtype:
        """What the image tower computes in."""
        return next(self.model.visual.parameters()).dtype

    def in_bf16(self) -> Perceptor:
        """The same with its image tower in bfloat16."""
        shared = [module for name, module in self.model.named_children() if name != "visual"]
        copied = copy.deepcopy(self, {id(module): module for module in shared})
        for block in copied.model.visual.modules():
            if isinstance(block, ResidualAttentionBlock):
                _speed_up(block)
        copied.model.visual.to(torch.bfloat16)
        return copied

    def encode_text(self, texts: list[str]) -> Tensor:
        """Map texts to unit vectors (len(texts), D)."""
        tokens = self.tokenizer(texts).to(self.device)
        return F.normalize(self.model.encode_text(tokens).float(), dim=-1)

    def unread(self, texts: list[str]) -> list[str]:
        """The end of each text that does not fit into the tokenizer's context; empty where all of it is read."""
        nothing = self.tokenizer([""])[0]
        return [
            self._beyond(text, row) if row[-1] != nothing[-1] or torch.equal(row, nothing) else ""
            for text, row in zip(texts, self.tokenizer(texts), strict=True)
        ]

    def _beyond(self, text: str, tokens: Tensor) -> str:
        """What follows the shortest beginning of a text that has its tokens."""

        def fills(count: int) -> bool:
            return torch.equal(self.tokenizer([text[:count]])[0], tokens)

        return text[bisect_left(range(len(text) + 1), True, key=fills) :].strip()

    def embed_pictures(self, pictures: Tensor) -> Tensor:
        """Deprecated name of `encode_images`."""
        warnings.warn("Perceptor.embed_pictures is now encode_images", DeprecationWarning, stacklevel=2)
        return self.encode_images(pictures)

    def embed_text(self, texts: list[str]) -> Tensor:
        """Deprecated name of `encode_text`."""
        warnings.warn("Perceptor.embed_text is now encode_text", DeprecationWarning, stacklevel=2)
        return self.encode_text(texts)


class ConceptPrior(nn.Module):
    """What a family expects pictures of a concept to look like: its text embedding, and some color layouts.

    A sound's embedding is far from that of every picture and text (the modality gap, arXiv 2203.02053), but nearest to
    those of the right texts. So it is not the target itself: it is classified among concepts, as CLIP classifies
    pictures, and those concepts are the target.
    """

    def __init__(self, *, concepts: tuple[str, ...], embedding: int = 512, side: int = 16, modes: int = 1) -> None:
        """Build an empty one.

        Args:
            concepts: Their K names.
            embedding: D, dimensions of CLIP's space.
            side: Cells of a layout along each side.
            modes: M, layouts of each concept, of which a film has one.
        """
        super().__init__()
        self.concepts, self.modes = concepts, modes
        self.words = nn.Parameter(torch.zeros(len(concepts), embedding))  # (K, D) unit vectors of their texts
        self.layouts = nn.Parameter(torch.zeros(len(concepts) * modes, 3, side, side))  # about [0, 1]; by concept

    def concept_log_probs(self, points: Tensor, scale: Tensor) -> Tensor:
        """Log-probabilities (..., K) of the concepts at unit vectors (..., D).

        Zero-shot classification as in CLIP (arXiv 2103.00020, section 3.1); `scale` is its inverse temperature.
        """
        return (scale * points @ self.words.T).log_softmax(dim=-1)

    def embed_concepts(self, probs: Tensor) -> Tensor:
        """The unit vector (D,) of a mixture of concepts (K,) in text space."""
        return F.normalize(probs @ self.words, dim=-1)

    def draw_layouts(self, seed: int) -> Tensor:
        """One layout of each concept, (K, 3, side, side): what a film of this seed expects."""
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randint(self.modes, (len(self.concepts),), generator=generator)
        return self.layouts[(torch.arange(len(chosen)) * self.modes + chosen).to(self.layouts.device)]


def mix_layouts(layouts: Tensor, probs: Tensor) -> Tensor:
    """The colors (1, 3, s, s) in [0, 1] of a mixture (K,) of concepts with these layouts (K, 3, s, s)."""
    return torch.einsum("k, k c h w -> c h w", probs, layouts).clamp(0, 1).unsqueeze(0)


class FastAttentionBlock(ResidualAttentionBlock):  # type: ignore[misc]
    """A transformer's block whose attention copies nothing between its matrix products."""

    def attention(
        self, q_x: Tensor, k_x: Tensor | None = None, v_x: Tensor | None = None, attn_mask: Tensor | None = None
    ) -> Tensor:
        """Self-attention (B, L, D) -> (B, L, D), without a mask."""
        attn = self.attn
        packed = F.linear(q_x, attn.in_proj_weight, attn.in_proj_bias)
        query, key, value = packed.unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        projected: Tensor = attn.out_proj(mixed.transpose(1, 2).flatten(2))
        return projected


@torch.no_grad()
def _speed_up(block: ResidualAttentionBlock) -> None:
    """Let a block of an image tower compute the same in fewer passes over memory."""
    if block.attn.batch_first and block.attn.in_proj_bias is not None and not hasattr(block, "ln_1_kv"):
        block.__class__ = FastAttentionBlock  # the same parameters, a faster forward pass
    if isinstance(block.mlp.gelu, QuickGELU):  # x * sigmoid(1.702 x) is SiLU(1.702 x) / 1.702
        block.mlp.c_fc.weight *= QUICK_GELU
        block.mlp.c_fc.bias *= QUICK_GELU
        block.mlp.c_proj.weight /= QUICK_GELU
        block.mlp.gelu = nn.SiLU()


@contextmanager
def silent_log() -> Iterator[None]:
    """Drop what is logged to the root logger, and keep `logging` from giving it a handler of its own."""
    root, nowhere = logging.getLogger(), logging.NullHandler()
    disabled = root.manager.disable
    root.addHandler(nowhere)
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(disabled)
        root.removeHandler(nowhere)


@cache
def _register_architectures() -> None:
    """Make our architectures known to open_clip and timm, once a process."""
    import open_clip
    from timm.models import build_model_with_cfg, register_model
    from timm.models.byobnet import ByobNet

    def w2c_mini_resnet(pretrained: bool = False, **options: Any) -> nn.Module:
        """A ResNet of four stages with SiLU, for 64 px pictures."""
        options["pretrained_cfg"] = {"url": "", "num_classes": 0, "pool_size": (4, 4), "classifier": "head.fc"}
        return build_model_with_cfg(ByobNet, "w2c_mini_resnet", pretrained, model_cfg=_mini_resnet(), **options)

    w2c_mini_resnet.__module__ = __name__  # timm files a model under its module
    register_model(w2c_mini_resnet)
    open_clip.add_model_config(ARCHITECTURES)


def _mini_resnet() -> Any:
    from timm.models.byobnet import ByoBlockCfg, ByoModelCfg

    widths, strides = (32, 64, 128, 256), (1, 2, 2, 2)
    stages = tuple(
        ByoBlockCfg(type="basic", d=1, c=width, s=stride, gs=0, br=1.0)
        for width, stride in zip(widths, strides, strict=True)
    )
    return ByoModelCfg(blocks=stages, stem_chs=32, stem_type="3x3", stem_pool=None, act_layer="silu")
