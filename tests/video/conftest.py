from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.audio.conftest import save
from wav2clip_gen.video.writer import FilmWriter

__all__ = ["save"]  # films need songs

Film = Callable[..., Path]
FakeFFmpeg = Callable[[str], None]


def picture(number: int, width: int = 32, height: int = 16) -> NDArray[np.uint8]:
    """A plain picture, another grey for each number."""
    return np.full((height, width, 3), (40 + 3 * number) % 200, np.uint8)


@pytest.fixture
def film(tmp_path: Path) -> Film:
    """Write a small film without sound."""

    def write(frames: int, fps: Fraction = Fraction(12), name: str = "picture.mp4") -> Path:
        path = tmp_path / name
        with FilmWriter(path, size=(32, 16), fps=fps, frames=frames) as writer:
            for number in range(frames):
                writer.write(picture(number))
        return path

    return write


@pytest.fixture
def fake_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeFFmpeg:
    """Put a shell script in ffmpeg's place; it has an h264 encoder, then does what it is told."""

    def install(script: str) -> None:
        path = tmp_path / "bin" / "ffmpeg"
        path.parent.mkdir(exist_ok=True)
        listing = 'case "$*" in *-encoders*) echo " ------"; echo " V....D libx264 H.264"; exit 0;; esac'
        path.write_text(f"#!/bin/sh\n{listing}\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("W2C_FFMPEG", str(path))

    return install
