"""Previews of a film, by the same calls as the film: a storyboard with one picture per section, and a cost estimate."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wav2clip_gen.analysis import Section, Vocabulary, find_sections, label_sections, read_labels, relative_level
from wav2clip_gen.cluster import cluster_size, connect
from wav2clip_gen.config import MIX, StyleImage
from wav2clip_gen.contact_sheet import Panel, draw
from wav2clip_gen.cost import disk_bytes, run_bytes
from wav2clip_gen.drawing import clock
from wav2clip_gen.files import written
from wav2clip_gen.film import threads
from wav2clip_gen.job import Job, check_outputs, films, pictures, truncate
from wav2clip_gen.memory import encoder_bytes, peak_bytes, shortage_explained
from wav2clip_gen.models.registry import shares_space
from wav2clip_gen.pace import optimizer_for, time_steps
from wav2clip_gen.painting import grid_of, threads_for
from wav2clip_gen.pipeline import (
    AudioAnalysis,
    analyze_audio,
    condition,
    divide_job,
    encode_job_guidance,
    load_job_models,
    load_stems,
    note_guidance,
    note_silence,
    note_silent_stems,
)
from wav2clip_gen.progress import Estimate, OnProgress, StageClock, Storyboard, ignore
from wav2clip_gen.video.claim import claim
from wav2clip_gen.video.mux import mux
from wav2clip_gen.video.reactivity import visual_change
from wav2clip_gen.video.verify import verify_film
from wav2clip_gen.video.writer import FilmWriter
from wav2clip_gen.workers import choose_devices, shared_time

if TYPE_CHECKING:
    from torch import Tensor

    from wav2clip_gen.models.registry import Models
    from wav2clip_gen.synthesis.conditioning import Conditioning, GuidanceEmbedding
    from wav2clip_gen.synthesis.modulation import ParameterCurves
    from wav2clip_gen.synthesis.optimizer import FrameOptimizer

SMALLEST_WEIGHT = 0.005  # mean weight in a section from which a prompt or image is named below its picture
SEPARATION_COST = {"dsp": 0.03, "demucs": 1.5}  # seconds of work per second of song, on two cores
TIMED_SECONDS = 2.0  # that steps, and frames, are timed
MOST_TIMED = 64  # steps, and frames
LONG_FRAMES = 8.0  # seconds of two frames, from which on only steps are timed
TIMED_FILM = 20.0  # seconds of a film that is written to time that, ...
TIMED_PIXELS = 5e7  # ... or, if that is less, this number of values in its pictures


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
    labelled = shares_space(job.selection)  # else audio and text embeddings are not comparable
    audio = analyze_audio(job, stems, models, label_mix=labelled)
    note_silence(audio, stages)
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
    target = mean_target(conditioning, frames).to(models.device)
    with shortage_explained(job.settings, job.selection):
        optimizer = optimizer_for(job, models)
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
    """Make a few frames of a film or storyboard, write them as a film, and extrapolate the cost of all of it.

    Several films of one song and several pictures in one film are counted together; the first of them is analysed.
    Nothing is separated: stems that would have to be are replaced by the mix, which costs the same to analyse.
    """
    from wav2clip_gen.synthesis.modulation import modulate

    stages, began, disk = StageClock(on_progress), time.perf_counter(), disk_bytes(job)
    models = load_job_models(job, None, stages)
    loading = time.perf_counter() - began
    preparation = job.seconds + loading + _separation_cost(job)

    stages.begin("analyze")
    began, made = time.perf_counter(), films(job)
    scenes, whole = pictures(made[0].settings), made[0]
    stems_of_first = next(iter(scenes.values()))
    job = replace(job, settings=made[0].settings.merged({"picture": {"layout": "single"}, "stems": stems_of_first}))
    stems = {MIX: job.track}
    if job.stems:
        stems |= {name: job.stems.given.get(name, job.track) for name in job.stems.names}
    audio = analyze_audio(job, stems, models)
    note_silence(audio, stages)
    parameters = modulate(job.settings, audio.features, job.timeline)
    note_guidance(job, models, parameters, stages)
    guidance = encode_job_guidance(job, models, parameters)
    targets = condition(job, audio, guidance, parameters, stems_of_first).targets.to(models.device)
    analysis = (time.perf_counter() - began) * len(made) * len(scenes)

    stages.begin("optimize")
    segments = divide_job(job, audio.features[MIX])
    workers = 1 if job.storyboard else _workers(job, models, len(segments))
    count = threads_for(1 if job.storyboard else len(segments))
    with threads(count), shortage_explained(job.settings, job.selection):
        per_step, per_frame, picture = _time_frames(
            optimizer_for(job, models), targets, parameters, job.painted.tolist()
        )
    first = per_step * job.settings.painting.first_steps
    if job.storyboard:
        sections = len(audio.features[MIX].sections) - 1
        seconds, per_song_second = preparation + analysis + first * sections, first * sections / job.track.duration
    else:
        joining = len(made) * _time_film(whole, picture)
        each = [first + per_frame * (len(segment.painted(job.painted)) - 1) for segment in segments]
        optimizing = len(made) * len(scenes) * shared_time(each, workers)
        seconds = preparation + loading * (workers > 1) + analysis + optimizing + joining
        per_song_second = len(made) * len(scenes) * per_frame * job.settings.picture.optimized_fps / workers
    others = (run_bytes(job, models.device, workers) or 0) if workers > 1 and not job.cluster else 0
    peak, encoder = peak_bytes(models.device), 0 if models.device.type == "cuda" else encoder_bytes(whole.settings)
    return Estimate(
        family=models.name,
        device=str(models.device),
        seconds=seconds,
        per_song_second=per_song_second,
        memory=peak and round(max(peak + encoder, others)),
        disk=disk,
    )


def _workers(job: Job, models: Models, segments: int) -> int:
    """Segments that are generated at once: here, or on the cluster, which must answer."""
    if not job.cluster or segments == 1:
        return len(choose_devices(job, models.device, segments))
    connect(job)
    return min(segments, cluster_size(job))


def _time_frames(
    optimizer: FrameOptimizer, targets: Tensor, parameters: ParameterCurves, painted: list[int]
) -> tuple[float, float, NDArray[np.uint8]]:
    """Seconds per step, seconds per optimised frame with those before it, and the last picture (H, W, 3).

    Whole frames from all over the film are timed, unless they take long: then steps.
    """
    time_steps(optimizer, targets[0], 2)  # warm-up: the first steps choose their algorithms
    spent, steps = 0.0, 0
    while steps == 0 or (spent < TIMED_SECONDS and steps < MOST_TIMED):
        spent, steps = spent + time_steps(optimizer, targets[0], 4), steps + 4
    picture = optimizer.decode_bytes()
    per_step, mean_steps = spent / steps, fmean(map(parameters.steps, painted[1:] or painted))
    spans = [*pairwise(painted)] if 2 * per_step * mean_steps < LONG_FRAMES else []
    began, taken = time.perf_counter(), []
    for chosen in np.unique(np.linspace(0, len(spans) - 1, MOST_TIMED).round().astype(int)) if spans else []:
        after, index = spans[chosen]
        *_, frame = optimizer.frames(index, targets[index], parameters, after=after)
        picture = frame.picture
        taken.append(parameters.steps(index))
        if (spent := time.perf_counter() - began) > TIMED_SECONDS and len(taken) > 1:
            break
    if taken:
        return per_step, spent / len(taken) + per_step * (mean_steps - fmean(taken)), picture
    began = time.perf_counter()
    optimizer.decode_bytes()
    shown = len(targets) / len(painted)  # frames for each optimised one
    return per_step, per_step * mean_steps + shown * (time.perf_counter() - began), picture


def _time_film(job: Job, picture: NDArray[np.uint8]) -> float:
    """Seconds to write, mux and verify a film, extrapolated from two short ones of one moving picture."""
    grid = grid_of(job.settings)
    picture = grid.join([picture] * len(pictures(job.settings))) if grid else picture
    total, scale = job.timeline.frames, job.settings.picture.upscale
    most = min(round(TIMED_FILM * float(job.timeline.fps)), int(TIMED_PIXELS / (picture.size * scale**2)))
    count = min(total, max(most, 8))

    def timed(frames: int) -> float:
        part = truncate(job, frames)
        timeline, track = part.timeline, part.track
        height, width, _ = picture.shape
        with tempfile.TemporaryDirectory(prefix="w2c-") as folder:
            silent, film = Path(folder, "silent.mp4"), Path(folder, "film.mp4")
            began = time.perf_counter()
            with FilmWriter(silent, size=(width, height), fps=timeline.fps, upscale=scale) as writer:
                for number in range(frames):
                    writer.write(np.roll(picture, number, axis=1))
            written = time.perf_counter() - began
            mux(silent, track, film, metadata={}, plan=part.sound)
            began = time.perf_counter() if job.sound.copied else began + written  # copying takes no time
            verify_film(film, frames=frames, fps=timeline.fps, duration=track.duration, sound=track)
            visual_change(film)
            return written + time.perf_counter() - began

    if count == total:
        return timed(count)
    few = max(1, count // 4)
    less, more = timed(few), timed(count)
    return more + max(0.0, more - less) / (count - few) * (total - count)


def _separation_cost(job: Job) -> float:
    """Seconds that separating the stems would take; 0 where they are cached or given."""
    if job.stems is None or job.stems.separator is None or job.stems.is_separated():
        return 0.0
    return SEPARATION_COST[job.stems.separator] * job.track.duration
