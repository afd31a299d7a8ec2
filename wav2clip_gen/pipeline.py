"""The whole story in six calls: stems, features, parameters, conditioning, optimisation, film."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from wav2clip_gen import record
from wav2clip_gen.audio.decode import FEATURE_RATE, Floats, decode
from wav2clip_gen.audio.features import Features, measure, silenced
from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.audio.track import Track
from wav2clip_gen.cluster import connect
from wav2clip_gen.config import MIX, Settings, StemWeight
from wav2clip_gen.cost import describe_cost
from wav2clip_gen.errors import SettingsError
from wav2clip_gen.film import paint_film
from wav2clip_gen.guidance import SHOWN, shown, shown_contents
from wav2clip_gen.job import Job, check_outputs, films, pictures, prepare, record_path, truncate
from wav2clip_gen.memory import check_memory
from wav2clip_gen.pace import expected_seconds
from wav2clip_gen.painting import Division
from wav2clip_gen.progress import Film, OnProgress, Progress, StageClock, ignore
from wav2clip_gen.resume import begin_or_resume, plan_film, refuse_other
from wav2clip_gen.synthesis.segments import Segment, divide, segment_length
from wav2clip_gen.tasks import Places
from wav2clip_gen.video.chunks import WorkFolder, open_work
from wav2clip_gen.video.claim import claim_folder, publish_film
from wav2clip_gen.video.mux import mux
from wav2clip_gen.video.reactivity import Onsets, measure_reactivity, visual_change
from wav2clip_gen.video.verify import verify_film
from wav2clip_gen.video.writer import Picture

SILENT_LEVEL = 1e-4  # RMS of a frame, -80 dB of full scale
MOSTLY = 0.5  # share of silent frames that is reported

if TYPE_CHECKING:
    from torch import Tensor

    from wav2clip_gen.models.registry import Models
    from wav2clip_gen.synthesis.conditioning import Conditioning, GuidanceEmbedding
    from wav2clip_gen.synthesis.modulation import ParameterCurves


def render(
    source: str | Path,
    out: str | Path | None = None,
    settings: Settings | None = None,
    *,
    family: Models | None = None,
    overwrite: bool = False,
    frames_dir: str | Path | None = None,
    weights_dir: Path | None = None,
    keep_stems: str | Path | None = None,
    demucs_repo: Path | None = None,
    keep_work: bool = False,
    fresh: bool = False,
    workers: str = "1",
    cluster: str | None = None,
    on_progress: OnProgress = ignore,
) -> Film:
    """Make the film of a track, or go on where an earlier run with the same arguments was interrupted.

    Args:
        source: A sound file, a video file with sound, or a folder of stems.
        out: The film; `{stem}` and `{seed}` are filled in. By default the track's name, as mp4, in this folder.
        settings: All settings; see `wav2clip_gen.config`.
        family: Networks that are loaded already, to make several films with.
        overwrite: Replace an existing film.
        frames_dir: Also keep the frames, as PNG files, in this folder; it may have the same fields.
        weights_dir: Folder of fetched weights, instead of `W2C_WEIGHTS` or the user's cache.
        keep_stems: Also keep the separated stems, as FLAC files, in this folder.
        demucs_repo: Folder of Demucs' weights, instead of `W2C_DEMUCS_REPO` or the published ones.
        keep_work: Keep the work folder `NAME.w2c`.
        fresh: Begin anew, whatever an earlier run has finished.
        workers: Processes that paint the segments of a film, or "auto"; the film is the same. With more than 1, a
            script must begin with `if __name__ == "__main__":`, as each process imports it.
        cluster: Address of the Ray cluster that paints the segments instead, or "auto"; the film is the same.
        on_progress: Called with the state of the run.

    Raises:
        W2CError: The track, a setting, the weights or the output cannot be used, an interrupted run had other settings,
            or the finished film is wrong.
    """
    job = prepare(
        source,
        out,
        settings,
        overwrite=overwrite,
        frames_dir=frames_dir,
        selection=family.selection if family else None,
        weights_dir=weights_dir,
        keep_stems=keep_stems,
        demucs_repo=demucs_repo,
        keep_work=keep_work,
        fresh=fresh,
        workers=workers,
        cluster=cluster,
    )
    if len(films(job)) > 1:
        raise SettingsError("the layout separate makes several films", hint="render each stem with layout single")
    for note in job.notes:
        on_progress(Progress(stage="load", message=f"note: {note}"))
    load = (lambda *_, **__: family) if family else None
    with closing(render_job(job, load=load, on_progress=on_progress)) as made:
        return next(made)


def render_job(
    job: Job,
    *,
    load: Callable[..., Models] | None = None,
    stop: Callable[[], bool] = lambda: False,
    on_progress: OnProgress = ignore,
    on_picture: Callable[[Picture], None] = lambda picture: None,
    places: Places | None = None,
) -> Generator[Film, None, None]:
    """Make the films of a job: one, or with the layout "separate" one per stem.

    Args:
        job: From `prepare`.
        load: Loads the networks, as `load_models` does.
        stop: Called after each frame; when it returns true the film ends there, as `NAME.partial.mp4`.
        on_progress: Called with the state of the run.
        on_picture: Called with each frame that was written, (H, W, 3) uint8.
        places: Workers, or those of a cluster, that paint it together with other films; see `render_queue`.

    Raises:
        W2CError: As `render`. No error loses a finished chunk: the message tells what is finished.
    """
    stages, made = StageClock(on_progress), films(job)
    with ExitStack() as stack:
        works = [stack.enter_context(open_job_work(film, stages)) for film in made]
        for film in made:
            if film.frames_dir:
                stack.enter_context(claim_folder(film.frames_dir))
            check_outputs(film)  # again: until now another run may have made them
        if job.cluster:
            connect(job)
        models = load_job_models(job, load, stages, timed=places is None)
        hashes = record.hash_inputs(job, models)  # of what is used, whatever becomes of the files meanwhile
        plans = [plan_film(film, models, hashes) for film in made]
        for film, work, plan in zip(made, works, plans, strict=True):
            refuse_other(film, work, plan)  # before what takes long
        divisions, onsets = condition_films(job, load_stems(job, stages), models, stages)
        for division, work, plan in zip(divisions, works, plans, strict=True):
            begin_or_resume(division, work, plan, stages)
        paint = partial(paint_film, models=models, places=places, stop=stop, stages=stages, on_picture=on_picture)
        for division, work in zip(divisions, works, strict=True):
            yield _render_film(division, work, models, paint, onsets=onsets, hashes=hashes, stages=stages)
            if stop():
                return


def open_job_work(job: Job, stages: StageClock) -> AbstractContextManager[WorkFolder]:
    """Claim a film and its work folder; see `open_work`."""
    return open_work(job.out, job.timeline, keep=job.keep_work, report=lambda finished: stages.report(message=finished))


def condition_films(
    job: Job, stems: Mapping[str, Track], models: Models, stages: StageClock
) -> tuple[list[Division], Onsets]:
    """For each film of a job its segments, parameter curves and targets; and the onsets of the song.

    Nothing else of the audio is kept while frames are optimised: embeddings and decoded signals may be large.
    """
    from wav2clip_gen.synthesis.modulation import modulate

    stages.begin("analyze")
    audio = analyze_audio(job, stems, models)
    note_silence(audio, stages)
    parameters = modulate(job.settings, audio.features, job.timeline)
    note_guidance(job, models, parameters, stages)
    guidance = encode_job_guidance(job, models, parameters)
    conditioning = [
        {
            caption: condition(film, audio, guidance, parameters, chosen)
            for caption, chosen in pictures(film.settings).items()
        }
        for film in films(job)
    ]
    note_silent_stems((one for film in conditioning for one in film.values()), stages)
    segments = divide_job(job, audio.features[MIX])
    divisions = [
        Division(
            film, segments, {name: each.targets[job.painted].cpu().numpy() for name, each in one.items()}, parameters
        )
        for film, one in zip(films(job), conditioning, strict=True)
    ]
    return divisions, Onsets.of(audio.features[MIX], job.timeline.fps)


def divide_job(job: Job, mix: Features) -> tuple[Segment, ...]:
    """The segments of the films of a job."""
    length = segment_length(job.settings.run.segments, job.track.duration)
    return divide(job.timeline, mix, length, job.painted)


def _render_film(
    division: Division,
    work: WorkFolder,
    models: Models,
    paint: Callable[[Division, WorkFolder], tuple[list[record.FrameValues], float]],
    *,
    onsets: Onsets,
    hashes: dict[Path, str | None],
    stages: StageClock,
) -> Film:
    """Paint all frames that are not finished, mux them with the sound, verify the film and write its record."""
    stages.begin("optimize")
    job = division.job
    frames, earlier = paint(division, work)
    done = truncate(job, len(frames))
    with record.song_unchanged(done.track.path, hashes[done.track.path]):
        stages.begin("mux")
        tags = {"title": done.track.title or done.track.path.stem, "comment": record.summary(done, models)}
        mux(work.picture, done.track, work.film, metadata=tags, plan=done.sound)
        stages.begin("verify")
        sync = verify_film(
            work.film, frames=len(frames), fps=done.timeline.fps, duration=done.track.duration, sound=done.track
        )
        reactivity = measure_reactivity(visual_change(work.film), onsets, done.timeline.fps)
    timings = stages.finish()
    film = Film(
        path=done.out,
        record=record_path(done.out),
        frames=len(frames),
        seconds=sync.picture_seconds,
        seed=job.seed,
        sync=sync,
        reactivity=reactivity,
        timings=timings | {"optimize": round(timings["optimize"] + earlier, 3)},
        partial=len(frames) < job.timeline.frames,
        segments=[one.start for one in division.segments if one.start < len(frames)],
    )

    def named(path: Path) -> Film:
        return replace(film, path=path, record=record_path(path))

    path = publish_film(
        work.film,
        work.record,
        job.out,
        lambda path: record.describe(done, models, named(path), frames, hashes),
        partial=film.partial,
        overwrite=job.overwrite,
    )
    work.published = not film.partial
    return named(path)


def load_job_models(job: Job, load: Callable[..., Models] | None, stages: StageClock, *, timed: bool = False) -> Models:
    """Load the networks of a job onto their device, check that they can make pictures of its size, tell its cost.

    `timed`: with the time, if that is known soon.
    """
    from wav2clip_gen.devices import choose_device
    from wav2clip_gen.models.registry import computes_in_bf16, load_models
    from wav2clip_gen.synthesis.optimizer import check_size

    stages.begin("load")
    device = choose_device(job.settings.run.device, on_note=lambda note: stages.report(message=note))
    check_memory(job.settings, job.selection, device)
    models = (load or load_models)(job.selection, device=device)
    check_size(job.settings.picture.width, job.settings.picture.height, models.vqgan.stride)
    if device.type == "cuda" and job.settings.run.precision == "auto" and not computes_in_bf16(device):
        stages.report(message="note: this GPU has no bfloat16, so it computes in float32, which takes longer")
    seconds = expected_seconds(job, models) if timed else None
    stages.report(message=f"models {models.name} on {models.device}; {describe_cost(job, device, seconds)}")
    return models


def load_stems(job: Job, stages: StageClock) -> dict[str, Track]:
    """The mix and all required stems by name, separated now where they must be.

    All have the sample rate and number of samples of the mix.
    """
    if job.stems is None:
        return {MIX: job.track}
    if job.stems.separator:
        stages.begin("separate")
    found = job.stems.load(
        keep=job.keep_stems,
        overwrite=job.overwrite,
        on_progress=lambda share: stages.report(done=round(100 * share), total=100),
    )
    return {MIX: job.track, **found}


@dataclass(frozen=True, eq=False)
class AudioAnalysis:
    """Everything that is computed from the audio of a job, by source name: the mix, and each stem that is needed."""

    levels: dict[str, Floats]  # (F,) RMS over all channels
    embeddings: dict[str, Tensor]  # (W, D) of the sources that condition the film
    features: dict[str, Features]  # of the mix, and of the stems that audio maps name


def analyze_audio(job: Job, stems: Mapping[str, Track], models: Models, *, label_mix: bool = False) -> AudioAnalysis:
    """Decode each source once, embed those that condition the film, measure the mix and those that modulate it.

    Args:
        job: The settings decide what is needed.
        stems: From `load_stems`.
        models: Networks.
        label_mix: Also embed the mix, to label its sections.
    """
    from wav2clip_gen.synthesis.conditioning import encode_audio, is_silent

    settings, timeline = job.settings, job.timeline
    encoded = conditioning_sources(settings) | ({MIX} if label_mix else set())
    measured = {MIX} | {one.stem or MIX for one in settings.maps}
    signals = {
        name: decode(
            track, timeline, [models.wav2clip.sample_rate] * (name in encoded) + [FEATURE_RATE] * (name in measured)
        )
        for name, track in stems.items()
        if name in encoded | measured
    }
    features = {name: measure(signals[name], timeline) for name in measured}
    fps, mix = float(timeline.fps), signals[MIX].levels
    for name in measured - {MIX}:
        if is_silent(signals[name].levels, mix, fps=fps):
            features[name] = silenced(features[name])
    embeddings = {name: encode_audio(models.wav2clip, signals[name], timeline) for name in sorted(encoded)}
    return AudioAnalysis({name: signal.levels for name, signal in signals.items()}, embeddings, features)


def conditioning_sources(settings: Settings) -> set[str]:
    """The sources whose embeddings condition some picture of a job."""
    if settings.picture.layout == "separate" or (settings.stems and settings.picture.layout == "single"):
        return {stem.name for stem in settings.stems if stem.weight}
    return {MIX, *(stem.name for stem in settings.stems)} if settings.sound.weight else set()


def encode_job_guidance(job: Job, models: Models, parameters: ParameterCurves) -> GuidanceEmbedding | None:
    """Embed the prompts and style images of a job, once for all its films."""
    from wav2clip_gen.synthesis.conditioning import encode_guidance

    times = job.timeline.frame_times() + job.track.start
    return encode_guidance(job.settings, models, parameters, times)


def note_guidance(job: Job, models: Models, parameters: ParameterCurves, stages: StageClock) -> None:
    """Report prompts that are too long for the tokenizer, and those to which no map gives a weight in any frame."""
    prompts, whole = job.settings.prompts, slice(0, job.timeline.frames)
    unread = models.clip.unread([prompt.text for prompt in prompts]) if prompts else []
    cut = [(prompt, end) for prompt, end in zip(prompts, unread, strict=True) if end]
    if cut:
        more = f"; and {len(cut) - SHOWN} more prompts are cut" if len(cut) > SHOWN else ""
        ends = "; ".join(f"{shown(end)} at the end of {shown(prompt.text)}" for prompt, end in cut[:SHOWN])
        stages.report(message=f"note: too long for {models.selection.components['clip'].name}, not read: {ends}{more}")
    weights = zip(prompts, parameters.prompts, strict=True)
    still = [prompt for prompt, weight in weights if weight.changes and not weight.at(whole).any()]
    if still:
        stages.report(message=f"note: no effect, as the maps give them no weight: {shown_contents(still)}")


def condition(
    job: Job,
    audio: AudioAnalysis,
    guidance: GuidanceEmbedding | None,
    parameters: ParameterCurves,
    stems: tuple[StemWeight, ...],
) -> Conditioning:
    """The conditioning of one picture; `stems`: those that condition it, none for the mix."""
    from wav2clip_gen.synthesis.conditioning import encode_conditioning

    held = job.settings.motion.scenes == "sections"
    return encode_conditioning(
        stems,
        audio.embeddings,
        audio.levels,
        guidance,
        timeline=job.timeline,
        settings=job.settings,
        half_life=parameters.curves["smoothing"],
        sections=section_frames(audio.features[MIX], job.timeline) if held else (),
    )


def section_frames(features: Features, timeline: Timeline) -> list[slice]:
    """The frames of each section of the song."""
    return [timeline.frames_between(start, stop) for start, stop in pairwise(features.sections.tolist())]


def note_silent_stems(conditioning: Iterable[Conditioning], stages: StageClock) -> None:
    """Report stems that condition a picture but are silent from start to end."""
    silent = sorted({stem for one in conditioning for stem in one.silent})
    if silent:
        stages.report(message=f"note: silent from start to end: {', '.join(silent)}")


def note_silence(audio: AudioAnalysis, stages: StageClock) -> None:
    """Report a song that is silent, or silent for most of the film."""
    silent = float((audio.levels[MIX] < SILENT_LEVEL).mean())
    if silent == 1:
        stages.report(message="note: the song is silent from start to end, so its sound cannot guide the film")
    elif silent > MOSTLY:
        stages.report(message=f"note: the song is silent in {silent:.0%} of the film")
