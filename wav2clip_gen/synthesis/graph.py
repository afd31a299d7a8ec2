"""CUDA graphs: work on a GPU that is captured once and replayed, which saves launching each of its kernels.

What was captured is compared with the same work done eagerly before it is used, because nothing else would show that a
replay reads a tensor that has moved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from wav2clip_gen.devices import is_out_of_memory, release_cache
from wav2clip_gen.synthesis.step import LatentStep

OnNote = Callable[[str], None]
WARM_UP = 3  # eager runs before a capture: libraries choose their algorithms, and allocate
COMPARED = 3  # steps that are taken both ways
LOSS_TOLERANCE = 0.02  # relative
LATENT_TOLERANCE = 0.3  # of the distance that the latent moved; Adam turns rounding of tiny gradients into whole steps
OUTPUT_TOLERANCE = 0.02  # of a function's result, relative


@contextmanager
def beside(stream: torch.cuda.Stream) -> Iterator[None]:
    """Work on a stream of its own, as graphs need, and on its device: between what came before and what follows."""
    usual = torch.cuda.current_stream(stream.device)
    stream.wait_stream(usual)
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        usual.wait_stream(stream)


def capture(
    work: Callable[[], None], stream: torch.cuda.Stream, generator: torch.Generator | None = None
) -> torch.cuda.CUDAGraph:
    """Capture some work, which must have run before; its random numbers go on at each replay as they do eagerly."""
    with torch.cuda.stream(stream):  # `torch.cuda.graph` stays on its stream where the capture fails
        graph = torch.cuda.CUDAGraph()
        if generator is not None:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            work()
    return graph


def _reason(error: Exception) -> str:
    """Why a capture failed; an error that is none of the device is raised."""
    before = error.__context__  # a capture that was broken fails again where it ends, in words that tell less
    first = before if isinstance(before, RuntimeError) else error
    if is_out_of_memory(first):
        return "there is too little memory"
    if not isinstance(first, RuntimeError):
        raise error
    return str(first).partition("\n")[0]


class GraphedStep:
    """Takes the steps of a `LatentStep` from a CUDA graph, or eagerly where that does not work."""

    def __init__(self, step: LatentStep, *, on_note: OnNote) -> None:
        """`on_note` is told why steps are taken eagerly after all."""
        self.step, self._on_note = step, on_note
        self.eager = False
        self.deviation: tuple[float, float] | None = None  # of the last comparison: loss, latent
        self._graph: torch.cuda.CUDAGraph | None = None
        self._cut_batch = step.cut_batch  # of the graph

    def take(self) -> None:
        """Take a step."""
        if not self.eager and (self._graph is None or self._cut_batch != self.step.cut_batch):
            self._graph = None  # with its memory
            reason = self._capture()
            if reason:
                self.eager = True
                release_cache()
                self._on_note(f"note: optimising without a CUDA graph, which is slower: {reason}")
        if self._graph is None:
            self.step.take()
        else:
            self._graph.replay()

    def _capture(self) -> str:
        """Capture a step and compare it; return why it cannot be used, else nothing."""
        step, before = self.step, self.step.state()
        stream = torch.cuda.Stream(step.latent.device)
        with beside(stream):
            for _ in range(WARM_UP):
                step.take()
            step.restore(before)
            eager = self._taken(step.take)
            step.restore(before)
        step.retries = False
        try:
            graph = capture(step.take, stream, step.generator)
        except Exception as error:
            step.generator = torch.Generator(step.generator.device)  # a broken capture leaves its own unusable
            return _reason(error)
        finally:
            step.retries = True
            step.restore(before)
        replayed = self._taken(graph.replay)
        step.restore(before)
        moved = (eager[1] - before["latent"]).norm()
        loss = float((replayed[0] - eager[0]).abs() / eager[0].abs().clamp(min=1e-6))
        latent = float((replayed[1] - eager[1]).norm() / moved.clamp(min=1e-6))
        self.deviation = (loss, latent)
        if not (loss <= LOSS_TOLERANCE and latent <= LATENT_TOLERANCE):
            return f"it computes something else (loss {loss:.1%}, latent {latent:.1%} off after {COMPARED} steps)"
        self._graph, self._cut_batch = graph, step.cut_batch
        return ""

    def _taken(self, take: Callable[[], None]) -> tuple[Tensor, Tensor]:
        """Loss and latent after some steps."""
        for _ in range(COMPARED):
            take()
        return self.step.loss.clone(), self.step.latent.detach().clone()


class GraphedFunction:
    """A function of one tensor without gradient, from a CUDA graph for inputs of one shape, or eagerly."""

    def __init__(self, function: Callable[[Tensor], Tensor], *, on_note: OnNote) -> None:
        """`on_note` is told why it is called eagerly after all."""
        self._function, self._on_note = function, on_note
        self._eager = False
        self._graph: torch.cuda.CUDAGraph | None = None
        self._input, self._output = torch.empty(0), torch.empty(0)

    @torch.no_grad()
    def __call__(self, values: Tensor) -> Tensor:
        """Call it; the result is overwritten by the next call."""
        if self._graph is None and not self._eager:
            reason = self._capture(values)
            if reason:
                self._eager = True
                self._input, self._output = torch.empty(0), torch.empty(0)
                release_cache()
                self._on_note(f"note: decoding without a CUDA graph, which is slower: {reason}")
        if self._graph is None:
            return self._function(values)
        self._input.copy_(values)
        self._graph.replay()
        return self._output

    def _capture(self, values: Tensor) -> str:
        """Capture and compare it; return why the graph cannot be used, else nothing."""
        self._input, stream = values.clone(), torch.cuda.Stream(values.device)
        try:
            with beside(stream):
                for _ in range(WARM_UP):
                    self._run()
            expected = self._output.clone()
            graph = capture(self._run, stream)
        except Exception as error:
            return _reason(error)
        self._output.zero_()
        graph.replay()
        deviation = float((self._output - expected).norm() / expected.norm().clamp(min=1e-6))
        if not deviation <= OUTPUT_TOLERANCE:
            return f"it computes something else ({deviation:.1%} off)"
        self._graph = graph
        return ""

    def _run(self) -> None:
        self._output = self._function(self._input)
