"""The contact sheet: readable however many sections there are, and in the pictures' own shape."""

from __future__ import annotations

import numpy as np
import pytest

from wav2clip_gen.analysis import Label, Section
from wav2clip_gen.contact_sheet import MARGIN, Panel, draw
from wav2clip_gen.drawing import clock, font, wrap


def panel(number: int, shape: tuple[int, int] = (48, 64)) -> Panel:
    labels = tuple(Label(f"a very long label number {number}", 0.1, 1.0) for _ in range(3))
    picture = np.full((*shape, 3), 40 + number, np.uint8)
    guidance = (("a stormy sea at night " * 9, 0.5), ("moss.png", -0.25))
    return Panel(Section(0, 1, None, labels), 10.0 * number, 10.0 * number + 10, guidance, picture)


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (4, 2), (5, 3), (36, 6)])
def test_a_long_song_makes_a_long_sheet_with_pictures_of_full_size(count: int, columns: int) -> None:
    sheet = draw([panel(number) for number in range(count)], title="T" * 300, facts="a song, " * 60)
    pixels = np.asarray(sheet)
    assert sheet.width <= 1800
    rows = -(-count // columns)
    grey = pixels[:, MARGIN + 5]
    heights = [int((grey == 40 + number).all(axis=1).sum()) for number in range(0, count, columns)]
    assert len(heights) == rows
    assert min(heights) == max(heights) >= 190
    for margin in (pixels[:, : MARGIN - 1], pixels[:, -MARGIN + 1 :], pixels[-8:]):
        assert (margin == pixels[0, 0]).all()


def test_tall_and_wide_pictures_keep_their_shape() -> None:
    for shape in ((90, 160), (160, 90)):
        pixels = np.asarray(draw([panel(0, shape)], title="", facts=""))
        rows, columns = np.where((pixels == 40).all(axis=2))
        assert np.ptp(columns) / np.ptp(rows) == pytest.approx(shape[1] / shape[0], rel=0.01)


def test_text_is_broken_between_words_and_dots_stand_for_the_rest() -> None:
    lines = wrap("one two three four five six seven", 60, 13, lines=2)
    assert len(lines) == 2
    assert lines[1].endswith(" ...")
    assert all(font(13).getlength(line) <= 60 for line in lines)
    assert wrap("one two", 600, 13, lines=2) == ["one two"]
    assert wrap("", 60, 13, lines=2) == []
    assert font(13).getlength(wrap("x" * 400, 60, 13, lines=1)[0]) <= 60
    assert [clock(59.6), clock(3599.4), clock(3600)] == ["1:00", "59:59", "1:00:00"]
