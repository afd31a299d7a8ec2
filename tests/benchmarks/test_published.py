"""What the published models cost on this machine, with random weights of their size: `make bench` adds it to the table.

These measure; they assert nothing about speed.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from torch import Tensor
from wav2clip_gen.synthesis.painter import Painter

from tests.benchmarks.test_speed import SONG, peak_memory
from wav2clip_gen.config import Settings
from wav2clip_gen.models.registry import Models, load_family

pytestmark = pytest.mark.benchmark
GIB = 2**30


@pytest.fixture(scope="module")
def full(full_weights: Path) -> Models:
    return load_family("full", weights_dir=full_weights)


def artist(family: Models, side: int, cuts: int, cut_batch: int) -> Painter:
    painting = {"cuts": cuts, "cut_batch": cut_batch, "tv_weight": 0.0}
    settings = Settings().merged({"picture": {"width": side, "height": side}, "painting": painting})
    return Painter(family, settings, generator=torch.Generator().manual_seed(0))


def test_full_step_on_a_cpu(table: list[tuple[str, str]], full: Models) -> None:
    painter = artist(full, 256, 32, 0)
    target = full.clip.encode_text(["a dog"])[0]

    def step() -> float:
        began = time.perf_counter()
        list(painter.paint(target, steps=1, inertia=0.1))
        return time.perf_counter() - began

    step()
    table.append(("full: one step at 256x256, 32 cuts, random weights", f"{min(step() for _ in range(3)):.1f} s"))


def test_full_memory_on_a_cpu(table: list[tuple[str, str]], full_weights: Path, tmp_path: Path) -> None:
    arguments = (
        SONG, "-o", tmp_path / "film.mp4", "--models", "full", "--weights-dir", full_weights, "--size", "256x256",
        "--cuts", 32, "--duration", 1, "--fps", 2, "--steps", 1, "--first-steps", 2, "--progress", "none",
    )  # fmt: skip
    peak = peak_memory(*arguments) / 1024
    table.append(("full: peak memory of a film at 256x256, 32 cuts", f"{peak:.2f} GiB"))


class Held:
    """Adds up what autograd keeps for the way back: each storage once, and how much there was at most."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._counts: dict[int, int] = {}

    def __enter__(self) -> Held:
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda kept: kept.tensor)
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.__exit__(*error)

    def _pack(self, tensor: Tensor) -> Kept:
        return Kept(self, tensor)

    def add(self, tensor: Tensor, count: int) -> None:
        """One more, or one less, holds this tensor's storage."""
        storage = tensor.untyped_storage()
        before = self._counts.get(storage.data_ptr(), 0)
        self._counts[storage.data_ptr()] = before + count
        if before == 0 or before + count == 0:
            self.now += count * storage.nbytes()
            self.most = max(self.most, self.now)


class Kept:
    """A tensor that autograd holds; gone when autograd lets go of it."""

    def __init__(self, held: Held, tensor: Tensor) -> None:
        self.tensor, self._held = tensor, held
        held.add(tensor, 1)

    def __del__(self) -> None:
        self._held.add(self.tensor, -1)


@pytest.mark.parametrize(("side", "cuts", "cut_batch"), [(256, 32, 0), (512, 32, 0), (512, 32, 8)])
def test_full_activations(table: list[tuple[str, str]], full: Models, side: int, cuts: int, cut_batch: int) -> None:
    """What a GPU must hold: the weights, and at most so much for the way back; fp32, as measured on the CPU."""
    painter = artist(full, side, cuts, cut_batch)
    target = full.clip.encode_text(["a dog"])[0]
    weights = {p.data_ptr(): p.nbytes for n in (full.wav2clip, full.clip, full.vqgan) for p in n.parameters()}
    with Held() as held:
        for parameter in (*full.clip.parameters(), *full.vqgan.parameters()):
            held.add(parameter, 1)  # autograd refers to weights too: they are counted apart
        held.now = held.most = 0
        list(painter.paint(target, steps=1, inertia=0.1))
    batch = f", --cut-batch {cut_batch}" if cut_batch else ""
    figure = f"{held.most / GIB:.2f} GiB, plus {sum(weights.values()) / GIB:.2f} GiB of weights"
    table.append((f"full: activations of a step at {side}x{side}, {cuts} cuts{batch}", figure))
