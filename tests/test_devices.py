"""Which device runs the networks, also where a GPU is listed but does not work."""

from __future__ import annotations

import warnings

import pytest
import torch

from wav2clip_gen.devices import choose_device
from wav2clip_gen.errors import SettingsError


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
