"""CUDA graphs: work on a GPU that is captured once and replayed, which saves launching each of its kernels.

A captured step of the optimiser is compared with the same step taken eagerly before it is used, because nothing else
would show that a replay reads a tensor that has moved.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from wav2clip_gen.devices import is_out_of_memory, release_cache
from wav2clip_gen.synthesis.step import LatentStep

OnNote = Callable[[str], None]
WARM_UP = 3  # eager runs before a capture: libraries choose their algorithms, and allocate
COMPARED = 3  # steps that are taken both ways
LOSS_TOLERANCE = 0.02  # relative
LATENT_TOLERANCE = 0.3  # of the distance that the latent moved; Adam turns rounding of tiny gradients into whole steps


def capture(work: Callable[[], None], generator: torch.Generator | None = None) -> torch.cuda.CUDAGraph:
    """Capture some work, which must have run before; its random numbers go on at each replay as they do eagerly."""
    graph = torch.cuda.CUDAGraph()
    if generator is not None:
        graph.register_generator_state(generator)
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        work()
    return graph


class GraphedStep:
    """Takes the steps of a `LatentStep` from a CUDA graph, or eagerly where that does not work."""

    def __init__(self, step: LatentStep, *, on_note: OnNote) -> None:
        """`on_note` is told why steps are taken eagerly after all."""
        self.step, self._on_note = step, on_note
        self.eager = False
        self.deviation: tuple[float, float] | None = None  # of the last comparison: loss, latent
        self._graphs: dict[tuple[bool, int], torch.cuda.CUDAGraph] = {}

    def take(self) -> None:
        """Take a step."""
        if self.eager:
            self.step.take()
            return
        if self._kind not in self._graphs:
            reason = self._capture()
            if reason:
                self._give_up(reason)
                self.step.take()
                return
        self._graphs[self._kind].replay()

    @property
    def _kind(self) -> tuple[bool, int]:
        """What a captured step cannot change."""
        return self.step.residual is not None, self.step.cut_batch

    def _give_up(self, reason: str) -> None:
        self.eager = True
        self._graphs.clear()
        release_cache()
        self._on_note(f"note: optimising without a CUDA graph, which is slower: {reason}")

    def _capture(self) -> str:
        """Capture a step and compare it; return why it cannot be used, else nothing."""
        step, before = self.step, self.step.state()
        side = torch.cuda.Stream(step.latent.device)  # warmed up on another stream than the default, as graphs need
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                step.take()
            step.restore(before)
            eager = self._taken(step.take)
            step.restore(before)
        torch.cuda.current_stream().wait_stream(side)
        step.retries = False
        try:
            graph = capture(step.take, step.generator)
        except Exception as error:
            if not (is_out_of_memory(error) or isinstance(error, RuntimeError)):
                raise
            return "there is too little memory" if is_out_of_memory(error) else str(error).partition("\n")[0]
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
        self._graphs[self._kind] = graph
        return ""

    def _taken(self, take: Callable[[], None]) -> tuple[Tensor, Tensor]:
        """Loss and latent after some steps."""
        for _ in range(COMPARED):
            take()
        return self.step.loss.clone(), self.step.latent.detach().clone()


class GraphedFunction:
    """A function of one tensor without gradient, replayed from a CUDA graph for inputs of one shape."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self._function = function
        self._graph: torch.cuda.CUDAGraph | None = None
        self._input, self._output = torch.empty(0), torch.empty(0)

    @torch.no_grad()
    def __call__(self, values: Tensor) -> Tensor:
        """Call it; the result is overwritten by the next call."""
        if self._graph is None:
            self._input = values.clone()
            side = torch.cuda.Stream(values.device)
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM_UP):
                    self._run()
            torch.cuda.current_stream().wait_stream(side)
            self._graph = capture(self._run)
        self._input.copy_(values)
        self._graph.replay()
        return self._output

    def _run(self) -> None:
        self._output = self._function(self._input)
