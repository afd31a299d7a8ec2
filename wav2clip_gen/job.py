"""One film to be made, with all that can be checked before a network is loaded. Knows no torch."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from wav2clip_gen.audio.stems import StemPlan, is_stem_file, plan_stems, resolve_input
from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.audio.track import Track, open_track
from wav2clip_gen.errors import OutputError, SettingsError, VideoError
from wav2clip_gen.files import check_folder, check_output
from wav2clip_gen.models.choice import Choice, choose, require_one_space
from wav2clip_gen.models.vocabulary import note_unknown
from wav2clip_gen.pictures import check_pictures
from wav2clip_gen.settings import MIX, Settings, Sound, Stem
from wav2clip_gen.video.mux import SoundPlan, plan_sound

FILM, SHEET = "{stem}.mp4", "{stem}.storyboard.png"
PICTURES = "[0-9]*.png"  # of a film, in its folder
ALONE = "the sound shall leave room for words, and there are none: it steers alone; add --prompts song.lrc or -p words"


@dataclass(frozen=True, eq=False)
class Job:
    """A checked track, where its frames lie, and where the film goes."""

    track: Track
    source: Path  # as it was given: the track's file, or the folder of its stems
    timeline: Timeline
    settings: Settings  # with its seed drawn
    networks: Choice
    out: Path
    sound: SoundPlan  # how the sound will get into the film
    frames_dir: Path | None = None
    stems: StemPlan | None = None  # of all stems that are needed, whether they steer or not
    keep_stems: Path | None = None  # a folder for those that are separated
    demucs_repo: Path | None = None  # where Demucs' weights were asked from
    overwrite: bool = False
    storyboard: bool = False  # a contact sheet is made instead of a film
    separated: dict[str, Track] = field(default_factory=dict)  # filled by `sources`; the films of a song share it

    @property
    def seed(self) -> int:
        """What decides everything that is drawn."""
        assert self.settings.run.seed is not None
        return self.settings.run.seed

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know before the work begins, a line each.

        Raises:
            WeightsError: The vocabulary beside the perceptor is damaged.
        """
        reader, settings = self.networks.parts["clip"], self.settings
        unknown = note_unknown((prompt.text for prompt in settings.prompts), reader.path, name=reader.name)
        alone = settings.sound.weight < Sound.weight and not settings.pulls
        return (*([unknown] if unknown else []), *([ALONE] if alone else []))


def prepare(
    source: str | Path,
    out: str | Path | None = None,
    settings: Settings | None = None,
    *,
    overwrite: bool = False,
    frames_dir: str | Path | None = None,
    loaded: Choice | None = None,
    weights_dir: Path | None = None,
    unfetched: bool = False,
    keep_stems: str | Path | None = None,
    demucs_repo: Path | None = None,
    storyboard: bool = False,
) -> Job:
    """Check all that can be checked before a network is loaded; settle the seed, the family and the stems.

    Args and errors are those of `pipeline.render`, but that `loaded` are the networks that are there already, if any,
    and `unfetched` lets their files be missing; `demucs_repo` is a folder of Demucs' weights; with `storyboard` a sheet
    is prepared for `storyboard.storyboarding`. A job whose layout is `separate` is several films: see `films`.
    """
    source, settings = Path(source), settings or Settings()
    settings.require_steering()
    settings.require_prompts()
    networks = loaded or choose(settings.run, weights_dir)
    if not unfetched:
        networks.require()
    require_one_space(networks, sound=settings.sound.weight > 0)
    settings = _settled(settings, networks)
    if storyboard and (frames_dir or settings.picture.layout != "single"):
        raise SettingsError(
            "a storyboard has one picture for each section, and no frames to keep",
            hint="leave --storyboard out, or --layout and --frames-dir",
        )
    check_pictures(settings)
    track = open_song(source, settings)
    plan = plan_song_stems(track, settings, demucs_repo)
    if plan and plan.separator:  # so that the record names the one that was taken
        settings = replace(settings, sound=replace(settings.sound, separator=plan.separator))
    timeline = Timeline.of(track, fps=settings.picture.fps, window=settings.sound.window, hop=settings.sound.hop)
    job = Job(
        track, source, timeline, settings, networks, (name_sheet if storyboard else name_film)(out, source, settings),
        plan_sound(track), fill(frames_dir, source, settings) if frames_dir else None, plan,
        fill(keep_stems, source, settings) if keep_stems else None, demucs_repo, overwrite, storyboard,
    )  # fmt: skip
    for film in films(job):
        _check_places(film)
    _check_kept(job)
    return job


def _settled(settings: Settings, networks: Choice) -> Settings:
    """The settings with seed and family decided."""
    run = settings.run
    seed = secrets.randbelow(2**31) if run.seed is None else run.seed  # short enough to be typed again
    run = replace(run, seed=seed, models=networks.models, perceptor=networks.perceptor, vqgan=networks.vqgan)
    return replace(settings, run=run)


def open_song(source: Path, settings: Settings) -> Track:
    """The song that is meant by a file or a folder of stems, and of it the span that is wanted.

    Raises:
        SoundError: It cannot be read, or the span holds nothing.
    """
    track = open_track(resolve_input(source), start=settings.sound.start, duration=settings.sound.duration)
    return replace(track, title=track.title or _title(source)) if source.is_dir() else track


def plan_song_stems(track: Track, settings: Settings, demucs_repo: Path | None) -> StemPlan | None:
    """Where the stems that the settings need come from; None where they need none. Errors are those of `plan_stems`."""
    if not settings.stem_names:
        return None
    given, separator = settings.stem_files, settings.sound.separator
    return plan_stems(track, settings.stem_names, given=given, separator=separator, demucs_repo=demucs_repo)


def _check_places(job: Job) -> None:
    """Make sure that film, record and pictures can go where they should."""
    heard = {"the track itself": [job.track]}
    if job.stems:
        heard["a stem of the track"] = [*job.stems.given.values()]
    for what, tracks in heard.items():
        if job.out.exists() and any(job.out.samefile(track.path) for track in tracks):
            raise VideoError(f"{job.out} is {what}", hint="choose another --out")
    check_output(job.out, overwrite=job.overwrite)
    if not job.storyboard:
        check_output(record_beside(job.out), overwrite=job.overwrite)
    if job.frames_dir:
        _refuse_own_pictures(job.frames_dir, job.settings)
        check_folder(job.frames_dir, PICTURES, overwrite=job.overwrite)


def _check_kept(job: Job) -> None:
    """Make sure that there are stems to keep, and that separated ones can go where they should."""
    if job.stems and job.stems.separator:
        job.stems.check_places(keep=job.keep_stems, overwrite=job.overwrite)
    elif job.keep_stems:
        raise SettingsError("no stem is separated, so there is none to keep", hint="leave --keep-stems out")


def films(job: Job) -> tuple[Job, ...]:
    """The films that a job makes: one, or one of each stem, named after it, all from the same separation."""
    if job.settings.picture.layout != "separate":
        return (job,)
    picture = replace(job.settings.picture, layout="single")
    return tuple(
        replace(
            job,
            out=job.out.with_suffix(f".{name}.mp4"),
            frames_dir=job.frames_dir and job.frames_dir / name,
            settings=replace(job.settings, picture=picture, stems=stems),
        )
        for name, stems in _alone(job.settings).items()
    )


def pictures(settings: Settings) -> dict[str, tuple[Stem, ...]]:
    """The pictures of a film by their captions, and the stems that each follows; none means the whole song."""
    if settings.picture.layout == "grid":
        return {MIX: (), **_alone(settings)}
    return {"": settings.stems}


def _alone(settings: Settings) -> dict[str, tuple[Stem, ...]]:
    """Each stem by itself."""
    return {stem.name: (stem,) for stem in settings.stems}


def must_separate(job: Job) -> bool:
    """Whether `sources` has stems to separate first."""
    return job.stems is not None and job.stems.separator is not None and not job.separated


def sources(job: Job, *, on_progress: Callable[[float], None] = lambda share: None) -> dict[str, Track]:
    """All that is heard in a job, by name: "mix", then each stem that is needed; what has to be is separated, once.

    All have the same sample rate and number of samples, so that the job's timeline holds for each.

    Args:
        job: From `prepare`.
        on_progress: Is told how much of the separation is done, from 0 to 1.
    """
    if job.stems and not job.separated:
        found = job.stems.load(keep=job.keep_stems, overwrite=job.overwrite, on_progress=on_progress)
        job.separated.update(found)
    return {MIX: job.track, **job.separated}


def name_film(template: str | Path | None, source: Path, settings: Settings) -> Path:
    """The path of the film that `template` means for a track; by default the track's name, in this folder.

    Raises:
        SettingsError: The template has fields that there are not.
        VideoError: It is no mp4.
    """
    path = fill(template or FILM, source, settings)
    if path.suffix.lower() != ".mp4":
        raise VideoError(f"{path}: only mp4 films are made", hint=f"name it {path.with_suffix('.mp4').name}")
    return path


def _refuse_own_pictures(folder: Path, settings: Settings) -> None:
    """Raise a SettingsError where a picture that takes part lies in the folder that shall be emptied for new ones."""
    for file in settings.picture_files:
        if Path(file).resolve().parent == folder.resolve():
            raise SettingsError(f"{file} lies where the film's pictures shall go", hint="choose another --frames-dir")


def name_sheet(template: str | Path | None, source: Path, settings: Settings) -> Path:
    """The path of the storyboard that `template` means for a track; by default beside where its film would be.

    Raises:
        SettingsError: The template has fields that there are not, or the sheet would replace a picture that steers it.
        OutputError: It is no png.
    """
    path = fill(template or SHEET, source, settings)
    if path.suffix.lower() != ".png":
        raise OutputError(f"{path}: a storyboard is a png", hint=f"name it {path.with_suffix('.png').name}")
    if path.resolve() in {Path(file).resolve() for file in settings.picture_files}:
        raise SettingsError(f"{path} is a picture that steers the storyboard", hint="choose another --out")
    return path


def fill(template: str | Path, source: Path, settings: Settings) -> Path:
    """Fill `{stem}` (the track's name) and `{seed}` into a path.

    Raises:
        SettingsError: The template has other fields.
    """
    try:
        return Path(str(template).format(stem=_title(source), seed=settings.run.seed))
    except (KeyError, IndexError, ValueError, AttributeError, TypeError):
        raise SettingsError(f"{template}: not a name", hint="use {stem} and {seed}, as in films/{stem}.mp4") from None


def _title(source: Path) -> str:
    """What a song is called after: its file without `.wav` or `.stem.mp4`, or the folder of its stems."""
    if source.is_dir():
        return source.resolve().name
    return Path(source.stem).stem if is_stem_file(source) else source.stem


def record_beside(film: Path) -> Path:
    """Where the run record of a film lies."""
    return film.with_suffix(".json")


def shortened(job: Job, frames: int) -> Job:
    """The job as far as it was done: the same one, or a shorter one under a clear name."""
    if frames == job.timeline.frames:
        return job
    timeline = job.timeline.until(frames)
    track = replace(job.track, samples=timeline.samples, whole=False)
    names = (job.out.with_suffix(f".partial{number or ''}.mp4") for number in count())
    out = next(name for name in names if not name.exists())  # an earlier attempt is not lost either
    return replace(job, track=track, timeline=timeline, out=out, sound=plan_sound(track))
