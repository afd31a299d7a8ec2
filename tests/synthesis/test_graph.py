"""CUDA graphs, with a stub of CUDA on a CPU: what is captured, compared and given up. `make gpu-check` has the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.synthesis.conftest import make_optimizer, target_of
from wav2clip_gen.config import Settings
from wav2clip_gen.models.registry import Models
from wav2clip_gen.synthesis import graph
from wav2clip_gen.synthesis.graph import COMPARED, WARM_UP, GraphedFunction, GraphedStep
from wav2clip_gen.synthesis.losses import resolve_target
from wav2clip_gen.synthesis.step import LatentStep


class FakeCUDA:
    """Graphs that repeat what was captured; `wrap` makes them repeat something else."""

    def __init__(self) -> None:
        self.captured, self.replays, self.generators = 0, 0, list[torch.Generator]()
        self.wrap: Callable[[Callable[[], None]], Callable[[], None]] = lambda work: work
        self.error: Exception | None = None

    def capture(self, work: Callable[[], None], generator: torch.Generator | None = None) -> SimpleNamespace:
        """As `graph.capture`; while a real one is captured nothing is computed, so its effects are undone by hand."""
        self.captured += 1
        if generator:
            self.generators.append(generator)
        work()
        if self.error:
            raise self.error
        repeated = self.wrap(work)

        def replay() -> None:
            self.replays += 1
            repeated()

        return SimpleNamespace(replay=replay)


class FakeStream:
    def __init__(self, device: object = None) -> None: ...

    def wait_stream(self, other: object) -> None: ...


@contextmanager
def no_stream(stream: object) -> Iterator[None]:
    yield


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCUDA:
    fake = FakeCUDA()
    monkeypatch.setattr(graph, "capture", fake.capture)
    monkeypatch.setattr(torch.cuda, "Stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "current_stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "stream", no_stream)
    return fake


def aimed(mini: Models, small: Settings, *, residual: Tensor | None = None) -> LatentStep:
    step = make_optimizer(mini, small.merged({"run": {"precision": "fp32"}})).step
    target = resolve_target(target_of(mini), step.models, step.settings.painting)
    step.aim(target, temporal_weight=0.1, learning_rate=0.1, residual=residual)
    return step


def after(take: Callable[[], None], step: LatentStep, count: int) -> tuple[Tensor, Tensor]:
    for _ in range(count):
        take()
    return step.latent.detach().clone(), step.loss.clone()


def test_replayed_steps_are_those_that_eager_ones_would_be(cuda: FakeCUDA, mini: Models, small: Settings) -> None:
    eager, notes = aimed(mini, small), list[str]()
    expected = after(eager.take, eager, 4)
    step = aimed(mini, small)
    graphed = GraphedStep(step, on_note=notes.append)
    found = after(graphed.take, step, 4)
    assert all(map(torch.equal, found, expected))  # warming up, capturing and comparing leave no trace
    assert cuda.captured == 1
    assert cuda.replays == COMPARED + 4
    assert cuda.generators == [step.generator]
    assert graphed.deviation == (0, 0)
    assert not notes


def test_a_graph_is_captured_anew_where_something_else_is_computed(
    cuda: FakeCUDA, mini: Models, small: Settings
) -> None:
    step = aimed(mini, small)
    graphed = GraphedStep(step, on_note=pytest.fail)
    target, rest = step.target, {"temporal_weight": 0.1, "learning_rate": 0.2}
    assert target
    graphed.take()
    step.aim(target, residual=torch.zeros(1, 3, 32, 32), **rest)
    places = {name: value.data_ptr() for name, value in vars(step).items() if isinstance(value, Tensor)}
    graphed.take()
    assert cuda.captured == 2
    step.aim(target, residual=torch.ones(1, 3, 32, 32), **rest)
    graphed.take()
    step.aim(target, residual=None, **rest)
    graphed.take()
    step.aim(target, residual=torch.ones(1, 3, 32, 32), **rest)
    graphed.take()
    assert cuda.captured == 2
    # a graph reads and writes by address
    assert places == {name: value.data_ptr() for name, value in vars(step).items() if isinstance(value, Tensor)}


def broken(work: Callable[[], None]) -> Callable[[], None]:
    return lambda: None


@pytest.mark.parametrize(
    ("wrap", "error", "reason"),
    [
        (broken, None, "it computes something else"),
        (None, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "too little memory"),
        (None, RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore"), "not permitted"),
    ],
)
def test_steps_are_taken_eagerly_where_a_graph_cannot_be_used(
    wrap: Any, error: Exception | None, reason: str, cuda: FakeCUDA, mini: Models, small: Settings
) -> None:
    cuda.wrap, cuda.error = wrap or cuda.wrap, error
    eager, notes = aimed(mini, small), list[str]()
    expected = after(eager.take, eager, 3)
    step = aimed(mini, small)
    graphed = GraphedStep(step, on_note=notes.append)
    found = after(graphed.take, step, 3)
    assert all(map(torch.equal, found, expected))
    (note,) = notes  # once
    assert reason in note
    assert "\n" not in note
    assert step.retries
    assert cuda.captured == 1


def test_an_error_of_ours_is_not_hidden(cuda: FakeCUDA, mini: Models, small: Settings) -> None:
    cuda.error = KeyError("bug")
    step = aimed(mini, small)
    with pytest.raises(KeyError):
        GraphedStep(step, on_note=lambda note: None).take()
    assert step.retries


def test_a_function_is_replayed_with_each_input(cuda: FakeCUDA) -> None:
    calls = list[int]()

    def double(values: Tensor) -> Tensor:
        calls.append(len(values))
        return values * 2

    graphed = GraphedFunction(double)
    assert graphed(torch.ones(3)).tolist() == [2, 2, 2]
    assert graphed(torch.arange(3.0)).tolist() == [0, 2, 4]
    assert cuda.captured == 1
    assert cuda.replays == 2
    assert len(calls) == WARM_UP + 1 + 2
