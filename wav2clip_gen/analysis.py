"""Analyze a track and its stems: features, sections and the labels nearest to each; reports in JSON and CSV."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wav2clip_gen import __version__
from wav2clip_gen.audio.decode import FEATURE_RATE, decode
from wav2clip_gen.audio.features import Features, measure
from wav2clip_gen.audio.stems import StemPlan
from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.audio.track import Track
from wav2clip_gen.config import MIX, PITCHES
from wav2clip_gen.errors import SettingsError
from wav2clip_gen.files import written

if TYPE_CHECKING:
    from torch import Tensor

    from wav2clip_gen.models.registry import Models

Floats = NDArray[np.float64]

FORMAT = 1  # of the JSON report
LABELS = Path(__file__).with_name("labels.txt")  # everyday sounds, scenes and instruments, most of them known to `mini`
MIN_LABELS = 10  # in a vocabulary, for a margin to mean something
TOP_LABELS = 3
SILENCE = 1e-3  # of the song's reference level (-60 dB): quieter windows are not labelled

# Standard deviations above the vocabulary's mean that the best label must reach. With `mini` and `labels.txt`, over
# the 267 pieces that its encoder was not trained on: of the 130 that reach it 68 % have the right label (or a near one,
# such as lightning for a thunderstorm) first, of the others 24 %. Of eleven noises and steady tones two reach it (3.6),
# and of random directions of the space one in twenty. It was not calibrated for other networks or other labels.
CONFIDENT_MARGIN = 3.5


@dataclass(frozen=True)
class Label:
    """A label and how near it is to an embedding."""

    text: str
    cosine: float
    margin: float  # of the cosine over the vocabulary's mean, in the vocabulary's standard deviations


@dataclass(frozen=True)
class Section:
    """A homogeneous section of a track."""

    start: float  # seconds from the beginning of the analyzed span
    stop: float
    level: float | None  # RMS in dBFS; None where it is silent
    labels: tuple[Label, ...] | None = None  # nearest first, empty where it is silent; None: not labelled

    @property
    def uncertain(self) -> bool:
        """Whether the best label does not stand out from the vocabulary, or there is none."""
        return not self.labels or self.labels[0].margin < CONFIDENT_MARGIN


@dataclass(frozen=True, eq=False)
class SoundAnalysis:
    """Features of the mix or of a stem, and the mix's sections as they are in it."""

    features: Features
    sections: tuple[Section, ...]
    origin: str = ""  # of a stem: its file, or the separator


@dataclass(frozen=True, eq=False)
class Analysis:
    """Features and sections of a track and of its stems."""

    track: Track
    timeline: Timeline
    mix: SoundAnalysis
    stems: dict[str, SoundAnalysis]
    family: str | None  # whose networks gave the labels
    vocabulary: int  # labels to choose from


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Labels with their text embeddings."""

    labels: tuple[str, ...]
    vectors: NDArray[np.floating]  # (N, D) unit vectors

    @classmethod
    def encode(cls, labels: Sequence[str], models: Models) -> Vocabulary:
        """Embed labels with the text tower."""
        return cls(tuple(labels), models.clip.encode_text(list(labels)).detach().cpu().numpy())

    def nearest(self, embedding: NDArray[np.floating]) -> tuple[Label, ...]:
        """The labels nearest to a unit vector (D,), best first."""
        cosines = self.vectors @ embedding
        margins = (cosines - cosines.mean()) / max(float(cosines.std()), 1e-12)
        best = np.argsort(-cosines)[:TOP_LABELS]
        return tuple(Label(self.labels[index], float(cosines[index]), float(margins[index])) for index in best)


def read_labels(path: Path = LABELS) -> tuple[str, ...]:
    """Read labels from a text file, one per line; empty lines and duplicates are skipped.

    Raises:
        SettingsError: The file cannot be read, or holds too few.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror})", hint="give a text file to --labels") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: not a text file in UTF-8", hint="save it as UTF-8, one label per line") from None
    labels = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if len(labels) < MIN_LABELS:
        raise SettingsError(
            f"{path}: holds {len(labels)} labels, too few to compare", hint=f"give at least {MIN_LABELS}, one per line"
        )
    return labels


def analyze(
    track: Track,
    timeline: Timeline,
    *,
    models: Models | None = None,
    labels: Sequence[str] = (),
    stems: StemPlan | None = None,
    on_separation: Callable[[float], None] = lambda share: None,
) -> Analysis:
    """Measure a track and its stems, and label their sections.

    Args:
        track: The song.
        timeline: Its frames and windows.
        models: Networks that embed sound and labels; without them sections are not labelled.
        labels: The vocabulary.
        stems: Stems to analyze as well, each by itself.
        on_separation: Called with the separated share of the song, from 0 to 1.

    Raises:
        OutputError: The cache of separated stems cannot be written.
        SoundError: The file changed while it was read.
    """
    from wav2clip_gen.synthesis.conditioning import encode_audio  # imports torch

    vocabulary = Vocabulary.encode(labels, models) if models else None
    tracks = {MIX: track, **(stems.load(on_progress=on_separation) if stems else {})}
    found: dict[str, SoundAnalysis] = {}
    for name, sound in tracks.items():
        signal = decode(sound, timeline, (FEATURE_RATE, models.wav2clip.sample_rate) if models else (FEATURE_RATE,))
        features = measure(signal, timeline)
        song = found[MIX].features if found else features
        sections = find_sections(features, timeline, song=song)
        if models and vocabulary:
            embeddings = encode_audio(models.wav2clip, signal, timeline)
            sections = label_sections(sections, embeddings, relative_level(features, song), timeline, vocabulary)
        found[name] = SoundAnalysis(features, sections, origin=stems.origins[name] if stems and name != MIX else "")
    family, count = (models.name, len(labels)) if models else (None, 0)
    return Analysis(track, timeline, found.pop(MIX), found, family=family, vocabulary=count)


def relative_level(features: Features, song: Features) -> Floats:
    """Level of each frame relative to the song's reference level, (F,) in [0, 1]."""
    reference = song.curves["loudness"].high
    return np.clip(features.levels / reference, 0, 1) if reference > 0 else np.zeros_like(features.levels)


def find_sections(features: Features, timeline: Timeline, *, song: Features) -> tuple[Section, ...]:
    """The song's sections with their levels in `features`, which are of the song itself or of one of its stems."""
    levels, sections = relative_level(features, song), []
    for start, stop in pairwise(song.sections.tolist()):
        frames = timeline.frames_between(start, stop)
        silent = levels[frames].max() < SILENCE
        power = float(np.square(features.levels[frames]).mean())
        sections.append(Section(start, stop, None if silent else 10 * math.log10(power)))
    return tuple(sections)


def label_sections(
    sections: Sequence[Section], embeddings: Tensor, levels: Floats, timeline: Timeline, vocabulary: Vocabulary
) -> tuple[Section, ...]:
    """Label each section by the mean embedding of its windows, weighted by their level.

    Args:
        sections: Consecutive sections of the track.
        embeddings: (W, D) unit vectors of the windows.
        levels: (F,) in [0, 1], of the frames; see `relative_level`.
        timeline: Windows and frames of the track.
        vocabulary: The labels to choose from.
    """
    vectors = embeddings.numpy()
    centers = np.arange(len(vectors)) * timeline.hop
    frames = np.minimum((centers * float(timeline.fps)).astype(np.int64), timeline.frames - 1)
    first_frames = [timeline.frames_between(section.start, section.stop).start for section in sections]
    owners = np.searchsorted(first_frames, frames, side="right") - 1
    weights = np.where(levels[frames] < SILENCE, 0, levels[frames])
    labelled = []
    for number, section in enumerate(sections):
        mean = weights[owners == number] @ vectors[owners == number]
        length = float(np.linalg.norm(mean))
        labelled.append(replace(section, labels=vocabulary.nearest(mean / length) if length > 0 else ()))
    return tuple(labelled)


def report(analysis: Analysis) -> dict[str, Any]:
    """The analysis without the spectrogram, as plain values for JSON.

    A curve's value `v` stands for `low + v * (high - low)` of its unit; frame `i` begins at `i / fps` seconds.
    """
    track, timeline = analysis.track, analysis.timeline
    labels = {"models": analysis.family, "vocabulary": analysis.vocabulary, "sure": CONFIDENT_MARGIN}
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
        "words": labels if analysis.family else None,
        **_report_sound(analysis.mix),
        "stems": {name: {"from": stem.origin, **_report_sound(stem)} for name, stem in analysis.stems.items()},
    }


def _report_sound(sound: SoundAnalysis) -> dict[str, Any]:
    """Values of the song or a stem."""
    features = sound.features
    return {
        "tempo": None if features.tempo is None else round(features.tempo, 3),
        "beats": _rounded(features.beats),
        "onsets": _rounded(features.onsets),
        "sections": [_report_section(section) for section in sound.sections],
        "curves": {
            name: {"low": curve.low, "high": curve.high, "unit": curve.unit, "values": _rounded(curve.values)}
            for name, curve in features.curves.items()
        },
        "chroma": {pitch: _rounded(values) for pitch, values in zip(PITCHES, features.chroma.T, strict=True)},
    }


def _report_section(section: Section) -> dict[str, Any]:
    level = None if section.level is None else round(section.level, 2)
    values: dict[str, Any] = {"start": round(section.start, 4), "stop": round(section.stop, 4), "level": level}
    if section.labels is not None:
        values["guessing"] = section.uncertain
        values["words"] = [
            {"text": label.text, "cosine": round(label.cosine, 4), "margin": round(label.margin, 3)}
            for label in section.labels
        ]
    return values


def _rounded(values: Floats) -> list[float]:
    return [round(float(value), 4) for value in values]


def write_json(analysis: Analysis, path: Path, *, overwrite: bool = True) -> None:
    """Write the report as JSON, atomically.

    Raises:
        OutputError: The file cannot be written.
    """
    with written(path, option="--out-dir", overwrite=overwrite) as temporary:
        text = json.dumps(report(analysis), ensure_ascii=False) + "\n"
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # as a run record


def write_csv(analysis: Analysis, path: Path, *, overwrite: bool = True) -> None:
    """Write a row per frame, atomically: time, features of the song and of each stem, number of the section.

    Raises:
        OutputError: The file cannot be written.
    """
    times = analysis.timeline.frame_times()
    sections = np.searchsorted(analysis.mix.features.sections[1:-1], times, side="right") + 1
    columns = _csv_columns(analysis.mix.features, times)
    for stem, found in analysis.stems.items():
        columns |= {f"{stem}.{name}": values for name, values in _csv_columns(found.features, times).items()}
    whole = written(path, option="--out-dir", overwrite=overwrite)
    with whole as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["frame", "time", *columns, "section"])
        for frame, time in enumerate(times):
            values = (column[frame] for column in columns.values())
            cells = (f"{value:.4f}" if isinstance(value, np.floating) else value for value in values)
            rows.writerow([frame, f"{time:.4f}", *cells, sections[frame]])


def _csv_columns(features: Features, times: Floats) -> dict[str, NDArray[Any]]:
    """Curves, pitch classes, and the number of onsets and beats in each frame."""

    def count(seconds: Floats) -> NDArray[np.int64]:
        return np.bincount(np.searchsorted(times, seconds, side="right") - 1, minlength=len(times))

    curves = {name: curve.values for name, curve in features.curves.items()}
    pitches = dict(zip(PITCHES, features.chroma.T, strict=True))
    return {**curves, **pitches, "onsets": count(features.onsets), "beats": count(features.beats)}
