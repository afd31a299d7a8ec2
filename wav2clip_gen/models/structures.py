"""What the published files hold: names, shapes and types of their tensors, as data, made from reference code.

Each file in `structures/` is one line a tensor, `name dtype shape`; `python -m tests.structures` makes them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from torch import Tensor

FOLDER = Path(__file__).with_name("structures")
KNOWN = {  # what a person calls them
    "wav2clip": "a Wav2CLIP",
    "vqgan-f16-1024": "a VQGAN (f16, 1,024 codes)",
    "vqgan-f16-8192": "a VQGAN (f16, 8,192 codes)",
    "vqgan-f16-16384": "a VQGAN (f16, 16,384 codes)",
    "vqgan-f8-8192-gumbel": "a Gumbel VQGAN (f8, 8,192 codes)",
    "clip-vit-b-32": "a CLIP ViT-B/32",
    "clip-vit-b-16": "a CLIP ViT-B/16",
    "clip-vit-l-14": "a CLIP ViT-L/14",
    "clip-rn50": "a CLIP RN50",
}
SIGNS = {  # names that tell what else somebody may have given
    "model.diffusion_model.": "a latent diffusion model",
    "transformer.tok_emb.": "a transformer over codes, without a first stage",
    "synthesis.": "a StyleGAN",
    "first_stage_model.": "a VQGAN inside another model, of another size",
    "quantize.proj.": "a Gumbel VQGAN, of another size",
    "quantize.embedding.": "a VQGAN, of another size",
    "audio_encoder.": "a Wav2CLIP, of another size",
    "visual.": "a CLIP, of another size",
    "text_model.": "a CLIP in the names of transformers, which are not read",
}


@cache
def read(name: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Tensor name -> (dtype, shape) of a published network.

    Args:
        name: A key of `KNOWN`.
    """
    lines = (line.split() for line in (FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines())
    return {
        tensor: (dtype, tuple(int(side) for side in shape.split("x") if side != "()")) for tensor, dtype, shape in lines
    }


def recognise(tensors: dict[str, Tensor]) -> str | None:
    """What some tensors probably are, in words; None for something that nobody knows."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}

    def likeness(known: str) -> float:
        structure = read(known)
        return sum(shapes.get(name) == shape for name, (_, shape) in structure.items()) / len(structure)

    best = max(KNOWN, key=likeness)
    if likeness(best) > 0.9:
        return KNOWN[best]
    return next((words for sign, words in SIGNS.items() if any(name.startswith(sign) for name in tensors)), None)
