"""What tests of models share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where weights are fetched to; not there yet."""
    return tmp_path / "weights"
