"""What is known of a finished film, for its page: its record, and its sound, measured again. Imports no torch."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wav2clip_gen import ffmpeg, record
from wav2clip_gen.analysis import Analysis, analyze, read_labels
from wav2clip_gen.audio.features import silenced
from wav2clip_gen.audio.timeline import Timeline, exact_fps
from wav2clip_gen.audio.track import ENCODER_RATE, Track, open_track
from wav2clip_gen.config import DESTINATIONS, MIX, Guidance, Settings, settings_from
from wav2clip_gen.environment import readable
from wav2clip_gen.errors import OutputError, VideoError, W2CError
from wav2clip_gen.files import check_output, written
from wav2clip_gen.job import Job, is_record, plan_song_stems, record_path
from wav2clip_gen.models.registry import select_models, shares_space
from wav2clip_gen.progress import OnProgress, Progress, ignore
from wav2clip_gen.video.verify import probe

if TYPE_CHECKING:
    from wav2clip_gen.audio.stems import StemPlan
    from wav2clip_gen.models.registry import Models

Floats = NDArray[np.float64]
Load = Callable[..., "Models"]  # as `load_models`

COLUMNS = 2400  # of a curve on the page: more than the pixels of most windows
MOST_PROMPT_CURVES = 8
INDEX = "w2c-gen, index of films"  # in the page that leads to several films, so that it is known when it is made again


@dataclass(frozen=True, eq=False)
class Curve:
    """Values over time; NaN where there is none."""

    name: str
    values: Floats  # one for each frame; with `lower`, any number, evenly spread over the film
    unit: str = ""
    lower: Floats | None = None  # the other edge of a band; None: a line
    scale: tuple[float, float] | None = None  # of the drawing; None: from the least to the greatest value


@dataclass(frozen=True, eq=False)
class Shown:
    """A prompt or an image, and when it has an effect in the film."""

    content: str
    weight: float
    start: float  # seconds of the film
    stop: float


@dataclass(frozen=True, eq=False)
class FilmReport:
    """All that the page of a film shows."""

    film: Path
    title: str
    fps: float
    frames: int
    size: tuple[int, int]  # px, of the film's frames
    settings: Settings
    content: dict[str, Any]  # of the run record; empty without one
    similarity: dict[str, Floats] = field(default_factory=dict)  # (F,) by picture, "" for a film of one
    analysis: Analysis | None = None  # None without sound
    waveform: tuple[Floats, Floats] | None = None  # least and greatest samples of evenly spread columns
    parameters: tuple[Curve, ...] = ()  # that audio modulates
    guidance: tuple[Shown, ...] = ()
    notes: tuple[str, ...] = ()  # about what is missing, a line each

    @property
    def duration(self) -> float:
        """Seconds of film."""
        return self.frames / self.fps

    @property
    def record(self) -> Path | None:
        """The run record."""
        return record_path(self.film) if self.content else None


def find_film(path: Path) -> Path:
    """The film that is meant by its own path or by that of its record.

    Raises:
        VideoError: There is no such film.
    """
    if path.suffix.lower() == ".json" and is_record(path):
        named = record.load(path).get("film")
        path = path.with_name(named) if isinstance(named, str) and Path(named).name == named else path.with_suffix("")
    if path.is_file():
        return path
    if is_record(record_path(path)):
        hint = f"move it there, or make it again: w2c-gen --from {record_path(path)}"
        raise VideoError(f"{path} is missing; only its record is there", hint=hint)
    raise VideoError(f"{path}: no such film", hint="check the spelling and the folder you are in")


def page_path(film: Path) -> Path:
    """Where the page of a film is written by default."""
    return film.with_suffix(".html")


def write_report(
    film: Path,
    out: Path | None = None,
    *,
    embed: bool = False,
    overwrite: bool = False,
    load: Load | None = None,
    weights_dir: Path | None = None,
    device: str = "auto",
    on_progress: OnProgress = ignore,
) -> Path:
    """Write the page of a film: one file that needs no network.

    Args:
        film: The film, or its run record.
        out: The page; by default it has the film's name, as html.
        embed: Put the film into the page; else the page refers to it.
        overwrite: Replace an existing page.
        load: Loads the networks that label sections, as `load_models` does; None: sections have no labels.
        weights_dir: Folder of fetched weights, instead of `W2C_WEIGHTS` or the user's cache.
        device: For the networks.
        on_progress: Called with stages, and with notes about what the page lacks.

    Raises:
        VideoError: There is no such film, or it cannot be decoded.
        SettingsError: Its record is damaged.
        OutputError: The page cannot be written.
    """
    from wav2clip_gen.report_page import render_page

    film = find_film(film)
    out = out or page_path(film)
    check_output(out, overwrite=overwrite)
    on_progress(Progress(stage="analyze"))
    found = gather(film, load=load, weights_dir=weights_dir, device=device, on_progress=on_progress)
    for note in found.notes:
        on_progress(Progress(stage="analyze", message=f"note: {note}"))
    page = render_page(found, out, embed=embed)
    with written(out, overwrite=overwrite) as part:
        part.write_text(page, encoding="utf-8", errors="replace", newline="\n")
    return out


def index_path(films: Sequence[Path]) -> Path:
    """Where the index of several films is written: in the folder that holds all of them."""
    folders = [os.path.relpath(film.parent) for film in films]
    return Path(
        os.path.commonpath(map(os.path.abspath, folders)) if len(set(folders)) > 1 else folders[0], "index.html"
    )


def check_index(path: Path, films: Iterable[Path]) -> None:
    """Check that the index of films can be written; an older one is replaced, another file is not.

    Raises:
        OutputError: It cannot.
    """
    check_output(path, overwrite=True)
    if path in map(page_path, films):
        raise OutputError(f"{path} would be the page of a film and the index of all", hint="choose another --out")
    if path.exists() and INDEX not in path.read_text(encoding="utf-8", errors="replace"):
        raise OutputError(f"{path} is no index of films, and is not replaced", hint="move it, or choose another --out")


def write_index(films: Sequence[Path], path: Path) -> None:
    """Write a page that leads to the pages of several films.

    Raises:
        OutputError: It cannot be written.
    """
    from wav2clip_gen.report_page import render_index

    check_index(path, films)
    with written(path) as part:
        part.write_text(render_index(films, path), encoding="utf-8", errors="replace", newline="\n")


def gather(
    film: Path,
    *,
    load: Load | None = None,
    weights_dir: Path | None = None,
    device: str = "auto",
    on_progress: OnProgress = ignore,
) -> FilmReport:
    """Collect what is known of a film: from its record, from its song, or else from the film itself.

    Arguments and errors are those of `write_report`.
    """
    notes: list[str] = []
    found = describe_film(film, notes.append)
    track = _sound(found, notes)
    if track is None:
        return replace(found, notes=tuple(notes))
    settings = found.settings
    models = _label_models(settings, load, weights_dir, device, notes)
    own = track.path == film
    plan = None if own else _plan_stems(track, found, notes)
    if own and settings.required_stems:
        notes.append("no stems are shown: they belong to the song")
    analysis = analyze(
        track,
        Timeline.of(track, fps=exact_fps(found.fps), window=settings.sound.window, hop=settings.sound.hop),
        models=models,
        labels=read_labels() if models else (),
        stems=plan,
        on_separation=lambda share: on_progress(Progress(stage="separate", done=round(100 * share), total=100)),
    )
    return replace(
        found,
        analysis=analysis,
        waveform=_waveform(track, found.duration),
        parameters=_parameters(settings, analysis, notes),
        notes=tuple(notes),
    )


def describe_film(film: Path, note: Callable[[str], None] = lambda text: None) -> FilmReport:
    """What a film's record tells, or else the film itself, without measuring any sound.

    Raises:
        VideoError: It cannot be decoded.
        SettingsError: Its record is damaged.
    """
    path = record_path(film)
    if is_record(path):
        found = _of_record(film, path)
    else:
        what = f"{path.name} is no run record of w2c-gen" if path.exists() else f"there is no run record {path.name}"
        note(f"{readable(what)}: settings, prompts and similarity are not known")
        facts = probe(film)
        size, unmodulated = (facts.width, facts.height), settings_from(preset="still")
        found = FilmReport(film, "", float(facts.fps), facts.frames, size, unmodulated, {})
    return replace(found, title=readable(ffmpeg.read_title(film) or film.stem))


def _of_record(film: Path, path: Path) -> FilmReport:
    """What a film's record tells."""
    content = record.load(path)
    with record.malformed_refused(path):
        settings, sync = record.recorded_settings(content, film.parent), content["sync"]
        frames, fps = int(sync["frames"]), float(sync["fps"])
        pictures = {"": content["frames"], **content["frames"].get("pictures", {})}
        similarity = {name: of_every_frame(values["similarity"]) for name, values in pictures.items()}
        width, height = _dimensions(film)
        start = float(content["track"]["start"])
        return FilmReport(
            film, "", fps, frames, (width, height), settings, content, similarity,
            guidance=_guidance(settings, start, frames, fps),
        )  # fmt: skip


def describe_job(job: Job) -> FilmReport:
    """What is known of a film before it is made."""
    settings, frames, fps = job.settings, job.timeline.frames, float(job.timeline.fps)
    picture, start = settings.picture, job.track.start
    size = (picture.width * picture.upscale, picture.height * picture.upscale)
    title = readable(job.track.title or job.track.path.stem)
    guidance = _guidance(settings, start, frames, fps)
    return FilmReport(job.out, title, fps, frames, size, settings, {}, guidance=guidance)


def of_every_frame(values: Sequence[float | None] | Floats) -> Floats:
    """Values of the optimised frames, interpolated for those between."""
    found, places = np.array(values, float), np.arange(len(values))
    known = ~np.isnan(found)
    return np.interp(places, places[known], found[known]) if known.any() else found


def _dimensions(film: Path) -> tuple[int, int]:
    found = re.search(r"Video: .*?\b(\d{2,})x(\d{2,})\b", ffmpeg.describe(film))
    if not found:
        raise VideoError(f"{film} has no picture", hint="it is not a film")
    return int(found[1]), int(found[2])


def _guidance(settings: Settings, start: float, frames: int, fps: float) -> tuple[Shown, ...]:
    """The prompts and images that have an effect in a film whose first frame is at `start` in the song."""
    times, shown = np.arange(frames) / fps + start, []
    for one in settings.guidance:
        span = one.frames(times, settings.motion.crossfade)
        if span.start < span.stop:
            shown.append(Shown(_content(one), one.weight, span.start / fps, span.stop / fps))
    return tuple(shown)


def _content(one: Guidance) -> str:
    return one.content if one.CONTENT == "text" else readable(Path(one.content).name)


def _sound(found: FilmReport, notes: list[str]) -> Track | None:
    """The sound to measure: the part of the song that the film shows, or the film's own sound; None without any."""
    track = found.content.get("track")
    try:
        if track:
            path = found.film.parent / track["path"]
            digest = record.hash_input(path)
            if digest is not None and digest == track["sha256"]:
                seconds = track["samples"] / track["sample_rate"]
                return open_track(path, start=track["start"], duration=seconds)
            what = "is missing" if digest is None else "has changed since the film was made"
            notes.append(f"{path} {what}: the sound of the film itself is measured")
        if "Audio:" in ffmpeg.describe(found.film):
            return open_track(found.film)
        notes.append("the film has no sound, so nothing of it is measured")
    except W2CError as error:
        notes.append(f"the sound cannot be measured: {error.what}")
    return None


def _label_models(
    settings: Settings, load: Load | None, weights_dir: Path | None, device: str, notes: list[str]
) -> Models | None:
    """The networks of the film, to label its sections with; None where they cannot."""
    from wav2clip_gen.devices import choose_device

    if load is None:
        return None
    try:
        selection = select_models(settings.run, weights_dir)
        selection.require()
        if not shares_space(selection):
            notes.append(f"no labels: {selection.components['clip'].name} has no space in common with the sound")
            return None
        return load(selection, device=choose_device(device))
    except W2CError as error:
        notes.append(f"no labels: {error.what}")
        return None


def _plan_stems(track: Track, found: FilmReport, notes: list[str]) -> StemPlan | None:
    """The stems that the film was made with; None where there are none, or no longer."""
    repo = found.content.get("demucs_repo")
    try:
        return plan_song_stems(track, found.settings, found.film.parent / repo if repo else None)
    except W2CError as error:
        notes.append(f"no stems are shown: {error.what}")
        return None


def _waveform(track: Track, duration: float) -> tuple[Floats, Floats]:
    """The least and the greatest sample of the mono signal in each of `COLUMNS` columns, or fewer, of the film."""
    length = max(1, round(duration * ENCODER_RATE))
    columns, position = min(COLUMNS, length), 0
    low, high = np.zeros(columns), np.zeros(columns)
    for block in track.mono_blocks(ENCODER_RATE):
        shown = block[: max(0, length - position)]
        if len(shown):
            owners = (position + np.arange(len(shown))) * columns // length
            starts = np.flatnonzero(np.diff(owners, prepend=-1))
            at = owners[starts]
            low[at] = np.minimum(low[at], np.minimum.reduceat(shown, starts))
            high[at] = np.maximum(high[at], np.maximum.reduceat(shown, starts))
        position += len(block)
    return low, high


def _parameters(settings: Settings, analysis: Analysis, notes: list[str]) -> tuple[Curve, ...]:
    """The settings that audio modulates, as the film was made with them."""
    if not settings.maps:
        return ()
    from wav2clip_gen.synthesis.conditioning import is_silent
    from wav2clip_gen.synthesis.modulation import modulate

    mix, fps = analysis.mix.features, float(analysis.timeline.fps)
    features = {MIX: mix} | {
        name: silenced(stem.features) if is_silent(stem.features.levels, mix.levels, fps=fps) else stem.features
        for name, stem in analysis.stems.items()
    }
    unknown = {one.to for one in settings.maps if (one.stem or MIX) not in features}
    if unknown:
        notes.append(f"no curve without its stem: {', '.join(sorted(unknown))}")
    maps = tuple(one for one in settings.maps if one.to not in unknown)
    curves = modulate(replace(settings, maps=maps), features, analysis.timeline)
    names = [name for name in dict.fromkeys(one.to for one in maps) if name in DESTINATIONS and name != "prompt"]
    found = [Curve(name, curves.curves[name], _unit(name)) for name in names]
    weights = [(number, one) for number, one in enumerate(curves.prompts, 1) if one.changes]
    if len(weights) > MOST_PROMPT_CURVES:
        notes.append(f"{len(weights) - MOST_PROMPT_CURVES} more prompts have curves")
    whole = slice(0, analysis.timeline.frames)
    found += [Curve(f"weight of prompt {number}", one.at(whole)) for number, one in weights[:MOST_PROMPT_CURVES]]
    return tuple(found)


def _unit(destination: str) -> str:
    group, name = DESTINATIONS[destination]
    return str(group.__dataclass_fields__[name].metadata["unit"])
