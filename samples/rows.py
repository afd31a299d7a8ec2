"""Rows of labelled pictures on a page, with a name and optionally a loudness curve below each row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

COLUMNS, GAP = 8, 4  # pictures in a row, and the space around them in px
STRIP = 28  # height of a curve, px

Picture = NDArray[np.uint8]  # (S, S, 3)


@dataclass(frozen=True, eq=False)
class Row:
    """A row of pictures."""

    name: str
    pictures: list[Picture]
    labels: list[str]
    loudness: NDArray[np.float64] | None = None  # (F,) in [0, 1], drawn below the pictures


def along(frames: int) -> list[int]:
    """Indices of `COLUMNS` evenly spaced frames of a film, from the first to the last."""
    return [int(at) for at in np.linspace(0, frames - 1, COLUMNS).round()]


def sheet(rows: list[Row], *, side: int = 128) -> Image.Image:
    """Lay out rows of pictures, each picture `side` px wide."""
    width, height = COLUMNS * (side + GAP) + GAP, side + 2 * STRIP + 3 * GAP
    page = Image.new("RGB", (width, height * len(rows)), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default()
    for number, row in enumerate(rows):
        top = number * height + GAP
        for column, (picture, label) in enumerate(zip(row.pictures, row.labels, strict=True)):
            left = GAP + column * (side + GAP)
            page.paste(Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS), (left, top))
            draw.text((left, top + side + 2), label, fill="black", font=font)
        below = top + side + STRIP // 2 + 2
        if row.loudness is None:
            draw.text((GAP, below), row.name, fill="grey", font=font)
            continue
        places = np.linspace(GAP, width - GAP, len(row.loudness))
        points = [(x, below + STRIP * (1 - y)) for x, y in zip(places, row.loudness, strict=True)]
        draw.line(points, fill=(70, 110, 160), width=2)
        draw.text((GAP, below + STRIP + 1), f"{row.name}, loudness", fill="grey", font=font)
    return page
