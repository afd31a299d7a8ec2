"""Reconstruction of held-out photographs by the VQGAN, and its use of the codebook."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from wav2clip_gen.evaluation.held_out import HeldOut, batches
from wav2clip_gen.evaluation.tables import Row, Table, format_share
from wav2clip_gen.models.registry import Models
from wav2clip_gen.synthesis.optimizer import autocast
from wav2clip_gen.training.reconstruction import PerceptualFeatures

BATCH = 8


@torch.no_grad()
def measure(family: Models, held_out: HeldOut, *, on_progress: Callable[[int, int], None]) -> Table:
    """Encode, quantize and decode the validation photographs, and compare them with the originals."""
    vqgan, pictures = family.vqgan, held_out.photographs
    features = _features(family)
    in_bf16 = autocast("auto", family.device)
    decibels: list[Tensor] = []
    distances: list[Tensor] = []
    steps = torch.zeros(2, vqgan.stride, dtype=torch.float64)  # of reconstructions and originals, by place in a cell
    counts = torch.zeros(vqgan.config.n_embed, device=family.device)
    done = 0
    for original in batches(pictures, family.device, batch=BATCH):
        with in_bf16():
            latent = vqgan.encode(original).float()
        indices = vqgan.quantize.nearest(latent)
        counts += torch.bincount(indices.flatten(), minlength=len(counts))
        with in_bf16():
            decoded = vqgan.decode(vqgan.quantize.look_up(indices))
        decoded = decoded.float().clamp(0, 1)
        decibels.append(-10 * (decoded - original).square().mean(dim=(1, 2, 3)).clamp(min=1e-10).log10())
        steps += len(original) * torch.stack([mean_steps(decoded, vqgan.stride), mean_steps(original, vqgan.stride)])
        if features is not None:
            distances.append(features.distance(decoded, original) * len(original))
        done += len(original)
        on_progress(done, len(pictures))
    shares = counts / counts.sum()
    lattice, lattice_of_pictures = (steps.amax(dim=1) / steps.amin(dim=1).clamp(min=1e-12)).tolist()
    return _table(
        pictures=len(pictures),
        size=pictures.size,
        psnr=torch.cat(decibels).mean().item(),
        distance=torch.stack(distances).sum().item() / len(pictures) if distances else None,
        codes=len(counts),
        codes_used=int((counts > 0).sum()),
        perplexity=(-(shares * shares.clamp(min=1e-12).log()).sum()).exp().item(),
        lattice=lattice,
        lattice_of_pictures=lattice_of_pictures,
    )


def _table(**figures: Any) -> Table:
    codes, distance = figures["codes"], figures["distance"]
    lattice = f"{figures['lattice']:.3f} (originals: {figures['lattice_of_pictures']:.3f})"
    rows: list[Row] = [
        ("PSNR", f"{figures['psnr']:.2f} dB", ""),
        *([] if distance is None else [("LPIPS-like distance", f"{distance:.3f}", "")]),
        ("codes in use", format_share(figures["codes_used"], codes), ""),
        ("perplexity of the codes", f"{figures['perplexity']:,.0f} of {codes:,}", ""),
        ("lattice: mean steps between pixels by their place in a cell, largest over smallest", lattice, ""),
    ]
    note = (
        f"{figures['pictures']:,} validation photographs of {figures['size']} px, not trained on. The distance is that"
        " of the family's own image tower, with which the VQGAN may have been trained: it compares VQGANs with each"
        " other, not with published LPIPS."
    )
    title, header = "VQGAN: reconstruction of photographs", ("measure", "figure", "")
    return Table(title=title, header=header, rows=rows, notes=[note], figures=figures)


def _features(family: Models) -> PerceptualFeatures | None:
    """The features of the image tower's stages, if it has stages."""
    if not hasattr(getattr(family.clip.model.visual, "trunk", None), "forward_intermediates"):
        return None
    return PerceptualFeatures(family.files["clip"]).to(family.device)


def mean_steps(pictures: Tensor, stride: int) -> Tensor:
    """Mean |difference| (stride,) of neighbouring pixels, by their place in a cell of the latent."""
    by_axis = []
    for differences in (pictures.diff(dim=-1), pictures.diff(dim=-2).transpose(-1, -2)):
        columns = differences.abs().mean(dim=(0, 1, 2))  # (S - 1,)
        by_axis.append(torch.stack([columns[place::stride].mean() for place in range(stride)]))
    return torch.stack(by_axis).mean(dim=0).double().cpu()
