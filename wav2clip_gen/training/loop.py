"""The loop that all trainings share: schedule, averaging, checkpoints, log, and a stop at the first NaN.

Every draw of a step comes from a generator made of (seed, step), so a run that was interrupted goes on
exactly as if it had not been, and there is no random state to store.
"""

from __future__ import annotations

import contextlib
import copy
import json
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
from wav2clip_gen.files import appear_whole
from wav2clip_gen.models import checkpoints
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

    @abstractmethod
    def losses(self, step: int, progress: float, generator: torch.Generator) -> dict[str, Tensor]:
        """The terms whose sum is minimised at `step`; `progress` goes from 0 to 1 over the run."""

    @abstractmethod
    def scores(self, network: Network) -> dict[str, float]:
        """What `network` reaches on the validation data."""

    def after_step(self, average: Average[Network]) -> None:
        """Do what does not follow a gradient."""

    def state(self) -> dict[str, Any]:
        """What else a checkpoint must hold."""
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

    def __init__(self, network: Network) -> None:
        self._source = network
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.updates = 0

    def restart(self) -> None:
        """Forget the past: equal the network as it is now."""
        self.network.load_state_dict(self._source.state_dict())
        self.updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the network as it is now."""
        keep = min(AVERAGE_DECAY, (1 + self.updates) / (10 + self.updates))
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
def seeded(seed: int) -> Iterator[None]:
    """Fix torch's global generator inside the block: dropout and initial weights take no other."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


class Run(Generic[Network]):
    """One training run: a recipe carried out by a plan."""

    def __init__(self, recipe: Recipe[Network], plan: Plan) -> None:
        self.recipe, self.plan = recipe, plan
        self.average = Average(recipe.network)
        self.step = 0
        self.steps = plan.steps
        self.seconds = 0.0  # spent in training steps
        self.scores: dict[str, float] = {}

    def events(self, *, fresh: bool = False) -> Iterator[Event]:
        """Train to the end, telling how it goes; who stops listening loses what the last checkpoint lacks.

        Args:
            fresh: Begin anew even if there is a checkpoint.

        Raises:
            TrainingError: The checkpoint is for other settings, or the loss is no longer a number.
        """
        self.plan.folder.mkdir(parents=True, exist_ok=True)
        if fresh:
            self.plan.log.unlink(missing_ok=True)
        elif self.plan.checkpoint.exists():
            self._resume()
        yield Started(self.step, self.recipe.notes)
        reported = saved = scored = time.monotonic()
        sums: dict[str, float] = {}
        count = 0
        while self.steps is None or self.step < self.steps:
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
            if now - scored >= self.plan.score_every and self.step != self.steps:
                yield self._score()
                scored = time.monotonic()
            if now - saved >= self.plan.save_every:
                self._save()
                saved = time.monotonic()
        yield self._score()
        self._save()
        yield Finished(self.step, self.weights)

    def _train_step(self) -> dict[str, float]:
        recipe, began = self.recipe, time.monotonic()
        rate = learning_rate(self.step, self.steps, peak=recipe.settings.learning_rate, cool_down=self.plan.cool_down)
        for group in recipe.optimiser.param_groups:
            group["lr"] = rate * group.get("scale", 1.0)
        progress = self.step / self.steps if self.steps else 0.0
        with seeded(recipe.seed + self.step):
            terms = recipe.losses(self.step, progress, step_generator(recipe.seed, self.step))
        total = torch.stack(list(terms.values())).sum()
        if not math.isfinite(total.item()):
            raise TrainingError(
                f"{recipe.name}: the loss is {total.item()} at step {self.step}",
                hint=f"the last good state is kept in {self.plan.folder}; try a lower learning rate",
            )
        recipe.optimiser.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(recipe.network.parameters(), 1.0)
        recipe.optimiser.step()
        recipe.after_step(self.average)
        self.average.update()
        self.step += 1
        self.seconds += time.monotonic() - began
        return {name: value.item() for name, value in terms.items()}

    def _fix_steps(self) -> None:
        """Turn minutes into steps once the speed is known."""
        if self.steps is None and self.step >= MEASURED_STEPS and self.plan.minutes is not None:
            self.steps = max(int(self.plan.minutes * 60 / (self.seconds / self.step)), self.step + 1)

    def _score(self) -> Scored:
        self.scores = self.recipe.scores(self.average.network)
        self._log({"step": self.step, "scores": self.scores})
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
        with self.plan.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**entry, "seconds": round(self.seconds, 1)}) + "\n")

    def _settings(self) -> dict[str, Any]:
        return {**asdict(self.recipe.settings), "seed": self.recipe.seed, "cool_down": self.plan.cool_down}

    def _save(self) -> None:
        """Write the checkpoint, whole or not at all."""
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
        with appear_whole(self.plan.checkpoint) as part:
            torch.save(state, part)

    def _resume(self) -> None:
        path = self.plan.checkpoint
        try:
            state = torch.load(path, map_location=self.recipe.device, weights_only=True)
        except Exception as error:  # torch.load raises whatever the damage leads to
            raise TrainingError(f"{path}: cannot be read ({error})", hint="begin anew with --fresh") from error
        self._refuse_other_settings(state["settings"])
        self.recipe.network.load_state_dict(state["network"])
        self.recipe.optimiser.load_state_dict(state["optimiser"])
        self.recipe.load_state(state["recipe"])
        self.average.network.load_state_dict(state["average"])
        self.average.updates = state["updates"]
        self.step, self.seconds, self.scores = state["step"], state["seconds"], state["scores"]
        self.steps = self.plan.steps or state["steps"]

    def _refuse_other_settings(self, stored: dict[str, Any]) -> None:
        wanted = self._settings()
        other = [name for name in sorted(wanted.keys() | stored.keys()) if wanted.get(name) != stored.get(name)]
        if other:
            names = ", ".join(f"{name} ({stored.get(name)}, now {wanted.get(name)})" for name in other)
            raise TrainingError(
                f"{self.plan.checkpoint}: the run was begun with other settings: {names}",
                hint="give the same settings, or begin anew with --fresh",
            )
