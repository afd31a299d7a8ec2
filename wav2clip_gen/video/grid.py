"""Several pictures in one film, side by side, each below its caption."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, log

import numpy as np

from wav2clip_gen.drawing import GROUND, INK, font, truncate
from wav2clip_gen.video.writer import Picture

GAP = 4  # px between pictures
WIDE = 16 / 9  # the shape that a film should come near to


class Grid:
    """Places for pictures of one size. All sides are even, as h264 wants them.

    Args:
        captions: What stands above each picture; drawn once, here.
        size: Width and height of each picture in pixels, both even.
    """

    def __init__(self, captions: Sequence[str], *, size: tuple[int, int]) -> None:
        width, height = size
        letters = max(10, min(size) // 10)  # px
        head = 2 * ceil(0.8 * letters)
        rows = _rows(len(captions), width + GAP, head + height + GAP)
        columns = ceil(len(captions) / rows)
        self.size = (columns * (width + GAP) - GAP, rows * (head + height + GAP) - GAP)
        self._places: list[tuple[slice, slice]] = []
        self._ground = np.full((self.size[1], self.size[0], 3), GROUND, np.uint8)
        for number, caption in enumerate(captions):
            row, column = divmod(number, columns)
            empty = columns - min(columns, len(captions) - row * columns)  # cells of the last row
            left = column * (width + GAP) + empty * (width + GAP) // 4 * 2
            top = row * (head + height + GAP)
            self._ground[top : top + head, left : left + width] = _caption(caption, (width, head), letters)
            self._places.append((slice(top + head, top + head + height), slice(left, left + width)))

    def join(self, pictures: Sequence[Picture]) -> Picture:
        """One picture of all, (height, width, 3), in the order of the captions."""
        whole = self._ground.copy()
        for place, picture in zip(self._places, pictures, strict=True):
            whole[place] = picture
        return whole

    def split(self, whole: Picture) -> list[Picture]:
        """The pictures that `join` was given."""
        return [whole[place] for place in self._places]


def _rows(count: int, width: int, height: int) -> int:
    """In how many rows cells of this size come nearest to the shape of a film."""

    def distance(rows: int) -> float:
        return abs(log(ceil(count / rows) * width / (rows * height) / WIDE))

    return min(range(1, count + 1), key=distance)


def _caption(words: str, size: tuple[int, int], letters: int) -> Picture:
    """Words in the middle of a strip, (height, width, 3)."""
    from PIL import Image, ImageDraw

    width, height = size
    strip = Image.new("RGB", size, GROUND)
    shown = truncate(words, width - GAP, letters)
    ImageDraw.Draw(strip).text((width / 2, height / 2), shown, fill=INK, font=font(letters), anchor="mm")
    return np.asarray(strip)
