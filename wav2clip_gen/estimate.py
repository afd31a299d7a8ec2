"""What a film would cost, found by timing some of its steps."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from wav2clip_gen.audio.features import measure
from wav2clip_gen.events import Estimate
from wav2clip_gen.job import Job
from wav2clip_gen.pipeline import hear

if TYPE_CHECKING:
    from wav2clip_gen.models.families import Family


def estimate(job: Job, *, family: Family | None = None) -> Estimate:
    """Time some steps and frames of a film or storyboard, and tell what all of it would cost."""
    from wav2clip_gen.models.families import choose_device, load_choice
    from wav2clip_gen.synthesis.painter import Painter, generator_for

    began = time.perf_counter()
    family = family or load_choice(job.networks, device=choose_device(job.settings.run.device))
    painter = Painter(family, job.settings, generator=generator_for(job.seed, family.device))
    target = hear(job, family).targets[0].to(family.device)
    preparation = time.perf_counter() - began

    def timed_frame(steps: int) -> float:
        began = time.perf_counter()
        deque(painter.paint(target, steps=steps, inertia=job.settings.motion.inertia), maxlen=0)
        painter.show_bytes()
        return time.perf_counter() - began

    timed_frame(2)  # the first steps find their algorithms
    few, more = timed_frame(2), timed_frame(6)
    per_step = max(more - few, 0) / 4
    first = per_step * job.settings.painting.first_steps
    if job.storyboard:
        began = time.perf_counter()
        sections = len(measure(job.track, job.timeline).sections) - 1
        seconds = preparation + time.perf_counter() - began + first * sections
        per_song_second = first * sections / job.track.duration
    else:
        per_frame = max(few - 2 * per_step, 0) + per_step * job.settings.painting.steps
        seconds = preparation + first + per_frame * job.timeline.frames
        per_song_second = per_frame * float(job.timeline.fps)
    return Estimate(family=family.name, device=str(family.device), seconds=seconds, per_song_second=per_song_second)
