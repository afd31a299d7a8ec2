"""Letters, colours and clocks of what is drawn and told. Pillow comes in when something is drawn; knows no torch."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import ImageFont

Colour = tuple[int, int, int]

GROUND, LANE, INK, FAINT = (17, 19, 26), (25, 28, 38), (232, 234, 240), (132, 138, 155)


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The letters of all drawings, `size` px high."""
    from PIL import ImageFont

    return ImageFont.load_default(size)


def shortened(words: str, room: float, size: int) -> str:
    """As much of the words as fits into `room` px at a font size."""
    letters = font(size)
    while words and letters.getlength(words) > room:
        words = words[:-1]
    return words


def wrapped(words: str, room: float, size: int, *, lines: int) -> list[str]:
    """The words in at most so many lines of `room` px, broken between words; dots stand for what does not fit."""
    letters, broken, rest = font(size), list[str](), words.split()
    while rest and len(broken) < lines:
        count = len(rest)
        while count > 1 and letters.getlength(" ".join(rest[:count])) > room:
            count -= 1
        broken.append(shortened(" ".join(rest[:count]), room, size))
        rest = rest[count:]
    if rest:
        broken[-1] = shortened(broken[-1], room - letters.getlength(" ..."), size) + " ..."
    return broken


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
