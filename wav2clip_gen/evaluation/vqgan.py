"""How well the painter draws again what it was not trained on, and with how many of its codes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wav2clip_gen.evaluation.held_out import HeldOut
from wav2clip_gen.evaluation.parts import OnProgress
from wav2clip_gen.evaluation.tables import Table
from wav2clip_gen.models.families import Family
from wav2clip_gen.synthesis.optimizer import autocast
from wav2clip_gen.training.reconstruction import PerceptualFeatures

BATCH = 8


@dataclass(frozen=True, kw_only=True)
class VQGANFigures:
    """What was measured on pictures encoded, replaced by codes and decoded."""

    pictures: int
    size: int  # pixels along each side
    psnr: float  # dB, mean over the pictures
    distance: float | None  # of the image tower's features; None where the tower does not give them
    codes: int
    codes_used: int  # at least once
    perplexity: float  # codes that would be used this evenly
    lattice: float  # largest over smallest mean step between pixels, by where in its cell the step is; 1 is even
    lattice_of_pictures: float  # the same in the pictures themselves

    def table(self) -> Table:
        """The figures, for people."""
        rows = [
            ("PSNR", f"{self.psnr:.2f} dB", ""),
            ("codes in use", f"{100 * self.codes_used / self.codes:.1f} % ({self.codes_used:,} of {self.codes:,})", ""),
            ("perplexity of the codes", f"{self.perplexity:,.0f} of {self.codes:,}", ""),
            (
                "lattice: steps between pixels by their place in a cell, largest over smallest",
                f"{self.lattice:.3f} (the pictures themselves: {self.lattice_of_pictures:.3f})",
                "",
            ),
        ]
        if self.distance is not None:
            rows.insert(1, ("LPIPS-like distance", f"{self.distance:.3f}", ""))
        return Table(
            title="VQGAN: pictures drawn again from codes",
            header=("measure", "figure", ""),
            rows=tuple(rows),
            notes=(
                f"{self.pictures:,} validation photographs of {self.size} px, not trained on. The distance is that of"
                " the family's own image tower, with which the VQGAN may have been trained: it compares one VQGAN with"
                " another, not with published LPIPS.",
            ),
        )


@torch.no_grad()
def measure_vqgan(family: Family, held_out: HeldOut, *, on_progress: OnProgress) -> VQGANFigures:
    """Draw the validation photographs again and compare."""
    vqgan, pictures = family.vqgan, held_out.pictures
    features = _features(family)
    in_bf16 = autocast("auto", family.device)
    decibels: list[Tensor] = []
    distances: list[Tensor] = []
    steps = torch.zeros(2, vqgan.stride, dtype=torch.float64)  # of drawn and true pictures, by place in a cell
    counts = torch.zeros(vqgan.config.n_embed, device=family.device)
    for start in range(0, len(pictures), BATCH):
        true = pictures.pixels[start : start + BATCH].to(family.device).float() / 255
        with in_bf16():
            latent = vqgan.encode(true).float()
        indices = vqgan.quantize.nearest(latent)
        counts += torch.bincount(indices.flatten(), minlength=len(counts))
        with in_bf16():
            drawn = vqgan.decode(vqgan.quantize.look_up(indices))
        drawn = drawn.float().clamp(0, 1)
        decibels.append(-10 * (drawn - true).square().mean(dim=(1, 2, 3)).clamp(min=1e-10).log10())
        steps += len(true) * torch.stack([_steps(drawn, vqgan.stride), _steps(true, vqgan.stride)])
        if features is not None:
            distances.append(features.distance(drawn, true) * len(true))
        on_progress(start + len(true), len(pictures))
    shares = counts / counts.sum()
    lattice = (steps.amax(dim=1) / steps.amin(dim=1).clamp(min=1e-12)).tolist()
    return VQGANFigures(
        pictures=len(pictures),
        size=pictures.size,
        psnr=torch.cat(decibels).mean().item(),
        distance=torch.stack(distances).sum().item() / len(pictures) if distances else None,
        codes=len(counts),
        codes_used=int((counts > 0).sum()),
        perplexity=(-(shares * shares.clamp(min=1e-12).log()).sum()).exp().item(),
        lattice=lattice[0],
        lattice_of_pictures=lattice[1],
    )


def _features(family: Family) -> PerceptualFeatures | None:
    """The features of the image tower's stages, where it is a tower of stages."""
    if not hasattr(getattr(family.clip.model.visual, "trunk", None), "forward_intermediates"):
        return None
    return PerceptualFeatures(family.files["clip"]).to(family.device)


def _steps(pictures: Tensor, stride: int) -> Tensor:
    """Mean |difference| (stride,) of neighbouring pixels, by where in a cell of the latent they are."""
    by_axis = []
    for differences in (pictures.diff(dim=-1), pictures.diff(dim=-2).transpose(-1, -2)):
        columns = differences.abs().mean(dim=(0, 1, 2))  # (S - 1,)
        by_axis.append(torch.stack([columns[place::stride].mean() for place in range(stride)]))
    return torch.stack(by_axis).mean(dim=0).double().cpu()
