"""Which device runs the networks, also where a GPU is listed but does not work."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.conftest import Write
from wav2clip_gen import devices, pipeline
from wav2clip_gen.config import Settings
from wav2clip_gen.devices import choose_device
from wav2clip_gen.errors import SettingsError
from wav2clip_gen.job import prepare
from wav2clip_gen.models.registry import Models
from wav2clip_gen.progress import Progress, StageClock
from wav2clip_gen.synthesis.conditioning import batch_for


def break_gpu(monkeypatch: pytest.MonkeyPatch, error: Exception, kind: str = "cuda") -> None:
    """A GPU that is listed, and fails as soon as something is computed on it."""
    ones = torch.ones

    def failing(*size: int, device: str = "cpu") -> torch.Tensor:
        if device.startswith(kind):
            raise error
        return ones(*size, device=device)

    monkeypatch.setattr(torch, "ones", failing)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: kind == "cuda")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("CUDA error: no kernel image is available for execution on the device\nCUDA kernel errors"),
         "CUDA error: no kernel image is available for execution on the device"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB."),
         "CUDA out of memory. Tried to allocate 2.00 MiB"),
        (RuntimeError("CUDA error: invalid device ordinal\nGPU device may be out of range"),  # cuda:7 on one card
         "CUDA error: invalid device ordinal"),
        (RuntimeError("No CUDA GPUs are available"), "No CUDA GPUs are available"),  # CUDA_VISIBLE_DEVICES=""
        (RuntimeError("CUDNN_STATUS_NOT_INITIALIZED"), "CUDNN_STATUS_NOT_INITIALIZED"),
        (RuntimeError(), "RuntimeError"),
    ],
)  # fmt: skip
def test_auto_uses_the_cpu_where_the_gpu_does_not_work(
    error: Exception, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_gpu(monkeypatch, error)
    notes: list[str] = []
    assert choose_device("auto", on_note=notes.append) == torch.device("cpu")
    assert notes == [f"note: the GPU does not work, so the CPU is used: {reason}"]
    for name in ("cuda", "cuda:1"):
        with pytest.raises(SettingsError) as caught:
            choose_device(name)
        assert caught.value.what == f"there is no device {name!r} here that works: {reason}"
        assert "--device cpu" in caught.value.hint


def test_a_driver_that_is_too_old_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable() -> bool:
        warnings.warn("CUDA initialization: The NVIDIA driver on your system is too old.", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", unavailable)
    notes: list[str] = []
    assert choose_device("auto", on_note=notes.append).type == "cpu"
    assert notes == [
        "note: the GPU does not work, so the CPU is used: "
        "CUDA initialization: The NVIDIA driver on your system is too old"
    ]


def test_a_machine_without_gpu_is_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    notes: list[str] = []
    assert choose_device("auto", on_note=notes.append) == choose_device("cpu")
    assert notes == []


@pytest.mark.parametrize("name", ["abacus", "", "cuda:99", "mps"])
def test_a_device_that_is_not_there_is_an_error_with_the_reason(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "mps":
        break_gpu(monkeypatch, RuntimeError("MPS backend out of memory"), "mps")
    with pytest.raises(SettingsError, match=f"no device {name!r} here that works: .+"):
        choose_device(name)


def test_a_gpu_that_does_not_work_is_told_before_the_song_is_decoded(
    write_sound: Write, tone: Any, mini: Models, small: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class DecodedError(Exception):
        """The song would be decoded now."""

    def decode(*_: object) -> None:
        raise DecodedError

    reason = "CUDA error: no kernel image is available for execution on the device"
    song, told = write_sound(tone[:8_000]), list[Progress]()
    break_gpu(monkeypatch, RuntimeError(f"{reason}\nCUDA kernel errors might be reported later"))
    monkeypatch.setattr(pipeline, "analyze_audio", decode)
    with pytest.raises(DecodedError):
        pipeline.render(song, tmp_path / "film.mp4", small, family=mini, on_progress=told.append)
    notes = [one.message for one in told if "GPU" in one.message]
    assert notes == [f"note: the GPU does not work, so the CPU is used: {reason}"]


@pytest.mark.parametrize(("capability", "told_so"), [((7, 5), True), ((8, 0), False)])
def test_a_gpu_without_bfloat16_is_told(
    capability: tuple[int, int], told_so: bool, write_sound: Write, tone: Any, mini: Models, small: Settings,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    settings, told = small.merged({"run": {"precision": "auto"}}), list[Progress]()
    job = prepare(write_sound(tone[:8_000]), tmp_path / "film.mp4", settings, selection=mini.selection)
    monkeypatch.setattr(devices, "choose_device", lambda *_, **__: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (8 * 2**30, 8 * 2**30))
    pipeline.load_job_models(job, lambda *_, **__: mini, StageClock(told.append))
    note = "note: this GPU has no bfloat16, so it computes in float32, which takes longer"
    assert (note in [one.message for one in told]) == told_so


@pytest.mark.parametrize(("free", "batch"), [(80 * 2**30, 512), (2**30, 128), (2**20, 16)])
def test_the_sound_encoder_takes_as_much_at_a_time_as_fits(
    free: int, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 80 * 2**30))
    encoder = SimpleNamespace(device=torch.device("cuda", 0), sample_rate=16_000)
    assert batch_for(encoder) == batch  # type: ignore[arg-type]
    assert batch_for(SimpleNamespace(device=torch.device("cpu"), sample_rate=16_000)) == 64  # type: ignore[arg-type]
