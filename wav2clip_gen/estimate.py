"""What a film would cost, found by timing some of its steps."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from wav2clip_gen.audio.decode import decode
from wav2clip_gen.audio.features import measure
from wav2clip_gen.events import Estimate
from wav2clip_gen.job import Job, films, must_separate, pictures
from wav2clip_gen.pipeline import drive, hear

if TYPE_CHECKING:
    from torch import Tensor

    from wav2clip_gen.models.families import Family
    from wav2clip_gen.synthesis.painter import Painter

SEPARATION = {"dsp": 0.1, "demucs": 1.5}  # seconds of work per second of song, on two cores


def estimate(job: Job, *, family: Family | None = None) -> Estimate:
    """Time some steps and frames of a film or storyboard, and tell what all of it would cost.

    Several films of one song, and several pictures in one film, are told as a whole. Nothing is separated.
    """
    from wav2clip_gen.models.families import choose_device, load_choice
    from wav2clip_gen.synthesis.painter import Painter, generator_for

    began = time.perf_counter()
    family = family or load_choice(job.networks, device=choose_device(job.settings.run.device))
    made = films(job)
    film = _with_stand_ins(made[0])
    scenes = pictures(film.settings)
    painter = Painter(family, film.settings, generator=generator_for(job.seed, family.device))
    preparation = time.perf_counter() - began + _separation(job)

    began = time.perf_counter()
    drives = drive(film)
    driving = time.perf_counter() - began
    began = time.perf_counter()
    target = hear(film, family, next(iter(scenes.values())), drives=drives).targets[0].to(family.device)
    hearing = time.perf_counter() - began

    per_step, per_frame = _time_painting(painter, target, drives.mean_steps)
    first = per_step * job.settings.painting.first_steps
    if job.storyboard:
        began = time.perf_counter()
        sections = len(measure(decode(job.track, job.timeline), job.timeline).sections) - 1
        seconds = preparation + driving + hearing + time.perf_counter() - began + first * sections
        per_song_second = first * sections / job.track.duration
    else:
        count = len(made) * len(scenes)
        seconds = preparation + len(made) * driving + count * (hearing + first + per_frame * job.timeline.frames)
        per_song_second = count * per_frame * float(job.timeline.fps)
    return Estimate(family=family.name, device=str(family.device), seconds=seconds, per_song_second=per_song_second)


def _time_painting(painter: Painter, target: Tensor, steps: float) -> tuple[float, float]:
    """Seconds for a step, and for a frame of so many steps."""
    settings = painter.settings

    def timed_frame(steps: int) -> float:
        began = time.perf_counter()
        deque(painter.paint(target, steps=steps, inertia=settings.motion.inertia), maxlen=0)
        painter.show_bytes()
        return time.perf_counter() - began

    timed_frame(2)  # the first steps find their algorithms
    few, more = timed_frame(2), timed_frame(6)
    per_step = max(more - few, 0) / 4
    return per_step, max(few - 2 * per_step, 0) + per_step * steps


def _with_stand_ins(job: Job) -> Job:
    """The job with the song in the place of stems that would have to be separated: it takes as long to hear."""
    if not must_separate(job):
        return job
    assert job.stems
    return replace(job, separated={name: job.stems.given.get(name, job.track) for name in job.stems.names})


def _separation(job: Job) -> float:
    """Seconds that separating the stems would take; none where they are there from before."""
    if not must_separate(job):
        return 0.0
    assert job.stems
    assert job.stems.separator
    if job.stems.is_separated():
        return 0.0
    return SEPARATION[job.stems.separator] * job.track.duration
