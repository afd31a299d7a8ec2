"""What a film would cost, found by timing some of its steps."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from wav2clip_gen.events import Estimate
from wav2clip_gen.job import Job, films, must_separate, pictures
from wav2clip_gen.pipeline import hear

if TYPE_CHECKING:
    from wav2clip_gen.models.families import Family


SEPARATION = {"dsp": 0.1, "demucs": 1.5}  # seconds of work per second of song, on two cores


def estimate(job: Job, *, family: Family | None = None) -> Estimate:
    """Time some steps and frames of a film, as it would be made, and tell what all of it would cost.

    A job of several films, or of several pictures in one, is told as a whole. Nothing is separated.
    """
    from wav2clip_gen.models.families import choose_device, load_choice
    from wav2clip_gen.synthesis.painter import Painter, generator_for

    began = time.perf_counter()
    family = family or load_choice(job.networks, device=choose_device(job.settings.run.device))
    made = films(job)
    first = _with_stand_ins(made[0])
    painter = Painter(family, first.settings, generator=generator_for(job.seed, family.device))
    loading = time.perf_counter() - began

    scenes = pictures(first.settings)
    target = hear(first, family, next(iter(scenes.values()))).targets[0].to(family.device)
    hearing = time.perf_counter() - began - loading

    def timed_frame(steps: int) -> float:
        began = time.perf_counter()
        deque(painter.paint(target, steps=steps, inertia=job.settings.motion.inertia), maxlen=0)
        painter.show_bytes()
        return time.perf_counter() - began

    timed_frame(2)  # the first steps find their algorithms
    few, more = timed_frame(2), timed_frame(6)
    per_step = max(more - few, 0) / 4
    per_frame = max(few - 2 * per_step, 0) + per_step * job.settings.painting.steps
    per_picture = hearing + per_step * job.settings.painting.first_steps + per_frame * job.timeline.frames
    count = len(made) * len(scenes)
    return Estimate(
        family=family.name, device=str(family.device), seconds=loading + _separation(job) + count * per_picture,
        per_song_second=count * per_frame * float(job.timeline.fps),
    )  # fmt: skip


def _with_stand_ins(job: Job) -> Job:
    """The job with the song in the place of stems that would have to be separated: it takes as long to hear."""
    if not must_separate(job):
        return job
    assert job.stems
    return replace(job, separated={name: job.stems.given.get(name, job.track) for name in job.stems.names})


def _separation(job: Job) -> float:
    """Seconds that separating the stems would take, if they have not been kept from before."""
    if not must_separate(job):
        return 0.0
    assert job.stems
    return SEPARATION[job.stems.separator or ""] * job.track.duration
