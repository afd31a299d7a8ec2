"""One track analysed, and its stems: features, sections, and what the encoder hears in each section."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from wav2clip_gen.analysis.words import SILENT, Meaning, name_spans
from wav2clip_gen.audio.decode import decode
from wav2clip_gen.audio.features import Features, measure
from wav2clip_gen.audio.smoothing import Floats
from wav2clip_gen.audio.stems import StemPlan
from wav2clip_gen.audio.timeline import Timeline, iterate_windows
from wav2clip_gen.audio.track import Track

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
class StemAnalysis:
    """What was found in a stem: its own features, and the song's sections as it sounds in them."""

    origin: str  # its file, or what separated it
    features: Features
    sections: tuple[Section, ...]


@dataclass(frozen=True, eq=False)
class Analysis:
    """What was found in a track."""

    track: Track
    timeline: Timeline
    features: Features
    sections: tuple[Section, ...]
    family: str | None = None  # whose encoder was asked
    vocabulary: int = 0  # how many words it could choose from
    stems: dict[str, StemAnalysis] = field(default_factory=dict)


def analyse(
    track: Track,
    timeline: Timeline,
    *,
    family: Family | None = None,
    words: tuple[str, ...] = (),
    heard: Tensor | None = None,
    stems: StemPlan | None = None,
    on_separation: Callable[[float], None] = lambda share: None,
) -> Analysis:
    """Measure a track and its stems, and ask a family's encoder which of `words` their sections are nearest to.

    Args:
        track: The sound.
        timeline: Its windows and frames.
        family: Networks that hear and read; None: nobody is asked.
        words: The vocabulary.
        heard: (W, D) unit vectors of the windows, where they are known already.
        stems: The stems that are looked at too, by themselves.
        on_separation: Is told how much of the song is separated into stems, from 0 to 1.

    Raises:
        OutputError: The cache of separated stems cannot be written to.
        SoundError: The file changed while it was read.
    """
    features = measure(decode(track, timeline), timeline)
    look = _Look(timeline, features, family, words)
    parts = {}
    if stems:
        for name, stem in stems.load(on_progress=on_separation).items():
            own = measure(decode(stem, timeline), timeline)
            parts[name] = StemAnalysis(stems.origins[name], own, look.sections(stem, own))
    return Analysis(
        track, timeline, features, look.sections(track, features, heard), family.name if family else None,
        len(words) if family else 0, parts,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Look:
    """How the sections of a song are looked at, in the song itself and in its stems."""

    timeline: Timeline
    song: Features
    family: Family | None
    words: tuple[str, ...]

    def sections(self, sound: Track, features: Features, heard: Tensor | None = None) -> tuple[Section, ...]:
        """The song's sections as they are in one of its sounds, whose windows' unit vectors may be known already."""
        edges, full = self.song.sections, self.song.curves["loudness"].high
        loudness = np.clip(features.levels / full, 0, 1) if full > 0 else np.zeros(self.timeline.frames)
        meanings: list[Meaning] | list[None] = [None] * (len(edges) - 1)
        if self.family is not None:
            if heard is None:
                heard = self.family.wav2clip.embed(lambda: iterate_windows(sound.mono_blocks(), self.timeline))
            meanings = name_spans(heard.numpy(), self.timeline, edges, loudness, family=self.family, words=self.words)
        found = []
        for start, stop, meaning in zip(edges[:-1].tolist(), edges[1:].tolist(), meanings, strict=True):
            frames = self.timeline.frames_between(start, stop)
            found.append(Section(start, stop, _level(features.levels[frames], loudness[frames]), meaning))
        return tuple(found)


def _level(levels: Floats, loudness: Floats) -> float | None:
    """Root mean square of some frames in dB, or None where they are silent beside the song's loud places."""
    if loudness.max() < SILENT:
        return None
    return 10 * math.log10(float(np.square(levels).mean()))
