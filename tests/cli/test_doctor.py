"""`w2c-gen doctor` reports what works and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest
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
