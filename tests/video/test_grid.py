"""A grid of pictures: each is whole, none overlaps another, each is below its caption."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from wav2clip_gen.drawing import GROUND
from wav2clip_gen.video.grid import Grid

NAMES = ["mix", "vocals", "drums", "bass", "other"]


def picture(size: tuple[int, int], shade: int) -> NDArray[np.uint8]:
    return np.full((size[1], size[0], 3), shade, np.uint8)


@pytest.mark.parametrize("count", range(1, 8))
@pytest.mark.parametrize("size", [(128, 128), (64, 48), (256, 144), (96, 256), (4096, 32)])
def test_every_picture_is_whole_and_every_side_even(count: int, size: tuple[int, int]) -> None:
    grid = Grid([f"stem-{number}" for number in range(count)], size=size)
    width, height = grid.size
    assert width % 2 == height % 2 == 0
    whole = grid.join([picture(size, 250 - number) for number in range(count)])
    assert whole.shape == (height, width, 3)
    assert whole.dtype == np.uint8
    for number in range(count):
        rows, columns = np.nonzero((whole == 250 - number).all(axis=2))
        assert np.ptp(rows) + 1 == size[1]
        assert np.ptp(columns) + 1 == size[0]
        assert len(rows) == size[0] * size[1]


@pytest.mark.parametrize(
    ("size", "captions", "rows"),
    [
        ((128, 128), NAMES, 2),
        ((128, 128), NAMES[:3], 1),
        ((72, 128), NAMES, 1),
        ((256, 144), NAMES, 2),
        ((512, 64), NAMES[:3], 3),
    ],
)
def test_rows_bring_the_grid_near_the_shape_of_a_film(size: tuple[int, int], captions: list[str], rows: int) -> None:
    whole = Grid(captions, size=size).join([picture(size, 250)] * len(captions))
    covered = (whole == 250).all(axis=2).any(axis=1)
    assert (np.diff(covered.astype(int), prepend=0) == 1).sum() == rows


def test_an_incomplete_last_row_is_centred() -> None:
    whole = Grid(NAMES, size=(128, 128)).join([picture((128, 128), 250)] * 5)
    columns = np.flatnonzero((whole[-1] == 250).all(axis=1))
    assert abs(columns[0] - (whole.shape[1] - 1 - columns[-1])) <= 2


def test_captions_are_drawn_and_long_ones_truncated() -> None:
    short, long = (
        Grid([name, "b"], size=(64, 64)).join([picture((64, 64), 0)] * 2) for name in ("a", "lead-guitar-" * 9)
    )
    drawn = [(whole[:16] != GROUND).any(axis=2) for whole in (short, long)]
    assert drawn[0][:, :64].any()
    assert drawn[1][:, :64].sum() > 3 * drawn[0][:, :64].sum()
    assert np.array_equal(short[:16, 64:], long[:16, 64:])
