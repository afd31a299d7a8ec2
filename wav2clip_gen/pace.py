"""How long a film will take, from a few optimiser steps and a frame that are timed before it is made."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from wav2clip_gen.cost import usual_segments
from wav2clip_gen.film import threads
from wav2clip_gen.job import Job, films, pictures
from wav2clip_gen.memory import shortage_explained
from wav2clip_gen.painting import threads_for
from wav2clip_gen.workers import choose_devices, shared_time

if TYPE_CHECKING:
    from torch import Tensor

    from wav2clip_gen.models.registry import Models
    from wav2clip_gen.synthesis.optimizer import FrameOptimizer

STEPS = 3  # that are timed, after one that is not: the first chooses algorithms
SHARE = 0.05  # of a film's steps that may be spent on this


def optimizer_for(job: Job, models: Models) -> FrameOptimizer:
    """The optimizer of a film's first segment."""
    from wav2clip_gen.synthesis.optimizer import FrameOptimizer, generator_for

    return FrameOptimizer(models, job.settings, generator=generator_for(job.seed, models.device), seed=job.seed)


def time_steps(optimizer: FrameOptimizer, target: Tensor, count: int) -> float:
    """Seconds of some steps towards a target (D,)."""
    began = time.perf_counter()
    step = optimizer.optimize(target, steps=count, temporal_weight=optimizer.settings.motion.temporal_weight)
    _ = float(step.loss) if step else 0.0  # waits for the device
    return time.perf_counter() - began


def expected_seconds(job: Job, models: Models) -> float | None:
    """Seconds that the frames of a job will take, with its workers; None where timing would take long beside them.

    On a GPU, whose step is captured as a graph first, and for a cluster it is None too: progress tells it soon.
    """
    painting, timeline, count = job.settings.painting, job.timeline, usual_segments(job)
    optimized = len(job.painted) / count  # frames of a segment
    steps = painting.first_steps + painting.steps * (optimized - 1)
    if models.device.type == "cuda" or job.cluster or SHARE * steps * count < (STEPS + 1):
        return None
    with threads(threads_for(count)), shortage_explained(job.settings, job.selection):
        optimizer = optimizer_for(job, models)
        (target,) = models.clip.encode_text(["a picture"])
        time_steps(optimizer, target, 1)
        per_step = time_steps(optimizer, target, STEPS) / STEPS
        optimizer.decode_bytes()
        began = time.perf_counter()
        optimizer.decode_bytes()
        per_frame = time.perf_counter() - began
    each = len(films(job)) * len(pictures(films(job)[0].settings))
    segment = steps * per_step + timeline.frames / count * per_frame
    return each * shared_time([segment] * count, len(choose_devices(job, models.device, count)))
