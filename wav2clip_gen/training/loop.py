"""The loop that all trainings share: schedule, averaging, checkpoints, log, and a stop at the first NaN.

Every draw of a step comes from a generator made of (seed, step), so a run that was interrupted goes on
exactly as if it had not been, and there is no random state to store.
"""

from __future__ import annotations

import contextlib
import copy
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from wav2clip_gen.errors import TrainingError
from wav2clip_gen.models import checkpoints
from wav2clip_gen.training.distributed import ALONE, Group
from wav2clip_gen.training.keeping import COPIES, make_room, read_checkpoint, write_checkpoint, write_log
from wav2clip_gen.training.plan import Event, Finished, Plan, Progress, Scored, Started

MEASURED_STEPS = 40  # after which a run that was given minutes knows how many steps that will be
WARM_UP_STEPS = 200  # over which the learning rate rises from zero
AVERAGE_DECAY = 0.999  # of the weights that are saved; faster at the start

Network = TypeVar("Network", bound=nn.Module)


class Recipe(ABC, Generic[Network]):
    """What one part adds to the loop: a network, its losses, its scores."""

    name: str
    settings: Any  # a frozen dataclass; a resumed run must have the same
    network: Network
    optimiser: torch.optim.Optimizer
    seed: int
    device: torch.device
    notes: tuple[str, ...] = ()  # what a person should know of the data
    skipped: tuple[str, ...] = ()  # names of what could not be read of the data
    group: Group = ALONE  # the processes that carry it out
    average_decay: float = AVERAGE_DECAY  # 0 saves the weights as they are
    finished: bool = False  # there is nothing more to be gained: the run ends before its length

    @abstractmethod
    def losses(self, step: int, progress: float, generator: torch.Generator) -> dict[str, Tensor]:
        """The terms whose sum is minimised at `step`; `progress` goes from 0 to 1 over the run."""

    @abstractmethod
    def scores(self, network: Network) -> dict[str, float]:
        """What `network` reaches on the validation data."""

    def backward(self, total: Tensor) -> None:
        """Leave the gradient of `total`, the sum of `losses`, in the network's parameters."""
        total.backward()

    def learning_rate(self, step: int, steps: int | None, *, cool_down: float) -> float:
        """The learning rate of a step."""
        return learning_rate(step, steps, peak=self.settings.learning_rate, cool_down=cool_down)

    def improved(self, scores: dict[str, float]) -> bool:
        """Take note of new scores; whether the network is worth keeping."""
        return True

    def after_step(self, average: Average[Network]) -> None:
        """Do what does not follow a gradient."""

    def state(self) -> dict[str, Any]:
        """What else a checkpoint must hold."""
        return {}

    def conditions(self) -> dict[str, Any]:
        """What else, beside the settings, a resumed run must have the same."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""

    def part(self, network: Network) -> nn.Module:
        """What of `network` goes into the weights file."""
        return network

    def provenance(self) -> dict[str, Any]:
        """What the weights file tells of its training, beside steps, seed and scores."""
        return {"settings": asdict(self.settings)}

    def batch(self) -> torch.autocast:
        """Half precision where it is safe."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


class Average(Generic[Network]):
    """A running mean of a network's weights and statistics: the network that is saved."""

    def __init__(self, network: Network, *, decay: float = AVERAGE_DECAY) -> None:
        self._source, self._decay = network, decay
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.updates = 0

    def restart(self) -> None:
        """Forget the past: equal the network as it is now."""
        self.network.load_state_dict(self._source.state_dict())
        self.updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the network as it is now."""
        keep = min(self._decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        for mean, value in zip(_tensors(self.network), _tensors(self._source), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - keep)
            else:
                mean.copy_(value)


def _tensors(network: nn.Module) -> list[Tensor]:
    """What is saved of a network; the rest are constants, such as masks of -inf, which have no mean."""
    return list(network.state_dict().values())


def learning_rate(step: int, steps: int | None, *, peak: float, cool_down: float) -> float:
    """Rise over the first steps, stay, and fall in a straight line to zero over the last share of the run.

    Unlike a cosine's, the middle does not depend on the length, which can be changed until the fall.
    """
    warm_up = min(WARM_UP_STEPS, steps or WARM_UP_STEPS)
    rising = (step + 1) / warm_up
    falling = 1.0 if steps is None else (steps - step) / max(cool_down * steps, 1)
    return peak * min(rising, 1.0, falling)


def step_generator(seed: int, step: int, device: str | torch.device = "cpu") -> torch.Generator:
    """The source of all draws of one step."""
    return torch.Generator(device).manual_seed(seed * 1_000_003 + step)


@contextlib.contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Fix torch's global generators, the device's too, inside the block: dropout and initial weights take no other."""
    on_gpu = device is not None and device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


class Run(Generic[Network]):
    """One training run: a recipe carried out by a plan."""

    def __init__(self, recipe: Recipe[Network], plan: Plan) -> None:
        self.recipe, self.plan = recipe, plan
        self.average = Average(recipe.network, decay=recipe.average_decay)
        self.step = 0
        self.steps = plan.steps
        self.seconds = 0.0  # spent in training steps
        self.scores: dict[str, float] = {}
        self._scored_at: int | None = None

    def events(self, *, fresh: bool = False) -> Iterator[Event]:
        """Train to the end, telling how it goes; who stops listening loses what the last checkpoint lacks.

        Args:
            fresh: Begin anew even if there is a checkpoint.

        Raises:
            TrainingError: The checkpoint is for other settings, or the loss is no longer a number.
            OutputError: The folder cannot be written to, or the disk is too small for what the run leaves.
        """
        size = sum(tensor.nbytes for tensor in _tensors(self.recipe.network))
        make_room(self.plan.folder, COPIES * size, what="the run's files")
        self.recipe.group.wait()
        if not fresh and self.plan.checkpoint.exists():
            self._resume()
        elif self.recipe.group.first:
            self.plan.log.unlink(missing_ok=True)
        if self.recipe.skipped:
            self._log({"step": self.step, "skipped": self.recipe.skipped})
        yield Started(self.step, self.recipe.notes)
        reported = saved = scored = time.monotonic()
        sums: dict[str, float] = {}
        count = 0
        while not self.recipe.finished and (self.steps is None or self.step < self.steps):
            for name, value in self._train_step().items():
                sums[name] = sums.get(name, 0.0) + value
            count += 1
            self._fix_steps()
            now = time.monotonic()
            if now - reported >= self.plan.report_every or self.step == self.steps:
                losses = {name: value / count for name, value in sums.items()}
                self._log({"step": self.step, "losses": losses})
                yield Progress(self.step, self.steps, losses, (now - reported) / count)
                sums, count, reported = {}, 0, now
            if self._is_time_to_score(now - scored) and self.step != self.steps:
                yield self._score()
                scored = time.monotonic()
            if now - saved >= self.plan.save_every:
                self._save()
                saved = time.monotonic()
        if self._scored_at != self.step:
            yield self._score()
        self._save()
        yield Finished(self.step, self.weights, self.recipe.skipped)

    def _train_step(self) -> dict[str, float]:
        recipe, began = self.recipe, time.monotonic()
        rate = recipe.learning_rate(self.step, self.steps, cool_down=self.plan.cool_down)
        for group in recipe.optimiser.param_groups:
            group["lr"] = rate * group.get("scale", 1.0)
        progress = self.step / self.steps if self.steps else 0.0
        with seeded(recipe.seed + self.step, recipe.device):
            terms = recipe.losses(self.step, progress, step_generator(recipe.seed, self.step))
        total = torch.stack(list(terms.values())).sum()
        self._check_finite("loss", total)
        recipe.optimiser.zero_grad(set_to_none=True)
        recipe.backward(total)
        # a finite loss may have no finite gradient: the weights, and the next checkpoint, would be lost to it
        self._check_finite("gradient's norm", nn.utils.clip_grad_norm_(recipe.network.parameters(), 1.0))
        recipe.optimiser.step()
        recipe.after_step(self.average)
        self.average.update()
        self.step += 1
        self.seconds += time.monotonic() - began
        return {name: value.item() for name, value in terms.items()}

    def _check_finite(self, name: str, value: Tensor) -> None:
        if not math.isfinite(value.item()):
            raise TrainingError(
                f"{self.recipe.name}: the {name} is {value.item()} at step {self.step}",
                hint=f"the last good state is kept in {self.plan.folder}; try a lower learning rate",
            )

    def _fix_steps(self) -> None:
        """Turn minutes into steps once the speed is known."""
        if self.steps is None and self.step >= MEASURED_STEPS and self.plan.minutes is not None:
            speed = self.recipe.group.agree({"seconds": self.seconds / self.step})
            self.steps = max(int(self.plan.minutes * 60 / speed["seconds"]), self.step + 1)

    def _is_time_to_score(self, seconds: float) -> bool:
        """Whether an evaluation is due, by steps where the plan says so, else by the clock."""
        if self.plan.score_steps is not None:
            return self.step % self.plan.score_steps == 0
        return seconds >= self.plan.score_every

    def _score(self) -> Scored:
        group = self.recipe.group
        self.scores = group.agree(self.recipe.scores(self.average.network) if group.first else {})
        self._scored_at = self.step
        self._log({"step": self.step, "scores": self.scores})
        if self.recipe.improved(self.scores) and group.first:
            self._write_weights()
        return Scored(self.step, self.scores)

    @property
    def weights(self) -> Path:
        """Where the weights are, as of the last evaluation."""
        return self.plan.folder / f"{self.recipe.name}.safetensors"

    def _write_weights(self) -> None:
        """Write the averaged network as a weights file that tells where it comes from."""
        training = {
            "steps": self.step,
            "seed": self.recipe.seed,
            "seconds": round(self.seconds),
            "scores": {name: round(value, 4) for name, value in self.scores.items()},
            "torch": torch.__version__,
            "device": self.recipe.device.type,
            "threads": torch.get_num_threads(),
            **self.recipe.provenance(),
        }
        checkpoints.save(self.recipe.part(self.average.network), self.weights, training=training)

    def _log(self, entry: dict[str, Any]) -> None:
        if not self.recipe.group.first:
            return
        write_log(self.plan.log, {**entry, "seconds": round(self.seconds, 1)})

    def _settings(self) -> dict[str, Any]:
        given = {**asdict(self.recipe.settings), "seed": self.recipe.seed, "cool_down": self.plan.cool_down}
        return {**given, **self.recipe.conditions()}

    def _save(self) -> None:
        """Write the checkpoint, whole or not at all.

        Raises:
            OutputError: The disk does not take it; the one before stays.
        """
        if not self.recipe.group.first:
            return
        state = {
            "settings": self._settings(),
            "step": self.step,
            "steps": self.steps,
            "seconds": self.seconds,
            "scores": self.scores,
            "network": self.recipe.network.state_dict(),
            "average": self.average.network.state_dict(),
            "updates": self.average.updates,
            "optimiser": self.recipe.optimiser.state_dict(),
            "recipe": self.recipe.state(),
        }
        write_checkpoint(self.plan.checkpoint, state)

    def _resume(self) -> None:
        path = self.plan.checkpoint
        state = read_checkpoint(path, settings=self._settings(), device=self.recipe.device)
        try:
            self.recipe.network.load_state_dict(state["network"])
            self.recipe.optimiser.load_state_dict(state["optimiser"])
            self.recipe.load_state(state["recipe"])
            self.average.network.load_state_dict(state["average"])
        except (RuntimeError, ValueError, KeyError) as error:
            told = str(error).splitlines()[-1].strip()
            raise TrainingError(
                f"{path}: the run was begun with another network ({told})", hint="begin anew with --fresh"
            ) from error
        self.average.updates = state["updates"]
        self.step, self.seconds, self.scores = state["step"], state["seconds"], state["scores"]
        self.steps = self.plan.steps or state["steps"]
