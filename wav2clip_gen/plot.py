"""Plot an analysis: spectrogram, curves, onsets, beats, chroma and labelled sections over a common time axis."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wav2clip_gen.analysis import Analysis, Floats, Section
from wav2clip_gen.audio.decode import FEATURE_RATE as RATE
from wav2clip_gen.audio.features import LOWEST, Features
from wav2clip_gen.config import PITCHES
from wav2clip_gen.drawing import clock
from wav2clip_gen.errors import W2CError
from wav2clip_gen.files import written

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 100
WIDTH, HEIGHT = 1600, 990  # px, without stems
LEFT, RIGHT, TOP, GAP = 130, 84, 70, 14  # px around and between the lanes
STRIP, STEM = 22, 64  # px: the labels of a stem's sections, and its curves
RANGE = 80.0  # dB that the spectrogram's colors cover
CROWDED = 4.0  # px between beats or onsets, below which they are not drawn one by one

BACKGROUND, PANEL, TEXT, MUTED, BOX = "#11131a", "#191c26", "#e8eaf0", "#8a90a3", "#2c3244"
BLUE, PALE, AMBER, YELLOW, RED, GREEN = "#60b2ff", "#bee2ff", "#ffc45c", "#faf096", "#ff8074", "#8ce296"
BANDS = (("low", RED), ("mid", GREEN), ("high", BLUE))
TIME_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)  # seconds


def require_matplotlib() -> None:
    """Check that plots can be drawn.

    Raises:
        W2CError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise W2CError("matplotlib, which draws the plot, is not installed", hint="pip install 'wav2clip-gen[plot]'")


def write_plot(analysis: Analysis, path: Path, *, overwrite: bool = True) -> None:
    """Plot an analysis into a PNG file, atomically.

    Raises:
        OutputError: The file cannot be written.
        W2CError: matplotlib is not installed.
    """
    require_matplotlib()
    with written(path, option="--out-dir", overwrite=overwrite) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a title may be in any script
        plot(analysis).savefig(temporary, format="png", facecolor=BACKGROUND)


def plot(analysis: Analysis) -> Figure:
    """Draw an analysis, `WIDTH` px wide; each stem makes it `STEM` + `STRIP` + `GAP` px higher."""
    sheet = _Sheet(analysis)
    _draw_sections(sheet, analysis.mix.sections, height=STRIP + 2, numbered=True)
    for draw in (_draw_spectrogram, _draw_loudness, _draw_onsets, _draw_centroid, _draw_bands, _draw_chroma):
        draw(sheet, analysis.mix.features)
    for name, stem in analysis.stems.items():
        _draw_sections(sheet, stem.sections, height=STRIP)
        axes = sheet.lane(STEM, [(name, TEXT), ("loudness", BLUE), ("onset strength", AMBER)])
        sheet.curve(axes, stem.features.curves["loudness"].values, BLUE)
        sheet.curve(axes, stem.features.curves["onset"].values, AMBER)
    sheet.draw_time_axis()
    return sheet.figure


class _Sheet:
    """A figure that is filled with lanes from top to bottom, all with the same time axis."""

    def __init__(self, analysis: Analysis) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.analysis = analysis
        self.duration, self.fps = float(analysis.timeline.duration), float(analysis.timeline.fps)
        self.height = HEIGHT + len(analysis.stems) * (STRIP + STEM + GAP)
        self.figure = Figure((WIDTH / DPI, self.height / DPI), dpi=DPI, facecolor=BACKGROUND)
        self._renderer = FigureCanvasAgg(self.figure).get_renderer()
        self._top = TOP
        self._lanes: list[Axes] = []
        track, features = analysis.track, analysis.mix.features
        tempo = "no steady beat" if features.tempo is None else f"{features.tempo:.1f} beats per minute"
        facts = [track.path.name, clock(self.duration), tempo, f"{len(features.onsets)} onsets"]
        if analysis.family:
            facts.append(f"labels by models {analysis.family}, uncertain ones with a question mark")
        self._write(LEFT, 26, track.title or track.path.stem, size=17, color=TEXT)
        self._write(LEFT, 52, "   ".join(facts), size=10, color=MUTED)

    def lane(self, height: int, names: Sequence[tuple[str, str]], *, gap: int = GAP, pitch: int = 16) -> Axes:
        """Add axes of `height` px below the others, with names and their colors in the margin, `pitch` px apart."""
        area = LEFT / WIDTH, 1 - (self._top + height) / self.height, 1 - (LEFT + RIGHT) / WIDTH, height / self.height
        axes = self.figure.add_axes(area, facecolor=PANEL, xlim=(0, self.duration), ylim=(0, 1), xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.yaxis.tick_right()
        axes.tick_params(axis="y", length=3, color=MUTED, labelcolor=MUTED, labelsize=8)
        first = self._top + (height - pitch * (len(names) - 1)) / 2
        for line, (name, color) in enumerate(names):
            self._write(LEFT - 12, first + pitch * line, name, size=10, color=color, ha="right")
        self._top += height + gap
        self._lanes.append(axes)
        return axes

    def curve(self, axes: Axes, values: Floats, color: str, *, base: float = 0.0, scale: float = 1.0) -> None:
        """Draw a curve (F,) in [0, 1] as a line over a filled area; of several frames in a pixel, the largest."""
        points = min(len(values), WIDTH - LEFT - RIGHT)
        starts = np.arange(points) * len(values) // points
        heights = np.pad(base + 0.94 * scale * np.maximum.reduceat(values, starts), 1, mode="edge")
        times = np.array([0, *(starts + 0.5) / self.fps, self.duration])
        axes.fill_between(times, base, heights, color=color, alpha=0.22, linewidth=0)
        axes.plot(times, heights, color=color, linewidth=1.1, solid_joinstyle="round")

    def marks(self, axes: Axes, seconds: Floats, low: float, high: float, **style: Any) -> None:
        """Draw vertical lines between two heights of a lane, unless they are too dense."""
        spacing = np.median(np.diff(seconds)) if len(seconds) > 1 else self.duration
        if spacing / self.duration * (WIDTH - LEFT - RIGHT) >= CROWDED:
            axes.vlines(seconds, low, high, **style)

    def truncate(self, text: str, room: float, size: float) -> str:
        """As much of a text as fits into `room` px, with an ellipsis if it had to be cut."""
        from matplotlib.font_manager import FontProperties

        def width(text: str) -> float:
            return self._renderer.get_text_width_height_descent(text, font, ismath=False)[0]

        font = FontProperties(size=size)
        if width(text) <= room:
            return text
        while text and width(text + "…") > room:
            text = text[:-1]
        return text.rstrip(" ,") + "…" if text else ""

    def draw_time_axis(self) -> None:
        """Mark section boundaries in all lanes, and times below the last one."""
        for axes in self._lanes:
            for section in self.analysis.mix.sections[1:]:
                axes.axvline(section.start, color="white", alpha=0.55, linewidth=1, linestyle=(0, (4, 4)))
        step = next((step for step in TIME_STEPS if self.duration / step <= 16), self.duration)
        ticks = np.arange(int(self.duration / step) + 1) * step
        labels = [clock(tick) if step >= 1 else f"{tick:g} s" for tick in ticks.tolist()]
        axes = self._lanes[-1]
        axes.set_xticks(ticks, labels, color=MUTED, size=9, parse_math=False)
        axes.tick_params(axis="x", length=4, color=MUTED)

    def _write(self, x: float, y: float, text: str, *, size: float, color: str, ha: str = "left") -> None:
        """Write a line of text at a place in px from the top left corner."""
        style: dict[str, Any] = {"size": size, "color": color, "ha": ha, "va": "center", "parse_math": False}
        room = LEFT - 16 if ha == "right" else WIDTH - LEFT - RIGHT
        self.figure.text(x / WIDTH, 1 - y / self.height, self.truncate(text, room, size), **style)


def _draw_sections(sheet: _Sheet, sections: Sequence[Section], *, height: int, numbered: bool = False) -> None:
    """Draw a box for each section, with as many of its labels as fit."""
    axes = sheet.lane(height, [("sections", TEXT)] if numbered else [], gap=GAP // 2 if numbered else 0)
    axes.set_facecolor(BACKGROUND)
    pixels = (WIDTH - LEFT - RIGHT) / sheet.duration
    for number, section in enumerate(sections, 1):
        axes.axvspan(section.start, section.stop, color=BOX if number % 2 else PANEL, linewidth=0)
        text = "silent" if section.level is None else ", ".join(label.text for label in section.labels or ())
        text += " ?" if section.labels and section.uncertain else ""
        text = f"{number}  {text}".rstrip() if numbered else text
        text = sheet.truncate(text, (section.stop - section.start) * pixels - 10, 9)
        color = MUTED if section.level is None else TEXT
        axes.text(section.start + 6 / pixels, 0.47, text, color=color, size=9, va="center", parse_math=False)


def _draw_spectrogram(sheet: _Sheet, features: Features) -> None:
    axes = sheet.lane(250, [("spectrogram", TEXT)])
    image = features.spectrogram.T
    axes.imshow(image, extent=(0, sheet.duration, 0, 1), vmin=-RANGE, vmax=0, **_IMAGE)
    hertz = {100: "100 Hz", 300: "300 Hz", 1000: "1 kHz", 3000: "3 kHz", 10_000: "10 kHz"}
    axes.set_yticks([np.log(one / LOWEST) / np.log(RATE / 2 / LOWEST) for one in hertz], list(hertz.values()))


def _draw_loudness(sheet: _Sheet, features: Features) -> None:
    axes = sheet.lane(90, [("loudness", BLUE), ("A-weighted", PALE)])
    for name, color in (("loudness", BLUE), ("loudness_a", PALE)):
        sheet.curve(axes, features.curves[name].values, color)
    if (reference := features.curves["loudness"].high) > 0:
        axes.set_yticks([0.94], [f"{round(20 * np.log10(reference))} dBFS"])


def _draw_onsets(sheet: _Sheet, features: Features) -> None:
    axes = sheet.lane(90, [("onset strength", AMBER), ("onsets", AMBER), ("beats", TEXT)])
    sheet.marks(axes, features.beats, 0, 1, color="white", alpha=0.28, linewidth=1)
    sheet.marks(axes, features.beats, 0.9, 1, color="white", linewidth=2)
    sheet.curve(axes, features.curves["onset"].values, AMBER)
    sheet.marks(axes, features.onsets, 0, 0.09, color=AMBER, linewidth=1.6)


def _draw_centroid(sheet: _Sheet, features: Features) -> None:
    axes, curve = sheet.lane(70, [("centroid", YELLOW)]), features.curves["centroid"]
    sheet.curve(axes, curve.values, YELLOW)
    axes.set_yticks([0.03, 0.94], [f"{2**value:,.0f} Hz" for value in (curve.low, curve.high)])


def _draw_bands(sheet: _Sheet, features: Features) -> None:
    axes = sheet.lane(132, [(f"{name} band", color) for name, color in reversed(BANDS)], pitch=44)
    for number, (name, color) in enumerate(BANDS):
        sheet.curve(axes, features.curves[name].values, color, base=number / 3, scale=1 / 3)


def _draw_chroma(sheet: _Sheet, features: Features) -> None:
    axes = sheet.lane(144, [("chroma", TEXT)])
    axes.imshow(features.chroma.T, extent=(0, len(features.chroma) / sheet.fps, 0, 1), vmin=0, vmax=1, **_IMAGE)
    axes.set_xlim(0, sheet.duration)
    axes.set_yticks((np.arange(12) + 0.5) / 12, PITCHES)


_IMAGE: dict[str, Any] = {"aspect": "auto", "origin": "lower", "cmap": "magma"}
