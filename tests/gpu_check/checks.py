"""Whether a device computes what a CPU does, and a captured step what an eager one does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tests.conftest import SAMPLES
from tests.gpu_check.measure import a_target, make_optimizer
from wav2clip_gen.config import Settings, View
from wav2clip_gen.images import read_covering
from wav2clip_gen.models.registry import Models
from wav2clip_gen.pipeline import render
from wav2clip_gen.synthesis.graph import LATENT_TOLERANCE, LOSS_TOLERANCE, GraphedStep
from wav2clip_gen.synthesis.optimizer import FrameOptimizer, to_bytes

NETWORKS = 5e-3  # relative error of a network in float32; a GPU's convolutions are in TF32, of 10 bits
HALF = 0.06  # of a picture in bfloat16, mean absolute
FILM = 0.12  # mean difference of frames: both films start alike, and rounding then leads them apart


@dataclass(frozen=True)
class Check:
    """What was compared, and how far it may be off."""

    what: str
    error: float
    limit: float
    detail: str = ""

    @property
    def passed(self) -> bool:
        """Whether it is within its limit; nan is not."""
        return self.error <= self.limit


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference, relative to that of what is expected."""
    found, expected = found.double().cpu(), expected.double().cpu()
    return float((found - expected).norm() / expected.norm())


@torch.no_grad()
def networks(there: Models, here: Models) -> Iterator[Check]:
    """Each network on the device against the CPU, in float32."""
    device, size = there.device, here.clip.size
    windows = torch.randn(4, 16_000, generator=torch.Generator().manual_seed(0))
    pictures = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    codes = here.vqgan.quantize.codes[:64].T.reshape(1, -1, 8, 8)
    whole = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    pairs = {
        "Wav2CLIP": [one.wav2clip.encode_windows(lambda: [windows]) for one in (there, here)],
        "CLIP, pictures": [one.clip.encode_images(pictures.to(one.device)) for one in (there, here)],
        "CLIP, texts": [one.clip.encode_text(["a dog", "rain"]) for one in (there, here)],
        "VQGAN, decoder": [one.vqgan.decode(codes.to(one.device)) for one in (there, here)],
        "VQGAN, encoder": [one.vqgan.encode(whole.to(one.device)) for one in (there, here)],
    }
    for name, (found, expected) in pairs.items():
        yield Check(f"{there.name}: {name}, {device.type} against cpu, fp32", relative(found, expected), NETWORKS)
    half, full = (there.in_precision(name).vqgan.decode(codes.to(device)) for name in ("bf16", "fp32"))
    yield Check(f"{there.name}: decoded picture, bf16 against fp32", float((half - full).abs().mean()), HALF)


def graphs(models: Models, side: int, cuts: int) -> Iterator[Check]:
    """Captured steps against eager ones, in both precisions; on a CPU there is nothing to capture."""
    if models.device.type != "cuda":
        return
    for precision in ("fp32", "bf16"):
        target, notes = a_target(models), list[str]()
        optimizer = make_optimizer(models, side, precision=precision, graph=False, cuts=cuts)
        optimizer.optimize(target, steps=2, temporal_weight=0.1)
        graphed = GraphedStep(optimizer.step, on_note=notes.append)
        graphed.take()
        loss, latent = graphed.deviation or (float("nan"), float("nan"))
        detail = "; ".join(notes)
        what = f"{models.name} {side} px, {precision}: graph against eager after 3 steps"
        yield Check(f"{what}, loss", loss, LOSS_TOLERANCE, detail)
        yield Check(f"{what}, latent, of its way", latent, LATENT_TOLERANCE)
    waited = "; ".join(steps_without_waiting(models, side, cuts))
    yield Check(f"{models.name} {side} px: steps that wait for the host", float(bool(waited)), 0, waited)


def steps_without_waiting(models: Models, side: int, cuts: int) -> Iterator[str]:
    """Take steps and show frames where waiting for the GPU is an error; yields what waited."""
    target, view = a_target(models), View(zoom=1.02, brightness=1.05)
    for graph in (False, True):
        optimizer = make_optimizer(models, side, precision="auto", graph=graph, cuts=cuts)

        def work(optimizer: FrameOptimizer = optimizer) -> None:
            optimizer.optimize(target, steps=3, temporal_weight=0.1)
            to_bytes(optimizer.decode(view))

        work()  # captures graphs, which waits
        torch.cuda.set_sync_debug_mode("error")
        try:
            work()
        except RuntimeError as error:
            yield f"{'graph' if graph else 'eager'}: {str(error).splitlines()[0]}"
        finally:
            torch.cuda.set_sync_debug_mode("default")


def film(folder: Path, device: str, side: int) -> Check:
    """A short film of the small family on the device against the CPU, from the same start."""
    settings = Settings().merged(
        {
            "sound": {"duration": 1},
            "picture": {"width": side, "height": side},
            "painting": {"first_steps": 20, "cuts": 4, "init_image": str(SAMPLES / "preview.png")},
            "run": {"models": "mini", "seed": 1, "precision": "fp32"},
        }
    )
    made = []
    for number, name in enumerate(("cpu", device)):
        path, frames = folder / f"on-{number}.mp4", folder / f"on-{number}"
        render(SAMPLES / "africa.ogg", path, settings.merged({"run": {"device": name}}), frames_dir=frames)
        made.append(
            np.stack([read_covering(one, side, side) for one in sorted(frames.glob("*.png"))]).astype(np.float32) / 255
        )
    return Check(f"mini: a film of 1 s, {device} against cpu", float(np.abs(made[0] - made[1]).mean()), FILM)
