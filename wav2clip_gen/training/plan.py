"""How long a training run is, where it leaves its files, and what it tells on the way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wav2clip_gen.errors import TrainingError


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long a run is and where it leaves its files."""

    folder: Path  # checkpoint, log and the weights so far
    steps: int | None = None
    minutes: float | None = None  # instead of steps
    cool_down: float = 0.3  # share of the steps over which the learning rate falls to zero
    save_every: float = 120.0  # seconds between two checkpoints
    score_every: float = 600.0  # seconds between two evaluations
    score_steps: int | None = None  # steps between two evaluations, instead of seconds
    report_every: float = 5.0  # seconds between two reports

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise TrainingError("a run needs either a number of steps or of minutes", hint="give --steps or --minutes")
        if (self.steps is not None and self.steps < 1) or (self.minutes is not None and self.minutes <= 0):
            raise TrainingError("a run needs at least one step", hint="give a larger --steps or --minutes")

    @property
    def checkpoint(self) -> Path:
        """All that is needed to go on."""
        return self.folder / "checkpoint.pt"

    @property
    def log(self) -> Path:
        """One JSON object a line: losses and scores by step."""
        return self.folder / "log.jsonl"


@dataclass(frozen=True)
class Started:
    """A run begins, or goes on where it was."""

    step: int
    notes: tuple[str, ...] = ()  # what a person should know of the data


@dataclass(frozen=True)
class Progress:
    """How far a run is; losses are means since the last report."""

    step: int
    steps: int | None  # None while the speed is being measured
    losses: dict[str, float]
    seconds_per_step: float


@dataclass(frozen=True)
class Scored:
    """What the averaged weights reach on pictures or sounds not trained on."""

    step: int
    scores: dict[str, float]


@dataclass(frozen=True)
class Finished:
    """The run is over and its weights are in place."""

    step: int
    weights: Path
    skipped: tuple[str, ...] = ()  # names of what could not be read of the data; the log has them too


@dataclass(frozen=True)
class Prepared:
    """How much of the data is ready, before a run that must embed it first."""

    done: int
    total: int
    skipped: int  # that cannot be read


Event = Prepared | Started | Progress | Scored | Finished
