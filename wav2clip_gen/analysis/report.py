"""An analysis as JSON and CSV."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wav2clip_gen import __version__
from wav2clip_gen.analysis.analyse import Analysis, Section
from wav2clip_gen.analysis.words import SURE
from wav2clip_gen.audio.features import Features
from wav2clip_gen.config import PITCHES
from wav2clip_gen.files import written

FORMAT = 1


def describe(analysis: Analysis) -> dict[str, Any]:
    """All that was found, but the spectrogram, as plain values.

    A curve's value `v` stands for `low + v * (high - low)` of its unit; frame `i` begins at `i / fps` seconds.
    """
    track, timeline = analysis.track, analysis.timeline
    return {
        "w2c-gen": {"format": FORMAT, "version": __version__},
        "track": {
            "path": str(track.path),
            "sample_rate": track.sample_rate,
            "channels": track.channels,
            "start": track.start,
            "duration": track.duration,
        },
        "fps": str(timeline.fps),
        "frames": timeline.frames,
        "words": {"models": analysis.family, "vocabulary": analysis.vocabulary, "sure": SURE}
        if analysis.family
        else None,
        **_sound(analysis.features, analysis.sections),
        "stems": {
            name: {"from": stem.origin, **_sound(stem.features, stem.sections)} for name, stem in analysis.stems.items()
        },
    }


def _sound(features: Features, sections: tuple[Section, ...]) -> dict[str, Any]:
    """What was found in the song, or in a stem."""
    return {
        "tempo": None if features.tempo is None else round(features.tempo, 3),
        "beats": _short(features.beats),
        "onsets": _short(features.onsets),
        "sections": [_section(section) for section in sections],
        "curves": {
            name: {"low": curve.low, "high": curve.high, "unit": curve.unit, "values": _short(curve.values)}
            for name, curve in features.curves.items()
        },
        "chroma": {pitch: _short(values) for pitch, values in zip(PITCHES, features.chroma.T, strict=True)},
    }


def write_json(analysis: Analysis, path: Path) -> None:
    """Write the whole description, whole or not at all.

    Raises:
        OutputError: The disk does not take it.
    """
    with written(path, option="--out-dir") as part:
        part.write_text(json.dumps(describe(analysis), ensure_ascii=False) + "\n", encoding="utf-8")


def write_csv(analysis: Analysis, path: Path) -> None:
    """Write one row a frame: time, number of its section, and what `_columns` holds of the song and of each stem.

    Raises:
        OutputError: The disk does not take it.
    """
    times = analysis.timeline.frame_times()
    sections = np.searchsorted(analysis.features.sections[1:-1], times, side="right") + 1
    columns = _columns(analysis.features, times)
    for stem, found in analysis.stems.items():
        columns |= {f"{stem}.{name}": values for name, values in _columns(found.features, times).items()}
    with written(path, option="--out-dir") as part, part.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["frame", "time", *columns, "section"])
        for frame, time in enumerate(times):
            values = (column[frame] for column in columns.values())
            cells = (f"{value:.4f}" if isinstance(value, np.floating) else value for value in values)
            rows.writerow([frame, f"{time:.4f}", *cells, sections[frame]])


def _columns(features: Features, times: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
    """Curves, pitch classes, and how many onsets and beats fall into each frame."""
    curves = {name: curve.values for name, curve in features.curves.items()}
    pitches = dict(zip(PITCHES, features.chroma.T, strict=True))
    moments = {"onsets": _counted(features.onsets, times), "beats": _counted(features.beats, times)}
    return {**curves, **pitches, **moments}


def _section(section: Section) -> dict[str, Any]:
    found: dict[str, Any] = {
        "start": round(section.start, 4),
        "stop": round(section.stop, 4),
        "level": None if section.level is None else round(section.level, 2),
    }
    if section.meaning is not None:
        found["guessing"] = section.meaning.guessing
        found["words"] = [
            {"text": word.text, "cosine": round(word.cosine, 4), "margin": round(word.margin, 3)}
            for word in section.meaning.words
        ]
    return found


def _counted(seconds: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many of the moments fall into each frame."""
    return np.bincount(np.searchsorted(times, seconds, side="right") - 1, minlength=len(times))


def _short(values: NDArray[np.float64]) -> list[float]:
    return [round(float(value), 4) for value in values]
