"""Colors, fonts and text fitting for what Pillow draws, and times as text. Imports Pillow on first use."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import ImageFont

Color = tuple[int, int, int]

GROUND, PANEL, INK, FAINT = (17, 19, 26), (25, 28, 38), (232, 234, 240), (132, 138, 155)


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font of all drawings, `size` px high."""
    from PIL import ImageFont

    return ImageFont.load_default(size)


def truncate(text: str, room: float, size: int) -> str:
    """As much of a text as fits into `room` px at a font size."""
    letters = font(size)
    while text and letters.getlength(text) > room:
        text = text[:-1]
    return text


def wrap(text: str, room: float, size: int, *, lines: int) -> list[str]:
    """Break a text between words into at most `lines` lines of `room` px; dots stand for the rest."""
    letters, broken, words = font(size), list[str](), text.split()
    while words and len(broken) < lines:
        count = len(words)
        while count > 1 and letters.getlength(" ".join(words[:count])) > room:
            count -= 1
        broken.append(truncate(" ".join(words[:count]), room, size))
        words = words[count:]
    if words:
        broken[-1] = truncate(broken[-1], room - letters.getlength(" ..."), size) + " ..."
    return broken


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
