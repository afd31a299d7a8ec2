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


def picture(number: int, width: int = 32, height: int = 16) -> NDArray[np.uint8]:
    """A plain picture, another grey for each number."""
    return np.full((height, width, 3), (40 + 3 * number) % 200, np.uint8)


@pytest.fixture
def film(tmp_path: Path) -> Film:
    """Write a small film without sound."""

    def write(frames: int, fps: Fraction = Fraction(12), name: str = "picture.mp4") -> Path:
        path = tmp_path / name
        with FilmWriter(path, size=(32, 16), fps=fps) as writer:
            for number in range(frames):
                writer.write(picture(number))
        return path

    return write
