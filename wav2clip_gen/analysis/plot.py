"""An analysis as a picture: spectrogram, curves, beats and sections over one time axis."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wav2clip_gen.analysis.analyse import Analysis, Section, StemAnalysis
from wav2clip_gen.audio.beats import RATE
from wav2clip_gen.audio.features import LOWEST
from wav2clip_gen.drawing import FAINT, GROUND, INK, LANE, Colour, clock, font, shortened
from wav2clip_gen.files import written
from wav2clip_gen.settings import PITCHES

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

Floats = NDArray[np.float64]

FINE = 2  # everything is drawn so many times larger, then made smaller: smooth lines
WIDTH, LEFT, RIGHT, TOP, GAP = 1600, 118, 24, 96, 14  # px
RANGE = 80.0  # dB from the spectrogram's darkest to its brightest

HEAT = ((10, 10, 24), (48, 20, 92), (128, 32, 122), (214, 68, 92), (250, 148, 64), (252, 232, 160))
LANES: tuple[tuple[str, int, tuple[tuple[str, Colour], ...]], ...] = (  # label, px, curves
    ("loudness", 84, (("loudness", (96, 178, 255)), ("loudness_a", (190, 226, 255)))),
    ("onsets, beats", 84, (("onset", (255, 196, 92)),)),
    ("centroid", 64, (("centroid", (250, 240, 150)),)),
    ("high", 46, (("high", (158, 222, 255)),)),
    ("mid", 46, (("mid", (140, 226, 150)),)),
    ("low", 46, (("low", (255, 128, 116)),)),
)
SPECTROGRAM, CHROMA, AXIS = 260, 144, 40  # px
HEIGHT = TOP + SPECTROGRAM + CHROMA + sum(height for _, height, _ in LANES) + GAP * (len(LANES) + 1) + AXIS
STEM, NAMED = 64, 22  # px: the curves of a stem, and the words above them
STEM_CURVES: tuple[tuple[str, Colour], ...] = (("loudness", (96, 178, 255)), ("onset", (255, 196, 92)))


def draw(analysis: Analysis) -> Image.Image:
    """Draw an analysis, HEIGHT px high, and higher by a strip for each stem."""
    from PIL import Image, ImageDraw

    whole = HEIGHT + len(analysis.stems) * (GAP + NAMED + STEM)
    picture = Image.new("RGB", (WIDTH * FINE, whole * FINE), GROUND)
    sheet = _Sheet(picture, ImageDraw.Draw(picture, "RGBA"), float(analysis.timeline.duration))
    features = analysis.features
    _draw_heading(sheet, analysis)
    y = TOP
    sheet.paste(_heat((features.spectrogram.T[::-1] + RANGE) / RANGE), y, SPECTROGRAM)
    for hertz, label in ((100, "100 Hz"), (1000, "1 kHz"), (10_000, "10 kHz")):
        place = np.log(hertz / LOWEST) / np.log(RATE / 2 / LOWEST)
        sheet.label(label, y + SPECTROGRAM * (1 - place), FAINT)
        sheet.box(LEFT - 5, y + SPECTROGRAM * (1 - place), LEFT, y + SPECTROGRAM * (1 - place) + 1, FAINT)
    y += SPECTROGRAM + GAP
    for label, height, curves in LANES:
        sheet.box(LEFT, y, WIDTH - RIGHT, y + height, LANE)
        sheet.label(label, y + height / 2, INK)
        if label.startswith("onsets"):
            _draw_beats(sheet, features.beats, y, height)
        for name, colour in curves:
            sheet.curve(features.curves[name].values, y, height, colour, float(analysis.timeline.fps))
        y += height + GAP
    sheet.paste(_heat(features.chroma.T[::-1]), y, CHROMA, span=len(features.chroma) / float(analysis.timeline.fps))
    for number, pitch in enumerate(PITCHES):
        if "#" not in pitch:
            sheet.label(pitch, y + CHROMA * (1 - (number + 0.5) / 12), FAINT, size=11)
    y += CHROMA
    for name, stem in analysis.stems.items():
        y += GAP
        _draw_stem(sheet, name, stem, y, float(analysis.timeline.fps))
        y += NAMED + STEM
    _draw_sections(sheet, analysis.sections, y)
    _draw_axis(sheet, y)
    return picture.resize((WIDTH, whole), Image.Resampling.LANCZOS)


def write_png(analysis: Analysis, path: Path) -> None:
    """Draw an analysis into a file, whole or not at all.

    Raises:
        OutputError: The disk does not take it.
    """
    with written(path, option="--out-dir") as part:
        draw(analysis).save(part)


class _Sheet:
    """A drawing measured in px and seconds."""

    def __init__(self, picture: Image.Image, pen: ImageDraw.ImageDraw, duration: float) -> None:
        self.picture, self.pen, self.duration = picture, pen, duration

    def x(self, second: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * min(second / self.duration, 1.0)

    def text(self, x: float, y: float, words: str, colour: Colour, *, size: int = 13, anchor: str = "lm") -> None:
        self.pen.text((x * FINE, y * FINE), words, fill=colour, font=font(size * FINE), anchor=anchor)

    def label(self, words: str, y: float, colour: Colour, size: int = 13) -> None:
        """To the left of a lane."""
        self.text(LEFT - 10, y, words, colour, size=size, anchor="rm")

    def upright(self, x: float, y: float, length: float, colour: tuple[int, ...], *, width: float = 1) -> None:
        """A line down from (x, y)."""
        self.pen.line([(x * FINE, y * FINE), (x * FINE, (y + length) * FINE)], fill=colour, width=round(width * FINE))

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: tuple[int, ...]) -> None:
        self.pen.rectangle([x0 * FINE, y0 * FINE, x1 * FINE - 1, y1 * FINE - 1], fill=colour)

    def paste(self, pixels: NDArray[np.uint8], y: float, height: int, *, span: float | None = None) -> None:
        """Put pixels (h, w, 3) into a lane, as wide as `span` seconds or all of it."""
        from PIL import Image

        whole = (WIDTH - LEFT - RIGHT) * FINE
        width = whole if span is None else max(1, round(whole * span / self.duration))
        drawn = Image.fromarray(pixels).resize((width, height * FINE), Image.Resampling.NEAREST)
        self.picture.paste(drawn.crop((0, 0, min(width, whole), height * FINE)), (LEFT * FINE, round(y * FINE)))

    def curve(self, values: Floats, y: float, height: int, colour: Colour, fps: float) -> None:
        """Fill what lies below a curve (F,) in [0, 1], and draw its edge."""
        dots = np.arange((WIDTH - LEFT - RIGHT) * FINE)
        seconds = (dots + 0.5) / len(dots) * self.duration
        if len(values) > len(dots):  # several frames a dot: their largest
            starts = (dots * len(values)) // len(dots)
            heights = np.maximum.reduceat(values, starts)
        else:
            heights = np.interp(seconds, (np.arange(len(values)) + 0.5) / fps, values)
        tops = (y + height - 2 - heights * (height - 6)) * FINE
        line = list(zip((dots + LEFT * FINE).tolist(), tops.tolist(), strict=True))
        bottom = (y + height) * FINE - 1
        self.pen.polygon([(line[0][0], bottom), *line, (line[-1][0], bottom)], fill=(*colour, 70))
        self.pen.line(line, fill=colour, width=FINE)


def _draw_heading(sheet: _Sheet, analysis: Analysis) -> None:
    track, features = analysis.track, analysis.features
    tempo = "no steady beat" if features.tempo is None else f"{features.tempo:.1f} beats per minute"
    sheet.text(LEFT, 26, track.title or track.path.stem, INK, size=22)
    facts = f"{track.path.name}   {clock(sheet.duration)}   {tempo}   {len(features.onsets)} onsets"
    models = f"   words by {analysis.family}; a ? is a guess" if analysis.family else ""
    sheet.text(LEFT, 52, facts + models, FAINT)


def _draw_beats(sheet: _Sheet, beats: Floats, y: float, height: int) -> None:
    """Ticks, where they can be told apart."""
    if len(beats) > 1 and sheet.x(float(np.median(np.diff(beats)))) - sheet.x(0) < 3:
        return
    for second in beats.tolist():
        sheet.upright(sheet.x(second), y, height, (255, 255, 255, 60))
        sheet.upright(sheet.x(second), y, 7, (255, 255, 255, 220), width=2)


def _draw_sections(sheet: _Sheet, sections: tuple[Section, ...], bottom: float) -> None:
    """A line where each section begins, and what it is heard as above it."""
    for number, section in enumerate(sections, 1):
        left = sheet.x(section.start)
        if number > 1:
            for dash in range(TOP - 24, round(bottom), 8):
                sheet.upright(left, dash, min(4, bottom - dash), (255, 255, 255, 190))
        _draw_words(sheet, section, TOP - 24, f"{number}  {_words(section)}".rstrip())


def _draw_words(sheet: _Sheet, section: Section, y: float, words: str) -> None:
    """A box as wide as a section, with words in it as far as there is room."""
    left, right = sheet.x(section.start), sheet.x(section.stop)
    sheet.box(left + (1 if section.start > 0 else 0), y, right - 1, y + 20, (44, 50, 68))
    room = (right - left - 10) * FINE
    sheet.text(left + 6, y + 10, shortened(words, room, 12 * FINE), INK, size=12)


def _draw_stem(sheet: _Sheet, name: str, stem: StemAnalysis, y: float, fps: float) -> None:
    """The curves of a stem, and what it is heard as in each section above them."""
    for section in stem.sections:
        _draw_words(sheet, section, y, "silent" if section.level is None else _words(section))
    sheet.box(LEFT, y + NAMED, WIDTH - RIGHT, y + NAMED + STEM, LANE)
    sheet.label(shortened(name, (LEFT - 14) * FINE, 13 * FINE), y + NAMED + STEM / 2, INK)
    for curve, colour in STEM_CURVES:
        sheet.curve(stem.features.curves[curve].values, y + NAMED, STEM, colour, fps)


def _words(section: Section) -> str:
    """The best word of a section, with a mark if it is a guess."""
    if section.meaning is None or not section.meaning.words:
        return ""
    return section.meaning.words[0].text + ("?" if section.meaning.guessing else "")


def _draw_axis(sheet: _Sheet, y: float) -> None:
    steps = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)
    step = next((step for step in steps if sheet.duration / step <= 16), sheet.duration)
    for number in range(int(sheet.duration / step) + 1):
        x = sheet.x(number * step)
        sheet.upright(x, y, 6, FAINT)
        sheet.text(
            x, y + 18, clock(number * step) if step >= 1 else f"{number * step:g} s", FAINT, size=12, anchor="mm"
        )


def _heat(values: Floats) -> NDArray[np.uint8]:
    """Colours (..., 3) of values in [0, 1], from dark to bright."""
    places = np.linspace(0, 1, len(HEAT))
    channels = [np.interp(values, places, [colour[channel] for colour in HEAT]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)
