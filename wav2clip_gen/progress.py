"""What a run reports while it goes on, and its result. Imports no torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from wav2clip_gen.video.reactivity import Reactivity
from wav2clip_gen.video.verify import SyncReport

STAGES = {
    "load": "loading the models",
    "separate": "separating the stems",
    "analyze": "analyzing the audio",
    "optimize": "optimizing the frames",
    "mux": "muxing picture and sound",
    "verify": "verifying the film",
    "draw": "drawing the storyboard",
}


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The state of a run: one type for all stages."""

    stage: str  # one of STAGES
    done: int = 0  # frames, sections or percent finished in this stage
    total: int = 0  # of them; 0 where the stage has no steps
    unseen: int = 0  # frames besides that are still to be made: run-ins, and those that two segments share
    later: int = 0  # frames that are still to be made of the songs after this one
    loss: float | None = None  # of the last frame, at its last optimiser step
    similarity: float | None = None  # mean cosine between its cutouts and the target
    message: str = ""  # one line for the user

    @property
    def left(self) -> int:
        """Frames that are still to be made."""
        return self.total - self.done + self.unseen


OnProgress = Callable[[Progress], None]


def ignore(progress: Progress) -> None:
    """A listener that does nothing."""


class Pace:
    """Measures the seconds per frame, from the second frame on: the first has more steps."""

    def __init__(self) -> None:
        self._left, self._since = 0, 0.0

    def update(self, progress: Progress) -> float | None:
        """Seconds per frame so far; None until there is a second one."""
        now = time.perf_counter()
        if progress.done == 1 or not self._since:
            self._left, self._since = progress.left, now
        counted = self._left - progress.left
        return (now - self._since) / counted if counted else None


class StageClock:
    """Reports stages as they begin, and the seconds spent in each."""

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._seconds: dict[str, float] = {}
        self._stage, self._since = "", time.perf_counter()

    def begin(self, stage: str) -> None:
        """Begin a stage, which ends the one before."""
        self._close()
        if stage != self._stage:
            self._stage = stage
            self._on_progress(Progress(stage=stage))

    def report(self, **values: object) -> None:
        """Report progress within the stage; see `Progress`."""
        self._on_progress(Progress(stage=self._stage, **values))  # type: ignore[arg-type]

    def finish(self) -> dict[str, float]:
        """Seconds per stage since the last call."""
        self._close()
        seconds, self._seconds, self._stage = self._seconds, {}, ""
        return {stage: round(spent, 3) for stage, spent in seconds.items()}

    def _close(self) -> None:
        now = time.perf_counter()
        if self._stage:
            self._seconds[self._stage] = self._seconds.get(self._stage, 0.0) + now - self._since
        self._since = now


@dataclass(frozen=True, kw_only=True)
class Film:
    """A finished film: optimised, muxed, verified and recorded."""

    path: Path
    record: Path
    frames: int
    seconds: float  # of film
    seed: int
    sync: SyncReport
    reactivity: Reactivity
    timings: dict[str, float] = field(default_factory=dict)  # seconds of work per stage
    partial: bool = False  # stopped before its end
    segments: list[int] = field(default_factory=lambda: [0])  # the first frame of each


@dataclass(frozen=True, kw_only=True)
class Storyboard:
    """A finished storyboard."""

    path: Path
    sections: int


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The cost of a film, extrapolated from a few frames."""

    family: str
    device: str
    seconds: float  # for the whole film
    per_song_second: float  # seconds of work per second of song, after the first frame
    memory: int | None = None  # bytes at most: of the GPU, else of this machine; None where that is not known
    disk: int = 0  # bytes while the film is made, by a high estimate
