"""`w2c-gen doctor` reports what works and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from wav2clip_gen.cli.doctor import app


def test_a_complete_installation_passes() -> None:
    done = CliRunner().invoke(app)
    assert done.exit_code == 0, done.output
    for word in (
        "ok  torch ",
        "ok  ffmpeg",
        "encoder libx264",
        "device cpu",
        "mini vqgan: shipped",
        "sha256",
        "full: not fetched",
    ):
        assert word in done.stdout
    assert "!!" not in done.stdout


def test_what_is_missing_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mini").mkdir()  # hides the family that ships
    monkeypatch.setenv("W2C_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("W2C_FFMPEG", str(tmp_path / "none"))
    done = CliRunner().invoke(app)
    assert done.exit_code == 1
    assert "!!  W2C_FFMPEG points to" in done.stdout
    assert done.stdout.count("no such weights file") == 3
    assert "ok  mini prior: none" in done.stdout


def test_a_gpu_that_does_not_work_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    ones = torch.ones

    def failing(*size: int, device: str) -> torch.Tensor:
        if device == "cpu":
            return ones(*size)
        raise RuntimeError("CUDA error: no kernel image is available")

    monkeypatch.setattr(torch, "ones", failing)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    done = CliRunner().invoke(app)
    assert done.exit_code == 1
    assert "ok  device cpu (" in done.stdout
    reason = "CUDA error: no kernel image is available"
    assert f"!!  note: the GPU does not work, so the CPU is used: {reason}" in done.stdout
    assert f"!!  there is no device 'cuda:0' here that works: {reason}" in done.stdout
