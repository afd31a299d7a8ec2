"""The checks of `make gpu-check` as tests, and the memory of a film; they need a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.conftest import SAMPLES
from tests.gpu_check import checks
from tests.gpu_check.checks import Check
from tests.gpu_check.measure import a_target, make_optimizer
from wav2clip_gen.config import Settings
from wav2clip_gen.models.registry import Models, load_family
from wav2clip_gen.pipeline import render

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")]


@pytest.fixture(scope="module")
def full(full_weights: Path) -> Models:
    return load_family("full", device="cuda", weights_dir=full_weights)


def failed(found: Iterator[Check]) -> list[Check]:
    return [one for one in found if not one.passed]


@pytest.mark.parametrize("name", ["mini", "full"])
def test_networks_compute_what_they_compute_on_a_cpu(name: str, full_weights: Path) -> None:
    here, there = (load_family(name, device=device, weights_dir=full_weights) for device in ("cpu", "cuda"))
    assert not failed(checks.networks(there, here))


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype:UserWarning")
def test_graphs_compute_what_eager_steps_do_and_wait_for_nothing(full: Models) -> None:
    assert not failed(checks.graphs(full, 256, 32))


def test_bf16_and_fp32_give_the_same_picture(full: Models) -> None:
    def picture(precision: str) -> torch.Tensor:
        optimizer = make_optimizer(full, 256, precision=precision, graph=True)
        optimizer.optimize(a_target(full), steps=1, temporal_weight=0)
        return optimizer.decode()

    assert (picture("fp32") - picture("bf16")).abs().mean() < 0.05


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_film_of_published_size_is_made(precision: str, full: Models, tmp_path: Path) -> None:
    torch.cuda.reset_peak_memory_stats()
    settings = Settings().merged(
        {
            "sound": {"duration": 5},
            "picture": {"width": 256, "height": 256, "fps": 4},
            "painting": {"first_steps": 4, "steps": 2, "cuts": 32},
            "run": {"models": "full", "precision": precision, "device": "cuda", "seed": 1},
        }
    )
    film = render(SAMPLES / "africa.ogg", tmp_path / "film.mp4", settings, family=full)
    assert film.frames == 20
    assert torch.cuda.max_memory_allocated() < 8 * 2**30
