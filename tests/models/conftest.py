"""What tests of models share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where weights are fetched to; not there yet."""
    monkeypatch.setenv("W2C_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"
