"""Measurements: time and memory of a step, of a film and of the sound encoder, on one device."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tests.conftest import ROOT, SAMPLES
from tests.gpu_check.recipe import CommonRecipe
from wav2clip_gen.audio.timeline import Timeline, iterate_windows
from wav2clip_gen.config import Settings, View
from wav2clip_gen.models.registry import Models
from wav2clip_gen.synthesis.conditioning import batch_for
from wav2clip_gen.synthesis.optimizer import FrameOptimizer, generator_for
from wav2clip_gen.synthesis.segments import Shown

WARM_UP = 6  # steps, besides the capture of a graph
RATE = 16_000  # Hz


def synchronise(device: torch.device) -> None:
    """Wait for a device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_each(work: Callable[[], Any], device: torch.device, *, budget: float, batch: int = 8) -> float:
    """Median seconds of a call, from batches of calls for about `budget` seconds; it has run before."""
    taken: list[float] = []
    while sum(taken) < budget or len(taken) < 3:
        synchronise(device)
        began = time.perf_counter()
        for _ in range(batch):
            work()
        synchronise(device)
        taken.append(time.perf_counter() - began)
    return float(np.median(taken)) / batch


def count_flop(models: Models, side: int, cuts: int) -> int:
    """Operations of a step, forwards and backwards: those of convolutions, matrix products and attention."""
    optimizer, target = make_optimizer(models, side, precision="auto", graph=False, cuts=cuts), a_target(models)
    with FlopCounterMode(display=False) as counter:
        optimizer.optimize(target, steps=1, temporal_weight=0.1)
    return int(counter.get_total_flops())


def a_target(models: Models) -> Tensor:
    """Some conditioning vector (D,)."""
    return models.clip.encode_text(["a dog"])[0]


def matmul_speed(device: torch.device, side: int, budget: float) -> float:
    """Operations a second of a bfloat16 matrix product on random data."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    return 2 * side**3 / seconds_each(lambda: a @ b, device, budget=budget)


def make_optimizer(
    models: Models, side: int, *, precision: str, graph: bool, cuts: int = 32, notes: list[str] | None = None
) -> FrameOptimizer:
    """An optimiser of square pictures, with all the default losses; its notes are appended."""
    settings = Settings().merged(
        {
            "picture": {"width": side, "height": side},
            "painting": {"cuts": cuts},
            "run": {"precision": precision, "graph": graph},
        }
    )
    on_note = (notes if notes is not None else []).append
    return FrameOptimizer(models, settings, generator=generator_for(0, models.device), on_note=on_note)


def measure_step(models: Models, side: int, *, precision: str, graph: bool, cuts: int, budget: float) -> dict[str, Any]:
    """Speed and peak memory of a step."""
    device, target = models.device, a_target(models)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    notes: list[str] = []
    optimizer = make_optimizer(models, side, precision=precision, graph=graph, cuts=cuts, notes=notes)
    began = time.perf_counter()
    optimizer.optimize(target, steps=WARM_UP, temporal_weight=0.1)
    synchronise(device)
    warm = time.perf_counter() - began
    seconds = seconds_each(
        lambda: optimizer.optimize(target, steps=8, temporal_weight=0.1), device, budget=budget, batch=1
    )
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return {
        "models": models.name,
        "side": side,
        "cuts": cuts,
        "precision": precision,
        "way": "graph" if graph else "eager",
        "ms": seconds / 8 * 1000,
        "per_second": 8 / seconds,
        "peak_bytes": peak,
        "warm_up_seconds": warm,
        "notes": notes,
    }


def measure_decode(models: Models, side: int, budget: float) -> dict[str, float]:
    """Milliseconds of a shown frame: decoded, moved and copied to the host."""
    optimizer = make_optimizer(models, side, precision="auto", graph=True)
    with torch.no_grad():
        codes = optimizer.models.vqgan.quantise(optimizer.latent)
    view, shown = View(zoom=1.02, brightness=1.05), Shown(codes, np.eye(3))
    optimizer.picture(shown, view).numpy()
    seconds = seconds_each(lambda: optimizer.picture(shown, view), models.device, budget=budget)
    return {"side": side, "ms": seconds * 1000}


def measure_film(arguments: list[str], out: Path, seconds: float) -> dict[str, Any]:
    """Time of `w2c-gen` from its start to the end, and to the first frame."""
    words = [sys.executable, "-m", "wav2clip_gen", str(SAMPLES / "africa.ogg"), "--out", str(out), "--overwrite"]
    words += ["--duration", str(seconds), "--seed", "7", "--progress", "json", *arguments]
    began, first, lines = time.perf_counter(), None, []
    with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=ROOT) as process:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            event = json.loads(line) if line.startswith("{") else {}
            if first is None and event.get("stage") == "optimize" and event.get("done"):
                first = time.perf_counter() - began
    if process.returncode:
        raise RuntimeError("".join(lines[-8:]))
    whole = time.perf_counter() - began
    record = json.loads(out.with_suffix(".json").read_text())
    return {
        "seconds": whole,
        "of_song": record["seconds"]["film"],
        "per_second_of_song": whole / record["seconds"]["film"],
        "first_frame_seconds": first,
        "stages": record["seconds"],
    }


def measure_encoder(models: Models, minutes: float) -> dict[str, Any]:
    """Time of Wav2CLIP over a long sound, at the hop of films."""
    samples = int(minutes * 60 * RATE)
    timeline = Timeline(samples=samples, sample_rate=RATE, fps=Fraction(24))
    block = 0.1 * np.random.default_rng(0).standard_normal(RATE).astype(np.float32)

    def blocks() -> Iterator[NDArray[np.float32]]:
        for first in range(0, samples, RATE):
            yield block[: samples - first]

    began = time.perf_counter()
    encoder = models.wav2clip
    embeddings = encoder.encode_windows(lambda: iterate_windows(blocks(), timeline, batch=batch_for(encoder)))
    return {"minutes": minutes, "windows": len(embeddings), "seconds": time.perf_counter() - began}


def profiled(models: Models, side: int, cuts: int) -> str:
    """A table of the kernels of a few eager steps."""
    from torch.profiler import ProfilerActivity, profile

    target = a_target(models)
    optimizer = make_optimizer(models, side, precision="auto", graph=False, cuts=cuts)
    optimizer.optimize(target, steps=WARM_UP, temporal_weight=0.1)
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if models.device.type == "cuda" else [])]
    with profile(activities=kinds, acc_events=True) as profiler:
        optimizer.optimize(target, steps=5, temporal_weight=0.1)
        synchronise(models.device)
    by = "self_device_time_total" if models.device.type == "cuda" else "self_cpu_time_total"
    return str(profiler.key_averages().table(sort_by=by, row_limit=45, max_name_column_width=90))


def measure_recipe(models: Models, side: int, *, cuts: int, budget: float) -> dict[str, Any]:
    """Speed and peak memory of a step of the common recipe."""
    recipe = CommonRecipe(models, side, cuts)
    device, target = models.device, a_target(models)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(3):
        recipe.step(target)
    seconds = seconds_each(lambda: recipe.step(target), device, budget=budget, batch=2)
    return {
        "models": models.name,
        "side": side,
        "cuts": cuts,
        "precision": "fp32",
        "way": "common recipe",
        "ms": seconds * 1000,
        "per_second": 1 / seconds,
        "peak_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    }
