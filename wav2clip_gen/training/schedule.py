"""How a run proceeds: its length and files, learning rates, weight averaging, seeds and the order of examples."""

from __future__ import annotations

import contextlib
import copy
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from wav2clip_gen.errors import OutputError, TrainingError

WARM_UP_STEPS = 200  # over which the learning rate rises from zero
EMA_DECAY = 0.999  # of the weights that are saved; lower in the first steps


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long a run is, where its files go, and how often it reports, evaluates and saves."""

    folder: Path  # checkpoint, log and the latest weights
    steps: int | None = None
    minutes: float | None = None  # instead of steps
    decay_fraction: float = 0.3  # share of the steps over which the learning rate falls to zero
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
        """All that is needed to resume."""
        return self.folder / "checkpoint.pt"

    @property
    def log(self) -> Path:
        """One JSON object per line: losses and scores by step."""
        return self.folder / "log.jsonl"


def ensure_space(folder: Path, needed: int, *, what: str) -> None:
    """Create a folder and make sure that `needed` bytes are free on its disk.

    Raises:
        OutputError: The folder cannot be created, or the disk is too small.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise OutputError(
            f"cannot make the folder {folder}: {error.strerror}", hint="choose another one with --runs"
        ) from error
    if free < needed:
        raise OutputError(
            f"{folder}: {free / 1e6:,.0f} MB are free, and {what} may take {needed / 1e6:,.0f} MB",
            hint="free some disk space, or choose another folder with --runs",
        )


@contextlib.contextmanager
def writing(path: Path, hint: str) -> Iterator[None]:
    """Raise failures to write a file inside the block as an OutputError with this hint."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # torch's writer turns a full disk into a RuntimeError
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise OutputError(f"cannot write {path}: {reason}", hint=hint) from error


class PlateauSchedule:
    """Lowers the learning rate, and finally stops the run, when the held-out loss no longer falls."""

    def __init__(self, optimizer: torch.optim.Optimizer, *, factor: float, patience: int, stop_after: int) -> None:
        # torch waits for one evaluation more than its patience
        self._scheduler = ReduceLROnPlateau(
            optimizer, factor=factor, patience=patience - 1, threshold=0.0, threshold_mode="abs", eps=0.0
        )
        self._stop_after = stop_after
        self._waited = 0  # evaluations since the best

    def update(self, loss: float) -> bool:
        """Take the loss of an evaluation; whether it is the lowest so far."""
        improved = loss < self._scheduler.best
        self._waited = 0 if improved else self._waited + 1
        self._scheduler.step(loss)
        return bool(improved)

    @property
    def exhausted(self) -> bool:
        """Whether the run should stop."""
        return self._waited >= self._stop_after

    def state_dict(self) -> dict[str, Any]:
        """State for the checkpoint."""
        return {"scheduler": self._scheduler.state_dict(), "waited": self._waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._scheduler.load_state_dict(state["scheduler"])
        self._waited = state["waited"]


class AverageModel(nn.Module):
    """The exponential moving average of a network's weights and statistics, faster in the first updates.

    Unlike torch's AveragedModel it takes a few kernels per update, and never makes a GPU wait.
    """

    n_averaged: Tensor

    def __init__(self, network: nn.Module, *, decay: float = EMA_DECAY) -> None:
        super().__init__()
        self.module = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.register_buffer("n_averaged", torch.ones((), dtype=torch.long))  # the initial weights count as the first
        has_mean = [tensor.is_floating_point() and bool(tensor.isfinite().all()) for tensor in _state(network)]
        self._mean = [at for at, is_mean in enumerate(has_mean) if is_mean]
        self._copied = [at for at, is_mean in enumerate(has_mean) if not is_mean]  # counts, and masks of -inf

    @torch.no_grad()
    def update_parameters(self, network: nn.Module) -> None:
        """Move the averages towards a network's weights."""
        count = int(self.n_averaged)
        averages, values = _state(self.module), _state(network)
        torch._foreach_lerp_(
            [averages[at] for at in self._mean],
            [values[at] for at in self._mean],
            1 - min(self.decay, count / (9 + count)),
        )
        for at in self._copied:
            averages[at].copy_(values[at])
        self.n_averaged += 1

    @torch.no_grad()
    def restart(self, network: nn.Module) -> None:
        """Begin anew with a network's weights."""
        self.module.load_state_dict(network.state_dict())
        self.n_averaged.fill_(1)


def _state(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


def learning_rate(step: int, progress: float, *, peak: float, decay_fraction: float, warm_up: int) -> float:
    """Linear over `warm_up` steps, constant, and linear to zero over the last `decay_fraction` of the run.

    Unlike a cosine's, the middle does not depend on the length, which can be changed until the decay. `progress` is
    the part of the run that is over, from 0 to 1.
    """
    return peak * min((step + 1) / warm_up, 1.0, (1 - progress) / max(decay_fraction, 1e-6))


def step_generator(seed: int, step: int) -> torch.Generator:
    """The source of all random numbers of a step."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


@lru_cache(maxsize=2)
def epoch_order(count: int, *, epoch: int, seed: int) -> Tensor:
    """The random order (count,) of the examples in an epoch."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


def batch_indices(count: int, batch: int, *, step: int, seed: int) -> Tensor:
    """The examples (batch,) of a step: each once per epoch, shuffled anew for each epoch."""
    places = [divmod(position, count) for position in range(step * batch, (step + 1) * batch)]
    return torch.stack([epoch_order(count, epoch=epoch, seed=seed)[position] for epoch, position in places])


@contextlib.contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch's global generators inside the block: dropout and initial weights use no other."""
    on_gpu = device is not None and device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
