from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray

from tests.conftest import Write


@pytest.fixture
def songs(write_sound: Write, tone: NDArray[Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with two songs."""
    song = write_sound(tone, "a.wav")
    shutil.copy(song, song.with_name("b.wav"))
    monkeypatch.chdir(song.parent)
    return song.parent
