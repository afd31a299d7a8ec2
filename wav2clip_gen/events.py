"""What a render tells while it goes on, and what it leaves behind. Knows no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from wav2clip_gen.video.probe import SyncReport


@dataclass(frozen=True)
class Stage:
    """A part of the work begins: "load", "separate", "hear", "paint", "join", "check" or "draw"."""

    name: str


@dataclass(frozen=True)
class Ready:
    """The networks are on their device."""

    family: str
    device: str


@dataclass(frozen=True)
class Silent:
    """Stems that shall steer are silent from start to end."""

    stems: tuple[str, ...]


@dataclass(frozen=True)
class FramePainted:
    """One more frame is in the film."""

    index: int
    frames: int  # of the whole film
    loss: float | None  # at the last step; None without steps
    similarity: float | None  # mean cosine between the views and the target at the last step
    pictures: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)  # of a grid, the same of each


@dataclass(frozen=True, kw_only=True)
class Film:
    """A finished film: made, joined with its sound, measured and recorded."""

    path: Path
    record: Path
    frames: int
    seconds: float  # of film
    seed: int
    sync: SyncReport
    timings: dict[str, float] = field(default_factory=dict)  # seconds of work per stage
    partial: bool = False  # stopped before its end


@dataclass(frozen=True)
class Finished:
    """The last event."""

    film: Film


@dataclass(frozen=True)
class SectionPainted:
    """One more section of the song is on its storyboard."""

    index: int
    sections: int  # of the song
    start: float  # seconds in the song
    stop: float
    words: tuple[str, ...]  # that the encoder hears in it, best first; none where it is silent or was not asked
    guessing: bool
    similarity: float | None  # as of a frame


@dataclass(frozen=True)
class SheetFinished:
    """The last event of a storyboard."""

    path: Path
    sections: int


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a film would cost, from some steps that were timed."""

    family: str
    device: str
    seconds: float  # for the whole film
    per_song_second: float  # seconds of work per second of song, after the first frame


Event = Stage | Ready | Silent | FramePainted | Finished | SectionPainted | SheetFinished
