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

    def capture(
        self, work: Callable[[], None], stream: object, generator: torch.Generator | None = None
    ) -> SimpleNamespace:
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
    """The current one of a device, or one beside it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def wait_stream(self, other: FakeStream) -> None:
        assert other.device == self.device


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


def test_what_is_set_for_a_frame_is_written_where_the_graph_reads_it(
    cuda: FakeCUDA, mini: Models, small: Settings
) -> None:
    step = aimed(mini, small)
    graphed = GraphedStep(step, on_note=pytest.fail)
    graphed.take()

    def places() -> dict[str, int]:
        tensors = vars(step) | step._buffers | {"gradient": step.latent.grad, **step.optimizer.state[step.latent]}
        return {name: one.data_ptr() for name, one in tensors.items() if isinstance(one, Tensor)}

    first, target, rest = places(), step.target, {"temporal_weight": 0.2, "learning_rate": 0.2}
    assert target
    assert {"embedding", "residual", "gradient", "exp_avg", "temporal_weight"} <= first.keys()
    for residual in (torch.ones(1, 3, 32, 32), None):
        step.aim(target, residual=residual, **rest)
        assert step.residual.unique().tolist() == [0.0 if residual is None else 1.0]
        graphed.take()
    assert cuda.captured == 1
    assert places() == first


def test_a_graph_is_captured_anew_where_cutouts_are_taken_in_other_batches(
    cuda: FakeCUDA, mini: Models, small: Settings
) -> None:
    step = aimed(mini, small)
    graphed = GraphedStep(step, on_note=pytest.fail)
    for step.cut_batch in (2, 2, 1, 1):
        graphed.take()
    assert cuda.captured == 2


class FakeCapture:
    """In place of `torch.cuda.graph`; where a capture is broken, it fails once more at the end."""

    def __init__(self, graph: Any, *, stream: object, capture_error_mode: str) -> None:
        self.graph, self.stream = graph, stream

    def __enter__(self) -> None:
        self.graph.captured_on = self.stream

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")


def test_a_capture_is_on_the_stream_of_its_device_which_is_left_where_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    current: list[object] = ["default"]

    @contextmanager
    def stream(one: object) -> Iterator[None]:
        current.append(one)
        try:
            yield
        finally:
            current.pop()

    seen, registered = list[object](), list[object]()
    fake = SimpleNamespace(register_generator_state=registered.append)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: fake)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "graph", FakeCapture)
    own, side = torch.Generator(), FakeStream(torch.device("cuda", 1))
    assert graph.capture(lambda: seen.append(current[-1]), side, own) is fake  # type: ignore[arg-type, comparison-overlap]
    assert (seen, registered, fake.captured_on, current) == ([side], [own], side, ["default"])

    def fail() -> None:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    with pytest.raises(RuntimeError) as caught:
        graph.capture(fail, side)  # type: ignore[arg-type]
    assert current == ["default"]
    assert graph._reason(caught.value) == "CUDA error: operation not permitted when stream is capturing"


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
    assert cuda.error is None or step.generator not in cuda.generators  # which a broken capture leaves unusable


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

    graphed = GraphedFunction(double, on_note=pytest.fail)
    assert graphed(torch.ones(3)).tolist() == [2, 2, 2]
    assert graphed(torch.arange(3.0)).tolist() == [0, 2, 4]
    assert cuda.captured == 1
    assert cuda.replays == 1 + 2  # it is compared once
    assert len(calls) == WARM_UP + 1 + cuda.replays


@pytest.mark.parametrize(
    ("wrap", "error", "reason"),
    [
        (broken, None, "it computes something else (100.0% off)"),
        (None, torch.OutOfMemoryError("CUDA out of memory."), "there is too little memory"),
    ],
)
def test_a_function_is_called_where_its_graph_cannot_be_used(
    wrap: Any, error: Any, reason: str, cuda: FakeCUDA
) -> None:
    cuda.wrap, cuda.error, notes = wrap or cuda.wrap, error, list[str]()
    graphed = GraphedFunction(lambda values: values * 2, on_note=notes.append)
    assert [graphed(torch.full((1,), one)).item() for one in (1.0, 2.0)] == [2, 4]
    assert notes == [f"note: decoding without a CUDA graph, which is slower: {reason}"]
    assert cuda.captured == 1
