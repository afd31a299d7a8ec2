"""The training loop of all networks, with evaluation, exact resume and a stop at the first NaN.

All random numbers of a step come from a generator seeded with (seed, step), so an interrupted run continues exactly as
if it had not been interrupted, and no random state needs to be stored.
"""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor, nn

from wav2clip_gen.drawing import clock
from wav2clip_gen.errors import TrainingError
from wav2clip_gen.files import appear_whole
from wav2clip_gen.models import checkpoints
from wav2clip_gen.training.data import Loader
from wav2clip_gen.training.distributed import SINGLE, World
from wav2clip_gen.training.schedule import (
    EMA_DECAY,
    WARM_UP_STEPS,
    AverageModel,
    PlateauSchedule,
    Schedule,
    ensure_space,
    learning_rate,
    seeded,
    step_generator,
    writing,
)

UNREAD_STEPS = 25  # on a GPU, which would wait whenever a number of a step is read
TOTALS = ("loss", "gradient's norm")
FULL_DISK = "free some disk space, then resume: the last good checkpoint is kept"
COPIES = 8  # of a network on the disk: weights, average and two moments, in the old checkpoint and in the new one

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class TrainingProgress:
    """A message about a run, with the mean losses since the last report or the scores of an evaluation."""

    step: int
    message: str
    losses: dict[str, float] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)


class TrainTask(ABC, Generic[Network]):
    """What a network brings to the trainer: its data, losses and scores."""

    name: str
    network: Network
    optimizer: torch.optim.Optimizer
    data_facts: dict[str, Any]  # of the data; a resumed run must have the same, and the weights file records them
    notes: tuple[str, ...] = ()  # about the data
    skipped: tuple[str, ...] = ()  # names of unreadable examples
    world: World = SINGLE
    ema_decay: float = EMA_DECAY  # 0 saves the weights as they are
    restart_average: bool = False  # set by a task whose weights have jumped: their average starts anew
    plateau: PlateauSchedule | None = None  # instead of `learning_rate`; keeps the best weights

    def __init__(
        self, settings: Any, *, seed: int = 0, device: str | torch.device = "cpu", loader: Loader | None = None
    ) -> None:
        """Take one of the dataclasses of `training.settings`; a resumed run must have the same settings and seed."""
        self.settings, self.seed = settings, seed
        self.device, self.loader = torch.device(device), loader or Loader()

    @abstractmethod
    def losses(self, step: int, progress: float, generator: torch.Generator) -> dict[str, Tensor]:
        """The terms whose sum is minimized at `step`; `progress` goes from 0 to 1 over the run."""

    @abstractmethod
    def scores(self, network: Network) -> dict[str, float]:
        """Scores of `network` on the validation data."""

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradient of the summed losses in the network's parameters."""
        loss.backward()

    def after_step(self) -> None:
        """Update what has no gradient."""

    def state_dict(self) -> dict[str, Any]:
        """Additional state for the checkpoint."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""

    def exported(self, network: Network) -> nn.Module:
        """The part of `network` that goes into the weights file."""
        return network

    def provenance(self) -> dict[str, Any]:
        """Additional facts for the weights file."""
        return {}

    def autocast(self) -> torch.autocast:
        """Half precision where it is safe."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


class Trainer(Generic[Network]):
    """Carries out one training run: a task on a schedule."""

    def __init__(self, task: TrainTask[Network], schedule: Schedule, *, tensorboard: Path | None = None) -> None:
        self.task, self.schedule = task, schedule
        self.average = AverageModel(task.network, decay=task.ema_decay)
        self.step = 0
        self.steps = schedule.steps
        self.seconds = 0.0  # that the run has taken
        self.scores: dict[str, float] = {}
        self._scored_at: int | None = None
        self._unread: list[tuple[int, list[str], Tensor]] = []  # step, names and values, still on the device
        self._sums: dict[str, float] = {}  # of the losses since the last report
        self._summed = 0  # steps
        self._log = MetricsLog(schedule.log, tensorboard) if task.world.is_main else None

    @property
    def weights(self) -> Path:
        """The weights file, as of the last evaluation."""
        return self.schedule.folder / f"{self.task.name}.safetensors"

    @property
    def averaged(self) -> Network:
        """The network with the averaged weights, which are evaluated and saved."""
        return cast(Network, self.average.module)

    def run(self, *, fresh: bool = False) -> Iterator[TrainingProgress]:
        """Train to the end, reporting progress; closing the iterator loses what is not in the last checkpoint.

        Args:
            fresh: Start anew even if there is a checkpoint.

        Raises:
            TrainingError: The checkpoint has other settings, or the loss is not finite.
            OutputError: The folder cannot be written to, or the disk is too small.
        """
        size = sum(tensor.nbytes for tensor in self.task.network.state_dict().values())
        ensure_space(self.schedule.folder, COPIES * size, what="the run's files")
        self.task.world.barrier()
        if not fresh and self.schedule.checkpoint.exists():
            self._resume()
        elif self.task.world.is_main:
            self.schedule.log.unlink(missing_ok=True)
        if self.task.skipped:
            self._write_log(skipped=self.task.skipped)
        try:
            started = f"resuming at step {self.step}" if self.step else "started"
            yield TrainingProgress(self.step, "; ".join([started, *self.task.notes]))
            yield from self._loop()
            if self._scored_at != self.step:
                yield self._evaluate()
            self._save()
            message, skipped = f"finished after {self.step} steps: {self.weights}", len(self.task.skipped)
            if skipped:
                message += f"; {skipped} unreadable examples were skipped, log.jsonl names them"
            yield TrainingProgress(self.step, message)
        finally:
            if self._log:
                self._log.close()

    @property
    def _reads_each_step(self) -> bool:
        """Whether a number on the device can be read without making it wait."""
        return self.task.device.type == "cpu"

    @property
    def progress(self) -> float:
        """The part of the run that is over, from 0 to 1; all processes agree on it."""
        if self.steps is not None:
            return min(self.step / self.steps, 1.0)
        assert self.schedule.minutes is not None
        return self.task.world.broadcast({"progress": min(self.seconds / (60 * self.schedule.minutes), 1.0)})[
            "progress"
        ]

    def _loop(self) -> Iterator[TrainingProgress]:
        reported = saved = scored = time.monotonic()
        began, progress = reported - self.seconds, self.progress
        while progress < 1 and not (self.task.plateau is not None and self.task.plateau.exhausted):
            self._train_step(progress)
            now = time.monotonic()
            self.seconds, progress = now - began, self.progress
            if now - reported >= self.schedule.report_every or progress == 1:
                self._read()
                yield self._report((now - reported) / self._summed)
                reported = now
            every = self.schedule.score_steps
            is_due = now - scored >= self.schedule.score_every if every is None else self.step % every == 0
            if is_due and progress < 1:
                yield self._evaluate()
                scored = time.monotonic()
            if now - saved >= self.schedule.save_every:
                self._save()
                saved = time.monotonic()

    def _report(self, seconds: float) -> TrainingProgress:
        """Report the mean losses since the last report, and the seconds per step."""
        losses = {name: value / self._summed for name, value in self._sums.items()}
        self._sums, self._summed = {}, 0
        self._write_log(losses=losses, scalars={"speed/steps per second": 1 / seconds})
        terms = "  ".join(f"{term} {value:.4f}" for term, value in losses.items())
        if self.steps is None:
            left = 60 * (self.schedule.minutes or 0) - self.seconds
        else:
            left = (self.steps - self.step) * seconds
        of = "" if self.steps is None else f"/{self.steps}"
        message = f"step {self.step}{of}  {terms}  {1 / seconds:.2f} it/s  {clock(max(left, 0))} left"
        return TrainingProgress(self.step, message, losses=losses)

    def _train_step(self, progress: float) -> None:
        task = self.task
        if task.plateau is None:
            rate = learning_rate(
                self.step,
                progress,
                peak=task.settings.learning_rate,
                decay_fraction=self.schedule.decay_fraction,
                warm_up=min(WARM_UP_STEPS, self.steps or WARM_UP_STEPS),
            )
            for group in task.optimizer.param_groups:
                group["lr"] = rate * group.get("scale", 1.0)
        with seeded(task.seed + self.step, task.device):
            terms = task.losses(self.step, progress, step_generator(task.seed, self.step))
        loss = torch.stack(list(terms.values())).sum()
        task.optimizer.zero_grad(set_to_none=True)
        task.backward(loss)
        norm = nn.utils.clip_grad_norm_(task.network.parameters(), 1.0)
        values = torch.stack([loss.detach(), norm, *(term.detach() for term in terms.values())])
        self._unread.append((self.step, [*TOTALS, *terms], values))
        if self._reads_each_step or len(self._unread) >= UNREAD_STEPS:
            self._read()
        task.optimizer.step()
        if task.restart_average:
            self.average.restart(task.network)
            task.restart_average = False
        task.after_step()
        self.average.update_parameters(task.network)
        self.step += 1

    def _read(self) -> None:
        """Add the losses of the steps so far to their sums.

        Raises:
            TrainingError: One of them, or a gradient, is not finite: it would ruin the weights and the next checkpoint.
        """
        for step, names, values in self._unread:
            for name, value in zip(names, values.tolist(), strict=True):
                if name not in TOTALS:
                    self._sums[name] = self._sums.get(name, 0.0) + value
                elif not math.isfinite(value):
                    raise TrainingError(
                        f"{self.task.name}: the {name} is {value} at step {step}",
                        hint=f"the last good state is kept in {self.schedule.folder}; try a lower learning rate",
                    )
            self._summed += 1
        self._unread.clear()

    def _evaluate(self) -> TrainingProgress:
        task = self.task
        self._read()
        self.scores = task.world.broadcast(task.scores(self.averaged) if task.world.is_main else {})
        self._scored_at = self.step
        self._write_log(scores=self.scores)
        if task.plateau is None or task.plateau.update(self.scores["loss"]):
            self._write_weights()
        terms = "  ".join(f"{name} {value:.4g}" for name, value in self.scores.items())
        return TrainingProgress(self.step, f"scores at step {self.step}: {terms}", scores=self.scores)

    def _write_weights(self) -> None:
        """Write the averaged network as a weights file with its provenance."""
        if not self.task.world.is_main:
            return
        training = {
            "steps": self.step,
            "seed": self.task.seed,
            "seconds": round(self.seconds),
            "scores": {name: round(value, 4) for name, value in self.scores.items()},
            "torch": torch.__version__,
            "device": self.task.device.type,
            "threads": torch.get_num_threads(),
            "settings": asdict(self.task.settings),
            **self.task.data_facts,
            **self.task.provenance(),
        }
        checkpoints.save(self.task.exported(self.averaged), self.weights, training=training)

    def _write_log(self, **entry: Any) -> None:
        if self._log:
            self._log.write(self.step, seconds=round(self.seconds, 1), **entry)

    def _settings(self) -> dict[str, Any]:
        settings = {**asdict(self.task.settings), "seed": self.task.seed, **self.task.data_facts}
        return {**settings, "decay_fraction": self.schedule.decay_fraction}

    def _save(self) -> None:
        """Write a checkpoint atomically; if the disk is full, the previous one stays."""
        self._read()
        if not self.task.world.is_main:
            return
        state = {
            "settings": self._settings(),
            "progress": {"step": self.step, "seconds": self.seconds, "scores": self.scores},
            "network": self.task.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.task.optimizer.state_dict(),
            "plateau": self.task.plateau.state_dict() if self.task.plateau else None,
            "task": self.task.state_dict(),
        }
        path = self.schedule.checkpoint
        with writing(path, FULL_DISK), appear_whole(path, option="--runs") as temporary:
            torch.save(state, temporary)

    def _resume(self) -> None:
        """Restore the state of the checkpoint.

        Raises:
            TrainingError: It cannot be read, or its run had other settings or another network.
        """
        path, task, settings = self.schedule.checkpoint, self.task, self._settings()
        try:
            state: dict[str, Any] = torch.load(path, map_location=task.device, weights_only=True)
            stored = state["settings"]
        except Exception as error:  # torch.load raises whatever the damage leads to
            raise TrainingError(f"{path}: cannot be read ({error})", hint="start anew with --fresh") from error
        changed = [name for name in sorted(settings.keys() | stored.keys()) if settings.get(name) != stored.get(name)]
        if changed:
            names = ", ".join(f"{name} ({stored.get(name)}, now {settings.get(name)})" for name in changed)
            raise TrainingError(
                f"{path}: the run was started with other settings: {names}",
                hint="give the same settings, or start anew with --fresh",
            )
        try:
            task.network.load_state_dict(state["network"])
            task.optimizer.load_state_dict(state["optimizer"])
            task.load_state_dict(state["task"])
            self.average.load_state_dict(state["average"])
            if task.plateau is not None:
                task.plateau.load_state_dict(state["plateau"])
        except (RuntimeError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise TrainingError(
                f"{path}: the run was started with another network ({reason})", hint="start anew with --fresh"
            ) from error
        progress = state["progress"]
        self.step, self.seconds, self.scores = progress["step"], progress["seconds"], progress["scores"]


class MetricsLog:
    """Losses and scores of a run by step: one JSON object per line, and TensorBoard's event files if asked for."""

    def __init__(self, path: Path, tensorboard: Path | None = None) -> None:
        """Open the log.

        Raises:
            TrainingError: TensorBoard is not installed.
            OutputError: Its folder cannot be written to.
        """
        self._path = path
        self._writer: Any = None
        if tensorboard is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise TrainingError("TensorBoard is not installed", hint="pip install tensorboard") from None
        with writing(tensorboard, "choose another folder with --tensorboard"):
            self._writer = SummaryWriter(str(tensorboard))

    def write(self, step: int, *, scalars: Mapping[str, float] | None = None, **entry: Any) -> None:
        """Append an entry to the log; its groups of numbers and `scalars` also go to TensorBoard.

        Raises:
            OutputError: The disk is full or cannot be written.
        """
        with writing(self._path, FULL_DISK), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **entry}) + "\n")
        if self._writer is not None:
            groups = {group: values for group, values in entry.items() if isinstance(values, dict)}
            named = {f"{group}/{name}": value for group, values in groups.items() for name, value in values.items()}
            for name, value in {**named, **(scalars or {})}.items():
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close TensorBoard's event files."""
        if self._writer is not None:
            self._writer.close()
