"""One track analysed: its features, its sections, and what the encoder hears in each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wav2clip_gen.analysis.words import SILENT, Meaning, frames_of, name_spans
from wav2clip_gen.audio.features import Features, measure
from wav2clip_gen.audio.track import Track
from wav2clip_gen.audio.windows import Timeline, iterate_windows

if TYPE_CHECKING:
    from torch import Tensor

    from wav2clip_gen.models.families import Family


@dataclass(frozen=True)
class Section:
    """A part of a track that is alike in itself."""

    start: float  # seconds from the beginning of the span that was analysed
    stop: float
    level: float | None  # dB of full scale, root mean square; None where it is silent
    meaning: Meaning | None  # None where nobody was asked


@dataclass(frozen=True, eq=False)
class Analysis:
    """What was found in a track."""

    track: Track
    timeline: Timeline
    features: Features
    sections: tuple[Section, ...]
    family: str | None = None  # whose encoder was asked
    vocabulary: int = 0  # how many words it could choose from


def analyse(
    track: Track,
    timeline: Timeline,
    *,
    family: Family | None = None,
    words: tuple[str, ...] = (),
    heard: Tensor | None = None,
) -> Analysis:
    """Measure a track, and ask a family's encoder which of `words` its sections are nearest to.

    Args:
        track: The sound.
        timeline: Its windows and frames.
        family: Networks that hear and read; None: nobody is asked.
        words: The vocabulary.
        heard: (W, D) unit vectors of the windows, where they are known already.

    Raises:
        SoundError: The file changed while it was read.
    """
    features = measure(track, timeline)
    edges = features.sections
    meanings: list[Meaning] | list[None] = [None] * (len(edges) - 1)
    if family is not None:
        loud = features.curves["loudness"].values
        if heard is None:
            heard = family.wav2clip.embed(lambda: iterate_windows(track.mono_blocks(), timeline))
        meanings = name_spans(heard.numpy(), timeline, edges, loud, family=family, words=words)
    sections = tuple(
        Section(float(start), float(stop), _level(features, frames_of(timeline, start, stop)), meaning)
        for start, stop, meaning in zip(edges[:-1], edges[1:], meanings, strict=True)
    )
    return Analysis(track, timeline, features, sections, family.name if family else None, len(words) if family else 0)


def _level(features: Features, frames: slice) -> float | None:
    """Root mean square of some frames in dB, or None."""
    if features.curves["loudness"].values[frames].max() < SILENT:
        return None
    return 10 * math.log10(float(np.square(features.levels[frames]).mean()))
