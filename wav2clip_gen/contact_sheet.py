"""Pictures of a song's sections in rows, each with its times, what is heard in it and what else pulls."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt
from typing import TYPE_CHECKING

from wav2clip_gen.analysis.analyse import Section
from wav2clip_gen.drawing import FAINT, GROUND, INK, LANE, Colour, clock, font, shortened, wrapped
from wav2clip_gen.images import Picture

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

MARGIN, GAP, TOP, LINE, INSET = 32, 20, 96, 19, 6  # px
WIDTHS = (480, 420, 380, 340, 300, 264)  # px of a picture, by how many stand in a row
LARGE, NORMAL, SMALL = 22, 15, 13  # px of letters
DOUBT, PULL = (255, 196, 92), (150, 200, 255)  # colours of a guess, and of what pulls beside the sound


@dataclass(frozen=True, eq=False)
class Panel:
    """One section of a song, as its film would begin to show it."""

    section: Section
    start: float  # seconds in the song
    stop: float
    pulls: tuple[tuple[str, float], ...]  # words and pictures that pull in it, and their mean weight
    picture: Picture


def draw(panels: list[Panel], *, title: str, facts: str) -> Image.Image:
    """Lay panels out, as many in a row as there are rows, but no more than six: a long song makes a long sheet."""
    from PIL import Image, ImageDraw

    columns = min(ceil(sqrt(len(panels))), len(WIDTHS))
    width = WIDTHS[columns - 1]
    height = round(width * panels[0].picture.shape[0] / panels[0].picture.shape[1])
    captions = [_caption(panel, width) for panel in panels]
    step = height + LINE * (max(len(caption) for caption in captions) + 1) + INSET + GAP
    rows = ceil(len(panels) / columns)
    size = (2 * MARGIN + columns * (width + GAP) - GAP, TOP + rows * step + MARGIN - GAP)
    sheet = Image.new("RGB", size, GROUND)
    pen = ImageDraw.Draw(sheet)
    room = size[0] - 2 * MARGIN
    pen.text((MARGIN, 34), shortened(title, room, LARGE), fill=INK, font=font(LARGE), anchor="lm")
    for number, line in enumerate(wrapped(facts, room, SMALL, lines=2)):
        pen.text((MARGIN, 60 + number * 17), line, fill=FAINT, font=font(SMALL), anchor="lm")
    for number, (panel, caption) in enumerate(zip(panels, captions, strict=True)):
        left, top = MARGIN + number % columns * (width + GAP), TOP + number // columns * step
        shown = Image.fromarray(panel.picture).resize((width, height), Image.Resampling.LANCZOS)
        sheet.paste(shown, (left, top))
        _write(pen, panel, caption, (left, top + height, left + width))
    return sheet


def _caption(panel: Panel, width: int) -> list[tuple[str, Colour]]:
    """What stands under a picture below its times, a line each with its colour."""
    meaning, room = panel.section.meaning, width - 2 * INSET
    heard = ", ".join(word.text for word in meaning.words) or "silent" if meaning else ""
    pulling = ", ".join(f"{what} {weight:.2g}" for what, weight in panel.pulls)
    return [
        *((line, INK if heard != "silent" else FAINT) for line in wrapped(heard, room, SMALL, lines=2)),
        *((line, PULL) for line in wrapped(pulling, room, SMALL, lines=3)),
    ]


def _write(
    pen: ImageDraw.ImageDraw, panel: Panel, caption: list[tuple[str, Colour]], place: tuple[int, int, int]
) -> None:
    """Write times and caption below a picture, whose left, bottom and right edges are at `place`."""
    left, bottom, right = place
    pen.rectangle([left, bottom, right - 1, bottom + LINE * (len(caption) + 1) + INSET], fill=LANE)
    y = bottom + 13
    times = f"{clock(panel.start)}-{clock(panel.stop)}"
    pen.text((left + INSET, y), times, fill=INK, font=font(NORMAL), anchor="lm")
    meaning = panel.section.meaning
    if meaning and meaning.words and meaning.guessing:
        pen.text((right - INSET, y), "guessing", fill=DOUBT, font=font(SMALL), anchor="rm")
    for number, (line, colour) in enumerate(caption, 1):
        pen.text((left + INSET, y + number * LINE), line, fill=colour, font=font(SMALL), anchor="lm")
