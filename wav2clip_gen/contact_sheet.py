"""A contact sheet of a song's sections: for each a picture, times, labels, and the prompts and images in use."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt
from typing import TYPE_CHECKING

from wav2clip_gen.analysis import Section
from wav2clip_gen.drawing import FAINT, GROUND, INK, PANEL, Color, clock, font, truncate, wrap
from wav2clip_gen.images import Picture

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

MARGIN, GAP, TOP, LINE, INSET = 32, 20, 96, 19, 6  # px
WIDTHS = (480, 420, 380, 340, 300, 264)  # px of a picture, by the number of columns
LARGE, NORMAL, SMALL = 22, 15, 13  # px of fonts
UNCERTAIN, GUIDANCE = (255, 196, 92), (150, 200, 255)  # colors of that word, and of prompts and images


@dataclass(frozen=True, eq=False)
class Panel:
    """A section of a song with the first picture of its film."""

    section: Section
    start: float  # seconds in the song
    stop: float
    guidance: tuple[tuple[str, float], ...]  # prompts and style images with their mean weights in the section
    picture: Picture


def draw(panels: list[Panel], *, title: str, facts: str) -> Image.Image:
    """Lay panels out in as many columns as rows, but at most six columns."""
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
    pen.text((MARGIN, 34), truncate(title, room, LARGE), fill=INK, font=font(LARGE), anchor="lm")
    for number, line in enumerate(wrap(facts, room, SMALL, lines=2)):
        pen.text((MARGIN, 60 + number * 17), line, fill=FAINT, font=font(SMALL), anchor="lm")
    for number, (panel, caption) in enumerate(zip(panels, captions, strict=True)):
        left, top = MARGIN + number % columns * (width + GAP), TOP + number // columns * step
        shown = Image.fromarray(panel.picture).resize((width, height), Image.Resampling.LANCZOS)
        sheet.paste(shown, (left, top))
        _draw_caption(pen, panel, caption, (left, top + height, left + width))
    return sheet


def _caption(panel: Panel, width: int) -> list[tuple[str, Color]]:
    """Labels and guidance of a panel as lines with their colors."""
    labels, room = panel.section.labels, width - 2 * INSET
    shown = "" if labels is None else ", ".join(label.text for label in labels) or "silent"
    guidance = ", ".join(f"{name} {weight:.2g}" for name, weight in panel.guidance)
    return [
        *((line, INK if labels else FAINT) for line in wrap(shown, room, SMALL, lines=2)),
        *((line, GUIDANCE) for line in wrap(guidance, room, SMALL, lines=3)),
    ]


def _draw_caption(
    pen: ImageDraw.ImageDraw, panel: Panel, caption: list[tuple[str, Color]], place: tuple[int, int, int]
) -> None:
    """Draw times and caption below a picture whose left, bottom and right edges are at `place`."""
    left, bottom, right = place
    pen.rectangle([left, bottom, right - 1, bottom + LINE * (len(caption) + 1) + INSET], fill=PANEL)
    y = bottom + 13
    times = f"{clock(panel.start)}-{clock(panel.stop)}"
    pen.text((left + INSET, y), times, fill=INK, font=font(NORMAL), anchor="lm")
    if panel.section.labels and panel.section.uncertain:
        pen.text((right - INSET, y), "uncertain", fill=UNCERTAIN, font=font(SMALL), anchor="rm")
    for number, (line, color) in enumerate(caption, 1):
        pen.text((left + INSET, y + number * LINE), line, fill=color, font=font(SMALL), anchor="lm")
