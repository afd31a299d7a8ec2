"""Previews of a film, by the same calls as the film: a storyboard with one picture per section, and a cost estimate."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from wav2clip_gen.analysis import Section, Vocabulary, find_sections, label_sections, read_labels, relative_level
from wav2clip_gen.config import MIX, StyleImage
from wav2clip_gen.contact_sheet import Panel, draw
from wav2clip_gen.drawing import clock
from wav2clip_gen.files import written
from wav2clip_gen.job import Job, check_outputs, films, pictures
from wav2clip_gen.models.registry import supports_audio
from wav2clip_gen.pipeline import (
    AudioAnalysis,
    analyze_audio,
    condition,
    encode_job_guidance,
    load_job_models,
    load_stems,
    note_guidance,
    note_silent_stems,
)
from wav2clip_gen.progress import Estimate, OnProgress, StageClock, Storyboard, ignore
from wav2clip_gen.video.claim import claim

if TYPE_CHECKING:
    from torch import Tensor

    from wav2clip_gen.models.registry import Models
    from wav2clip_gen.synthesis.conditioning import Conditioning, GuidanceEmbedding
    from wav2clip_gen.synthesis.optimizer import FrameOptimizer

SMALLEST_WEIGHT = 0.005  # mean weight in a section from which a prompt or image is named below its picture
SEPARATION_COST = {"dsp": 0.1, "demucs": 1.5}  # seconds of work per second of song, on two cores


def make_storyboard(
    job: Job, *, load: Callable[..., Models] | None = None, on_progress: OnProgress = ignore
) -> Storyboard:
    """Optimise one picture per section of a song and lay them out on a contact sheet.

    Args:
        job: From `prepare` with `storyboard`.
        load: Loads the networks, as `load_models` does.
        on_progress: Called with the state of the run.

    Raises:
        W2CError: The track, a setting, the weights or the output cannot be used.
    """
    with claim(job.out):
        check_outputs(job)  # again: until now another run may have made it
        return _draw_storyboard(job, load, StageClock(on_progress))


def _draw_storyboard(job: Job, load: Callable[..., Models] | None, stages: StageClock) -> Storyboard:
    from wav2clip_gen.synthesis.modulation import modulate

    models = load_job_models(job, load, stages)
    stems = load_stems(job, stages)
    stages.begin("analyze")
    labelled = supports_audio(job.selection.components["clip"])  # else audio and text embeddings are not comparable
    audio = analyze_audio(job, stems, models, label_mix=labelled)
    parameters = modulate(job.settings, audio.features, job.timeline)
    note_guidance(job, models, parameters, stages)
    guidance = encode_job_guidance(job, models, parameters)
    conditioning = condition(job, audio, guidance, parameters, job.settings.stems)
    note_silent_stems([conditioning], stages)
    sections = _sections(job, audio, models if labelled else None)

    stages.begin("draw")
    panels = []
    for section in sections:
        panel, similarity = optimize_section(job, models, section, conditioning, guidance)
        panels.append(panel)
        message = f"section {len(panels)}/{len(sections)}  {_describe(panel)}"
        stages.report(done=len(panels), total=len(sections), similarity=similarity, message=message)

    with written(job.out, overwrite=job.overwrite) as part:
        facts = _facts(job, len(panels), models.name if labelled else None)
        draw(panels, title=job.track.title or job.track.path.stem, facts=facts).save(part)
    return Storyboard(path=job.out, sections=len(panels))


def _sections(job: Job, audio: AudioAnalysis, models: Models | None) -> tuple[Section, ...]:
    """The sections of the mix, labelled if there are networks for it."""
    features = audio.features[MIX]
    sections = find_sections(features, job.timeline, song=features)
    if models is None:
        return sections
    levels, vocabulary = relative_level(features, features), Vocabulary.encode(read_labels(), models)
    return label_sections(sections, audio.embeddings[MIX], levels, job.timeline, vocabulary)


def optimize_section(
    job: Job, models: Models, section: Section, conditioning: Conditioning, guidance: GuidanceEmbedding | None
) -> tuple[Panel, float | None]:
    """Optimise the mean target of a section as a film's first frame; also return its similarity to the target."""
    from wav2clip_gen.synthesis.conditioning import mean_target

    frames = job.timeline.frames_between(section.start, section.stop)
    optimizer = _optimizer(job, models)
    target = mean_target(conditioning, frames).to(models.device)
    step = optimizer.optimize(target, steps=job.settings.painting.first_steps, temporal_weight=0)
    weights = [float(one.at(frames).mean()) for one in guidance.schedules] if guidance else []
    names = [Path(one.content).name if isinstance(one, StyleImage) else one.content for one in job.settings.guidance]
    panel = Panel(
        section=section,
        start=job.track.start + section.start,
        stop=job.track.start + section.stop,
        guidance=tuple(
            (name, weight) for name, weight in zip(names, weights, strict=True) if abs(weight) >= SMALLEST_WEIGHT
        ),
        picture=optimizer.decode_bytes(),
    )
    return panel, float(step.similarity) if step else None


def _describe(panel: Panel) -> str:
    """The times and labels of a section."""
    labels = ", ".join(label.text for label in panel.section.labels or ())
    uncertain = "  uncertain" if labels and panel.section.uncertain else ""
    return f"{clock(panel.start)}-{clock(panel.stop)}" + (f"  {labels}{uncertain}" if labels else "")


def _facts(job: Job, count: int, labeller: str | None) -> str:
    sections = "1 section" if count == 1 else f"{count} sections"
    stems = f", stems {', '.join(stem.name for stem in job.settings.stems)}" if job.settings.stems else ""
    by = f", labels by {labeller}" if labeller else ""
    return f"{job.track.path.name}, {clock(job.track.duration)}, {sections}{stems}, seed {job.seed}{by}"


def estimate(job: Job, *, on_progress: OnProgress = ignore) -> Estimate:
    """Time a few steps and frames of a film or storyboard, and extrapolate the cost of all of it.

    Several films of one song and several pictures in one film are counted together; the first of them is analysed.
    Nothing is separated: stems that would have to be are replaced by the mix, which costs the same to analyse.
    """
    from wav2clip_gen.synthesis.modulation import modulate

    stages, began = StageClock(on_progress), time.perf_counter()
    models = load_job_models(job, None, stages)
    preparation = time.perf_counter() - began + _separation_cost(job)

    stages.begin("analyze")
    began, made = time.perf_counter(), films(job)
    scenes = pictures(made[0].settings)
    count, stems_of_first = len(made) * len(scenes), next(iter(scenes.values()))
    job = replace(job, settings=made[0].settings.merged({"picture": {"layout": "single"}, "stems": stems_of_first}))
    stems = {MIX: job.track}
    if job.stems:
        stems |= {name: job.stems.given.get(name, job.track) for name in job.stems.names}
    audio = analyze_audio(job, stems, models)
    parameters = modulate(job.settings, audio.features, job.timeline)
    note_guidance(job, models, parameters, stages)
    guidance = encode_job_guidance(job, models, parameters)
    target = condition(job, audio, guidance, parameters, stems_of_first).targets[0].to(models.device)
    analysis = time.perf_counter() - began

    stages.begin("optimize")
    per_step, per_frame = _time_frames(_optimizer(job, models), target, parameters.mean_steps)
    first = per_step * job.settings.painting.first_steps
    if job.storyboard:
        sections = len(audio.features[MIX].sections) - 1
        seconds, per_song_second = preparation + analysis + first * sections, first * sections / job.track.duration
    else:
        seconds = preparation + count * (analysis + first + per_frame * job.timeline.frames)
        per_song_second = count * per_frame * float(job.timeline.fps)
    return Estimate(family=models.name, device=str(models.device), seconds=seconds, per_song_second=per_song_second)


def _optimizer(job: Job, models: Models) -> FrameOptimizer:
    from wav2clip_gen.synthesis.optimizer import FrameOptimizer, generator_for

    return FrameOptimizer(models, job.settings, generator=generator_for(job.seed, models.device))


def _time_frames(optimizer: FrameOptimizer, target: Tensor, steps: float) -> tuple[float, float]:
    """Seconds per step, and per frame of `steps` steps."""

    def timed_frame(steps: int) -> float:
        began = time.perf_counter()
        weight = optimizer.settings.motion.temporal_weight
        optimizer.optimize(target, steps=steps, temporal_weight=weight)
        optimizer.decode_bytes()
        return time.perf_counter() - began

    timed_frame(2)  # warm-up: the first steps choose their algorithms
    few, more = timed_frame(2), timed_frame(6)
    per_step = max(more - few, 0) / 4
    return per_step, max(few - 2 * per_step, 0) + per_step * steps


def _separation_cost(job: Job) -> float:
    """Seconds that separating the stems would take; 0 where they are cached or given."""
    if job.stems is None or job.stems.separator is None or job.stems.is_separated():
        return 0.0
    return SEPARATION_COST[job.stems.separator] * job.track.duration
