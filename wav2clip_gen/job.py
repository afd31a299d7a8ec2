"""One film to be made, with all that can be checked before a network is loaded. Knows no torch."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from wav2clip_gen.audio.track import Track, open_track
from wav2clip_gen.audio.windows import Timeline
from wav2clip_gen.errors import OutputError, SettingsError, VideoError
from wav2clip_gen.files import check_output, empty_folder
from wav2clip_gen.models.choice import Choice, choose, require_one_space
from wav2clip_gen.models.vocabulary import note_unknown
from wav2clip_gen.pictures import check_pictures
from wav2clip_gen.settings import Settings
from wav2clip_gen.video.mux import SoundPlan, plan_sound

FILM, SHEET = "{stem}.mp4", "{stem}.storyboard.png"


@dataclass(frozen=True, eq=False)
class Job:
    """A checked track, where its frames lie, and where the film goes."""

    track: Track
    timeline: Timeline
    settings: Settings  # with its seed drawn
    networks: Choice
    out: Path
    sound: SoundPlan  # how the sound will get into the film
    frames_dir: Path | None = None
    storyboard: bool = False  # a contact sheet is made instead of a film

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
        reader = self.networks.parts["clip"]
        unknown = note_unknown((prompt.text for prompt in self.settings.prompts), reader.path, name=reader.name)
        return (unknown,) if unknown else ()


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
    storyboard: bool = False,
) -> Job:
    """Check all that can be checked before a network is loaded; settle the seed and the family.

    Args and errors are those of `pipeline.render`, but that `loaded` are the networks that are there already, if any,
    and `unfetched` lets their files be missing; with `storyboard` a sheet is prepared for `storyboard.storyboarding`.
    """
    source, settings = Path(source), settings or Settings()
    run = settings.run
    settings.require_steering()
    networks = loaded or choose(run, weights_dir)
    if not unfetched:
        networks.require()
    require_one_space(networks, sound=settings.sound.weight > 0)
    seed = secrets.randbelow(2**31) if run.seed is None else run.seed  # short enough to be typed again
    run = replace(run, seed=seed, models=networks.models, perceptor=networks.perceptor, vqgan=networks.vqgan)
    settings = replace(settings, run=run)
    track = open_track(source, start=settings.sound.start, duration=settings.sound.duration)
    path = (name_sheet if storyboard else name_film)(out, source, settings)
    check_output(path, overwrite=overwrite)
    if not storyboard:
        check_output(record_beside(path), overwrite=overwrite)
    elif frames_dir:
        raise SettingsError("a storyboard has no frames to keep", hint="leave --frames-dir or --storyboard out")
    check_pictures(settings)
    pictures = fill(frames_dir, source, settings) if frames_dir else None
    if pictures:
        _refuse_own_pictures(pictures, settings)
        empty_folder(pictures, "[0-9]*.png", overwrite=overwrite)
    timeline = Timeline.of(track, fps=settings.picture.fps, window=settings.sound.window, hop=settings.sound.hop)
    return Job(track, timeline, settings, networks, path, plan_sound(track), pictures, storyboard)


def name_film(template: str | Path | None, source: Path, settings: Settings) -> Path:
    """The path of the film that `template` means for a track; by default the track's name, in this folder.

    Raises:
        SettingsError: The template has fields that there are not.
        VideoError: The film would replace its own track, or is no mp4.
    """
    path = fill(template or FILM, source, settings)
    if path.suffix.lower() != ".mp4":
        raise VideoError(f"{path}: only mp4 films are made", hint=f"name it {path.with_suffix('.mp4').name}")
    if path.exists() and path.samefile(source):
        raise VideoError(f"{path} is the track itself", hint="choose another --out")
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
    """Fill `{stem}` (of the track) and `{seed}` into a path.

    Raises:
        SettingsError: The template has other fields.
    """
    try:
        return Path(str(template).format(stem=source.stem, seed=settings.run.seed))
    except (KeyError, IndexError, ValueError, AttributeError, TypeError):
        raise SettingsError(f"{template}: not a name", hint="use {stem} and {seed}, as in films/{stem}.mp4") from None


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
