from __future__ import annotations

import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.audio.conftest import save
from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.video.writer import FilmWriter

__all__ = ["save"]  # films need songs

Film = Callable[..., Path]
TWELVE = Fraction(12)
RATES = [1, 12, 12.345, 23.976, 60]  # frames per second


def picture(number: int, width: int = 32, height: int = 16) -> NDArray[np.uint8]:
    """A uniform picture, with another grey for each number."""
    return np.full((height, width, 3), (40 + 3 * number) % 200, np.uint8)


def write_film(path: Path, frames: int = 6, fps: Fraction = TWELVE) -> Path:
    with FilmWriter(path, size=(32, 16), fps=fps) as writer:
        for number in range(frames):
            writer.write(picture(number))
    return path


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Film:
    """Small films without sound, each encoded once."""
    folder, made = tmp_path_factory.mktemp("films"), dict[tuple[int, Fraction], Path]()

    def write(frames: int, fps: Fraction) -> Path:
        if (frames, fps) not in made:
            made[frames, fps] = write_film(folder / f"{len(made)}.mp4", frames, fps)
        return made[frames, fps]

    return write


@pytest.fixture
def film(tmp_path: Path, written: Film) -> Film:
    """A small film without sound, in the test's own folder."""

    def copy(frames: int, fps: Fraction = TWELVE) -> Path:
        return Path(shutil.copy(written(frames, fps), tmp_path / "picture.mp4"))

    return copy


def line(frames: int, fps: Fraction = TWELVE) -> Timeline:
    return Timeline(samples=round(frames * 24_000 / fps), sample_rate=24_000, fps=fps)
