"""What only a GPU can show: the same numbers as on the CPU, both precisions, no wait for the host inside a step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from wav2clip_gen.synthesis.painter import Painter

from tests.conftest import SAMPLES
from wav2clip_gen.config import Settings
from wav2clip_gen.models.registry import Models, load_family
from wav2clip_gen.pipeline import render

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")]


@pytest.fixture(scope="module")
def full(full_weights: Path) -> Models:
    return load_family("full", device="cuda", weights_dir=full_weights)


def settings(precision: str) -> Settings:
    return Settings().merged(
        {
            "sound": {"duration": 5},
            "picture": {"width": 256, "height": 256, "fps": 4},
            "painting": {"first_steps": 4, "steps": 2, "cuts": 32},
            "run": {"models": "full", "precision": precision, "device": "cuda", "seed": 1},
        }
    )


@torch.no_grad()
@pytest.mark.parametrize("name", ["mini", "full"])
def test_networks_compute_what_they_compute_on_a_cpu(name: str, full_weights: Path) -> None:
    here, there = (load_family(name, device=device, weights_dir=full_weights) for device in ("cpu", "cuda"))
    windows = torch.randn(4, 16_000, generator=torch.Generator().manual_seed(0))
    pictures = torch.rand(1, 3, here.clip.size, here.clip.size, generator=torch.Generator().manual_seed(1))
    codes = here.vqgan.quantize.codes[:16].T.reshape(1, -1, 4, 4)
    for expected, found in (
        (here.wav2clip.encode_windows(lambda: [windows]), there.wav2clip.encode_windows(lambda: [windows])),
        (here.clip.encode_images(pictures), there.clip.encode_images(pictures.cuda())),
        (here.clip.encode_text(["a dog"]), there.clip.encode_text(["a dog"])),
        (here.vqgan.decode(codes), there.vqgan.decode(codes.cuda())),
    ):
        torch.testing.assert_close(found.cpu(), expected, atol=5e-3, rtol=5e-3)  # TF32 convolutions


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_film_of_published_size_is_made(precision: str, full: Models, tmp_path: Path) -> None:
    torch.cuda.reset_peak_memory_stats()
    film = render(SAMPLES / "africa.ogg", tmp_path / "film.mp4", settings(precision), family=full)
    assert film.frames == 20
    assert torch.cuda.max_memory_allocated() < 8 * 2**30


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_step_waits_for_the_host(precision: str, full: Models) -> None:
    painter = Painter(full, settings(precision), generator=torch.Generator("cuda").manual_seed(0))
    target = full.clip.encode_text(["a dog"])[0]
    list(painter.paint(target, steps=2, inertia=0.1))  # the first steps find their algorithms
    torch.cuda.set_sync_debug_mode("error")
    try:
        list(painter.paint(target, steps=3, inertia=0.1))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_bf16_paints_what_fp32_paints(full: Models) -> None:
    target = full.clip.encode_text(["a dog"])[0]

    def picture(precision: str) -> torch.Tensor:
        painter = Painter(full, settings(precision), generator=torch.Generator("cuda").manual_seed(0))
        list(painter.paint(target, steps=1, inertia=0))
        return painter.show()

    assert (picture("fp32") - picture("bf16")).abs().mean() < 0.05
