"""A look at a film before it is made: one picture for each section of a song, on one contact sheet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from wav2clip_gen.analysis.analyse import Analysis, Section, analyse
from wav2clip_gen.analysis.words import frames_of, read_words
from wav2clip_gen.contact_sheet import Panel, draw
from wav2clip_gen.drawing import clock
from wav2clip_gen.events import Event, Ready, SectionPainted, SheetFinished, Silent, Stage
from wav2clip_gen.files import written
from wav2clip_gen.job import Job, must_separate, sources
from wav2clip_gen.models.registry import supports_audio
from wav2clip_gen.pipeline import drive, embed_sound, hear, pull_curves
from wav2clip_gen.settings import Pull, StyleImage

if TYPE_CHECKING:
    from torch import Tensor

    from wav2clip_gen.models.registry import Models
    from wav2clip_gen.synthesis.trajectory import Trajectory

FAINTEST = 0.005  # mean weight of what is still named below a picture


def storyboarding(
    job: Job,
    *,
    load: Callable[..., Models] | None = None,
    on_separation: Callable[[float], None] = lambda share: None,
) -> Iterator[Event]:
    """Paint the sections of a song and lay them out, telling of each step; the last event is `SheetFinished`.

    Args:
        job: From `prepare` with `storyboard`.
        load: Gives the networks, as `load_models` does.
        on_separation: Is told how much of the song is separated into stems, from 0 to 1.

    Raises:
        W2CError: The track, a setting, the weights or the output cannot be used.
    """
    from wav2clip_gen.models.registry import choose_device, load_models

    yield Stage("load")
    family = (load or load_models)(job.networks, device=choose_device(job.settings.run.device))
    yield Ready(family.name, str(family.device))

    if must_separate(job):
        yield Stage("separate")
        sources(job, on_progress=on_separation)
    yield Stage("hear")
    windows = embed_sound(job, family)
    understood = (
        family if supports_audio(job.networks.components["clip"]) else None
    )  # else words and sounds cannot be compared
    analysis = analyse(job.track, job.timeline, family=understood, words=read_words(), heard=windows)
    drives = drive(job)
    trajectory = hear(job, family, windows=windows, drives=drives)
    if trajectory.silent:
        yield Silent(trajectory.silent)

    yield Stage("paint")
    panels: list[Panel] = []
    pulls = pull_curves(job, drives)
    for section in analysis.sections:
        panel, similarity = paint_section(job, family, section, trajectory, pulls)
        panels.append(panel)
        words = tuple(word.text for word in section.meaning.words) if section.meaning else ()
        guessing = bool(words and section.meaning and section.meaning.guessing)
        total = len(analysis.sections)
        yield SectionPainted(len(panels) - 1, total, panel.start, panel.stop, words, guessing, similarity)

    yield Stage("draw")
    with written(job.out) as part:
        draw(panels, title=job.track.title or job.track.path.stem, facts=_facts(job, analysis)).save(part)
    yield SheetFinished(job.out, len(panels))


def paint_section(
    job: Job, family: Models, section: Section, trajectory: Trajectory, curves: Tensor
) -> tuple[Panel, float | None]:
    """Paint the mean of a section's targets as a film's first frame is painted; also tell how near it came.

    Args:
        job: What is made.
        family: Networks.
        section: Of the job's track.
        trajectory: Of the whole track, from `pipeline.hear`.
        curves: How much each of `settings.pulls` pulls at each frame, (P, F).
    """
    from wav2clip_gen.synthesis.painter import Painter, generator_for
    from wav2clip_gen.synthesis.trajectory import mean_target

    frames = frames_of(job.timeline, section.start, section.stop)
    painter = Painter(family, job.settings, generator=generator_for(job.seed, family.device))
    target = mean_target(trajectory, frames).to(family.device)
    last = deque(painter.paint(target, steps=job.settings.painting.first_steps, inertia=0), maxlen=1)
    weights = curves[:, frames].mean(dim=1).tolist()
    pulls = list(zip(map(_name, job.settings.pulls), weights, strict=True))
    panel = Panel(
        section=section,
        start=job.track.start + section.start,
        stop=job.track.start + section.stop,
        pulls=tuple((name, weight) for name, weight in pulls if abs(weight) >= FAINTEST),
        picture=painter.show_bytes(),
    )
    return panel, float(last[0].similarity) if last else None


def _name(pull: Pull) -> str:
    """What a person knows it by: its words, or the file without its folders."""
    return Path(pull.held).name if isinstance(pull, StyleImage) else pull.held


def _facts(job: Job, analysis: Analysis) -> str:
    parts = "1 section" if len(analysis.sections) == 1 else f"{len(analysis.sections)} sections"
    stems = f", stems {', '.join(stem.name for stem in job.settings.stems)}" if job.settings.stems else ""
    by = f", words by {analysis.family}" if analysis.family else ""
    return f"{job.track.path.name}, {clock(job.track.duration)}, {parts}{stems}, seed {job.seed}{by}"
