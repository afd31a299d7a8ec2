"""One input, checked completely before a network is loaded. Imports no torch."""

from __future__ import annotations

import json
import re
import secrets
import time
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress
from pathlib import Path

from wav2clip_gen.audio.downmix import describe_weights
from wav2clip_gen.audio.stem_files import is_stem_file, resolve_input
from wav2clip_gen.audio.stems import StemPlan, plan_stems
from wav2clip_gen.audio.timeline import Indices, Timeline
from wav2clip_gen.audio.track import Track, open_track
from wav2clip_gen.config import MIX, Settings, SoundSettings, StemWeight
from wav2clip_gen.environment import readable, temporary_folder
from wav2clip_gen.errors import OutputError, SettingsError, VideoError
from wav2clip_gen.files import check_output, relative_path
from wav2clip_gen.guidance import notes_on_inactive
from wav2clip_gen.images import check_images
from wav2clip_gen.memory import check_memory, fit
from wav2clip_gen.models.registry import ModelSelection, require_shared_space, select_models
from wav2clip_gen.models.vocabulary import note_unknown
from wav2clip_gen.units import parse_workers
from wav2clip_gen.video.chunks import WorkFolder, half_published, read_plan
from wav2clip_gen.video.frames import check_frames
from wav2clip_gen.video.mux import SoundPlan, plan_sound

FILM, SHEET = "{stem}.mp4", "{stem}.storyboard.png"
NO_PROMPTS = "the audio weight is below 1 but there are no prompts, so it has no effect; add -p or --prompts"


@dataclass(frozen=True, eq=False)
class Job:
    """A checked track, its timeline and settings, and where the output goes."""

    track: Track
    source: Path  # as given: the track's file, or the folder of its stems
    timeline: Timeline
    settings: Settings  # with the seed drawn
    selection: ModelSelection
    out: Path
    sound: SoundPlan  # how the sound gets into the film
    frames_dir: Path | None = None
    stems: StemPlan | None = None  # of all stems that are needed, for conditioning or for audio maps
    keep_stems: Path | None = None  # a folder for the separated stems
    demucs_repo: Path | None = None  # where Demucs' weights were looked for
    overwrite: bool = False
    keep_work: bool = False  # keep the work folder of a finished film
    fresh: bool = False  # begin anew, whatever an interrupted run has finished
    cluster: str | None = None  # address of the Ray cluster that paints segments
    workers: int | None = 1  # processes that paint segments; None: as many as the machine has room for
    storyboard: bool = False  # make a storyboard instead of a film
    lowered: str | None = None  # what was lowered so that it fits into memory, in words
    seconds: float = 0.0  # that its checks took

    @property
    def seed(self) -> int:
        """The seed of all random numbers."""
        assert self.settings.run.seed is not None
        return self.settings.run.seed

    @cached_property
    def painted(self) -> Indices:
        """The frames that are optimised."""
        return self.timeline.painted_frames(self.settings.picture.painted_fps)

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user before the work begins, a line each.

        Raises:
            WeightsError: The vocabulary next to the perceptor is damaged.
        """
        clip, settings = self.selection.components["clip"], self.settings
        unknown = note_unknown((prompt.text for prompt in settings.prompts), clip.path, name=clip.name)
        unguided = settings.sound.weight < SoundSettings.weight and not settings.guidance
        times = self.timeline.frame_times() + self.track.start
        inactive = notes_on_inactive(settings.guidance, settings.maps, times, settings.motion.crossfade)
        sound = (None if self.storyboard else self.sound.note, *describe_tracks(self.track, self.stems))
        return tuple(filter(None, (self.lowered, *sound, unknown, *inactive, NO_PROMPTS if unguided else None)))


def prepare(
    source: str | Path,
    out: str | Path | None = None,
    settings: Settings | None = None,
    *,
    overwrite: bool = False,
    frames_dir: str | Path | None = None,
    selection: ModelSelection | None = None,
    weights_dir: Path | None = None,
    allow_missing_weights: bool = False,
    keep_stems: str | Path | None = None,
    demucs_repo: Path | None = None,
    keep_work: bool = False,
    fresh: bool = False,
    workers: str = "1",
    cluster: str | None = None,
    storyboard: bool = False,
) -> Job:
    """Check everything that can be checked before a network is loaded; draw the seed, choose family and separator.

    Where no seed is given, that of an interrupted run with this output is taken.

    Arguments and errors are those of `pipeline.render`. `selection`: networks that are loaded already;
    `allow_missing_weights`: the weights may be fetched later; `storyboard`: prepare that instead of a film.
    """
    source, settings, began = Path(source), settings or Settings(), time.perf_counter()
    settings.require_guidance()
    settings.require_prompts()
    temporary_folder()
    selection = selection or select_models(settings.run, weights_dir)
    if not allow_missing_weights:
        selection.require()
    require_shared_space(selection, sound=settings.sound.weight > 0)
    begun = None if fresh or storyboard else _seed_begun(out, source, settings)
    settings, lowered = fit(_resolved(settings, selection, begun), selection)
    if storyboard and (frames_dir or settings.picture.layout != "single"):
        raise SettingsError(
            "a storyboard has one picture per section, and no frames to keep",
            hint="leave out --storyboard, or --layout and --frames-dir",
        )
    check_images(settings)
    check_memory(settings, selection)
    track = open_song(source, settings)
    plan = plan_song_stems(track, settings, demucs_repo)
    if plan and plan.separator:  # the record names the one that was chosen
        settings = replace(settings, sound=replace(settings.sound, separator=plan.separator))
    job = Job(
        track,
        source,
        Timeline.of(track, fps=settings.picture.fps, window=settings.sound.window, hop=settings.sound.hop),
        settings,
        selection,
        (name_sheet if storyboard else name_film)(out, source, settings),
        plan_sound(track, settings.sound.codec),
        frames_dir=fill(frames_dir, source, settings) if frames_dir else None,
        stems=plan,
        keep_stems=fill(keep_stems, source, settings) if keep_stems else None,
        demucs_repo=demucs_repo,
        overwrite=overwrite,
        keep_work=keep_work,
        fresh=fresh,
        workers=parse_workers(workers),
        cluster=cluster,
        storyboard=storyboard,
        lowered=lowered,
    )
    for film in films(job):
        check_outputs(film)
    _check_keep_stems(job)
    return replace(job, seconds=time.perf_counter() - began)


def _resolved(settings: Settings, selection: ModelSelection, begun: int | None) -> Settings:
    """The settings with the family chosen, and a seed: the given one, else that of an interrupted run, else drawn."""
    run = settings.run
    drawn = secrets.randbelow(2**31) if begun is None else begun  # short enough to be typed again
    seed = drawn if run.seed is None else run.seed
    run = replace(run, seed=seed, models=selection.family, **selection.named)
    return replace(settings, run=run)


def _seed_begun(out: str | Path | None, source: Path, settings: Settings) -> int | None:
    """The seed of an interrupted run with this output, if there is one."""
    for film in _film_paths(name_film(out, source, settings), settings):
        seed = (read_plan(film) or {}).get("settings.run.seed")
        if isinstance(seed, int):
            return seed
    return None


def open_song(source: Path, settings: Settings) -> Track:
    """Open the track of a file or of a folder of stems, restricted to the span in the settings; it has a title.

    Raises:
        SoundError: It cannot be read, or the span is empty.
    """
    track = open_track(resolve_input(source), start=settings.sound.start, duration=settings.sound.duration)
    return replace(track, title=track.title or readable(_title(source)))


def plan_song_stems(track: Track, settings: Settings, demucs_repo: Path | None) -> StemPlan | None:
    """Where the required stems come from; None where none is required. Errors are those of `plan_stems`."""
    if not settings.required_stems:
        return None
    given, separator = settings.stem_files, settings.sound.separator
    return plan_stems(track, settings.required_stems, given=given, separator=separator, demucs_repo=demucs_repo)


def describe_tracks(track: Track, stems: StemPlan | None) -> tuple[str, ...]:
    """Notes about a song and its stems, a line each: time stamps, other lengths, channels that cancel each other."""
    tracks = (track, *(stems.given.values() if stems else ()))
    weights = {one.path.name: one.mono_weights for one in tracks}
    mono = filter(None, (describe_weights(name, one) for name, one in weights.items()))
    timing = dict.fromkeys(note for one in tracks for note in one.notes)
    return (*timing, *(stems.notes if stems else ()), *mono)


def check_outputs(job: Job) -> None:
    """Check that film, record and frames can be written where they should, and overwrite no input.

    Raises:
        W2CError: They cannot.
    """
    inputs = {"the track itself": [job.track]}
    if job.stems:
        inputs["a stem of the track"] = [*job.stems.given.values()]
    check_output(job.out, overwrite=True)
    for what, tracks in inputs.items():
        if job.out.exists() and any(job.out.samefile(track.path) for track in tracks):
            raise VideoError(f"{job.out} is {what}", hint="choose another --out")
    replaced = job.overwrite or (not job.storyboard and half_published(job.out))
    check_output(job.out, overwrite=replaced)
    if not job.storyboard:
        WorkFolder(job.out, job.timeline).check()
        record = record_path(job.out)
        check_output(record, overwrite=replaced)
        if record.exists() and not is_record(record):
            raise OutputError(
                f"{record} is not a run record of w2c-gen, and is not replaced", hint="choose another --out"
            )
    if job.frames_dir:
        for file in job.settings.image_files:
            if Path(file).resolve().parent == job.frames_dir.resolve():
                raise SettingsError(f"{file} is in the folder for the frames", hint="choose another --frames-dir")
        check_frames(job.frames_dir, job.timeline.frames, overwrite=may_replace_frames(job))


def may_replace_frames(job: Job) -> bool:
    """Whether frames in the folder for them may be replaced: they are of an interrupted run, or it was asked for."""
    return job.overwrite or (read_plan(job.out) or {}).get("frames") == frames_name(job)


def frames_name(job: Job) -> str | None:
    """The folder for the frames as seen from the film."""
    return relative_path(job.frames_dir, job.out.parent).as_posix() if job.frames_dir else None


def _check_keep_stems(job: Job) -> None:
    """Check that there are separated stems to keep, and that they can be written."""
    if job.stems and job.stems.separator:
        job.stems.check_places(keep=job.keep_stems, overwrite=job.overwrite)
    elif job.keep_stems:
        raise SettingsError("no stem is separated, so there is none to keep", hint="leave out --keep-stems")


def films(job: Job) -> tuple[Job, ...]:
    """The films of a job: one, or with the layout "separate" one per stem, named after it."""
    if job.settings.picture.layout != "separate":
        return (job,)
    picture = replace(job.settings.picture, layout="single")
    return tuple(
        replace(
            job,
            out=out,
            frames_dir=job.frames_dir and job.frames_dir / stem.name,
            settings=replace(job.settings, picture=picture, stems=(stem,)),
        )
        for stem, out in zip(job.settings.stems, _film_paths(job.out, job.settings), strict=True)
    )


def _film_paths(out: Path, settings: Settings) -> list[Path]:
    """The films of a job that is named `out`."""
    if settings.picture.layout != "separate":
        return [out]
    return [out.with_suffix(f".{stem.name}.mp4") for stem in settings.stems]


def without_existing(
    template: str | Path | None, source: Path, settings: Settings, *, storyboard: bool
) -> Settings | None:
    """The settings for the films of a track that do not exist yet, or for its storyboard; None where there is nothing.

    Errors are those of `name_film` and `name_sheet`.
    """
    out = (name_sheet if storyboard else name_film)(template, source, settings)
    missing = [not path.is_file() for path in ([out] if storyboard else _film_paths(out, settings))]
    if not any(missing):
        return None
    if storyboard or settings.picture.layout != "separate":
        return settings
    return replace(settings, stems=tuple(compress(settings.stems, missing))).with_needed_stem_files()


def pictures(settings: Settings) -> dict[str, tuple[StemWeight, ...]]:
    """The pictures of a film by caption, and the stems that condition each; none: the mix."""
    if settings.picture.layout == "grid":
        return {MIX: (), **{stem.name: (stem,) for stem in settings.stems}}
    return {"": settings.stems}


def name_film(template: str | Path | None, source: Path, settings: Settings) -> Path:
    """The film's path: `template` filled in; by default the track's name, in the current folder.

    Raises:
        SettingsError: The template has unknown fields.
        VideoError: It is no mp4.
    """
    path = fill(template or FILM, source, settings)
    if path.suffix.lower() != ".mp4":
        raise VideoError(f"{path}: films are mp4 files", hint=f"name it {path.with_suffix('.mp4').name}")
    return path


def name_sheet(template: str | Path | None, source: Path, settings: Settings) -> Path:
    """The storyboard's path: `template` filled in; by default the film's path, as `.storyboard.png`.

    Raises:
        SettingsError: The template has unknown fields, or the sheet would overwrite an input image.
        OutputError: It is no png.
    """
    path = fill(template or SHEET, source, settings)
    if path.suffix.lower() != ".png":
        raise OutputError(f"{path}: a storyboard is a png", hint=f"name it {path.with_suffix('.png').name}")
    if path.resolve() in {Path(file).resolve() for file in settings.image_files}:
        raise SettingsError(f"{path} is an input image of the storyboard", hint="choose another --out")
    return path


def fill(template: str | Path, source: Path, settings: Settings) -> Path:
    """Fill `{stem}` (the track's name) and `{seed}` into a path.

    Raises:
        SettingsError: The template has other fields.
    """
    try:
        return Path(str(template).format(stem=_title(source), seed=settings.run.seed))
    except (KeyError, IndexError, ValueError, AttributeError, TypeError):
        raise SettingsError(
            f"{template}: only {{stem}} and {{seed}} are replaced",
            hint=f"double the braces that belong to a name: {_double_braces(str(template))}",
        ) from None


def _double_braces(template: str) -> str:
    """The template with all braces doubled that are not, and belong to no field that `fill` knows."""
    words = re.split(r"(\{\{|\}\}|\{(?:stem|seed)(?:[!:][^{}]*)?\})", template)  # every second one is right
    return "".join(word if number % 2 else re.sub(r"[{}]", r"\g<0>\g<0>", word) for number, word in enumerate(words))


def _title(source: Path) -> str:
    """A song's name: its file without `.wav` or `.stem.mp4`, or the folder of its stems."""
    if source.is_dir():
        return source.resolve().name
    return Path(source.stem).stem if is_stem_file(source) else source.stem


def record_path(film: Path) -> Path:
    """The path of a film's run record."""
    return film.with_suffix(".json")


def is_record(path: Path) -> bool:
    """Whether a file is a run record, of any version."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "w2c-gen" in content


def truncate(job: Job, frames: int) -> Job:
    """The job restricted to its first frames; the job itself if that is all of them."""
    if frames == job.timeline.frames:
        return job
    timeline = job.timeline.until(frames)
    track = replace(job.track, samples=timeline.samples, whole=False)
    sound = plan_sound(track, trial=False) if job.sound.copied else job.sound
    return replace(job, track=track, timeline=timeline, sound=sound)
