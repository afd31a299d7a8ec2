"""The whole story: a song goes in, a film comes out."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from wav2clip_gen import record
from wav2clip_gen.audio.decode import decode, levels
from wav2clip_gen.audio.features import measure, silenced
from wav2clip_gen.audio.timeline import iterate_windows
from wav2clip_gen.errors import SettingsError
from wav2clip_gen.events import Event, Film, Finished, FramePainted, Ready, Silent, Stage
from wav2clip_gen.files import appear_whole, empty_folder, scratch_beside
from wav2clip_gen.job import PICTURES, Job, films, must_separate, pictures, prepare, record_beside, shortened, sources
from wav2clip_gen.pictures import read_style
from wav2clip_gen.settings import MIX, Settings, Stem
from wav2clip_gen.video.grid import Grid
from wav2clip_gen.video.mux import mux
from wav2clip_gen.video.probe import verify_film
from wav2clip_gen.video.writer import FilmWriter, Picture

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from wav2clip_gen.models.families import Family
    from wav2clip_gen.synthesis.drives import Drives
    from wav2clip_gen.synthesis.painter import Painter
    from wav2clip_gen.synthesis.trajectory import Trajectory


def render(
    source: str | Path,
    out: str | Path | None = None,
    settings: Settings | None = None,
    *,
    family: Family | None = None,
    overwrite: bool = False,
    frames_dir: str | Path | None = None,
    weights_dir: Path | None = None,
    keep_stems: str | Path | None = None,
    demucs_repo: Path | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
) -> Film:
    """Turn a track into a film whose pictures follow what is heard.

    Args:
        source: A sound file, or a video file whose sound is taken.
        out: The film; `{stem}` and `{seed}` are filled in. By default the track's name, as mp4, in this folder.
        settings: What to make; see `wav2clip_gen.settings`.
        family: Networks that are already loaded, to make several films with.
        overwrite: Replace an older film.
        frames_dir: Also keep the pictures, as PNG files, in this folder; it may have the same fields.
        weights_dir: Folder of fetched weights, instead of `W2C_WEIGHTS` or the user's cache.
        keep_stems: Also keep the stems that are separated, as FLAC files, in this folder.
        demucs_repo: Folder of Demucs' weights, instead of `W2C_DEMUCS_REPO` or the published ones.
        on_event: Is told of all that happens.

    Raises:
        W2CError: The track, a setting, the weights or the output cannot be used, or the finished film is wrong.
    """
    loaded = family.choice if family else None
    job = prepare(
        source, out, settings, overwrite=overwrite, frames_dir=frames_dir, loaded=loaded, weights_dir=weights_dir,
        keep_stems=keep_stems, demucs_repo=demucs_repo,
    )  # fmt: skip
    if len(films(job)) > 1:
        raise SettingsError("this makes several films", hint="render each stem by itself, with layout single")
    job = films(job)[0]
    for event in rendering(job, load=(lambda *_, **__: family) if family else None):
        on_event(event)
        if isinstance(event, Finished):
            return event.film
    raise AssertionError("a rendering ends with Finished or an error")


def rendering(
    job: Job,
    *,
    load: Callable[..., Family] | None = None,
    stop: Callable[[], bool] = lambda: False,
    on_separation: Callable[[float], None] = lambda share: None,
) -> Iterator[Event]:
    """Make the film, telling of each step; the last event is `Finished`.

    Args:
        job: One of `films`.
        load: Gives the networks, as `load_choice` does; who makes several films loads them once.
        stop: Asked after each frame; when it says so the film ends there, as `NAME.partial.mp4`.
        on_separation: Is told how much of the song is separated into stems, from 0 to 1, in the stage "separate".
    """
    from wav2clip_gen.models.families import choose_device, load_choice
    from wav2clip_gen.synthesis.painter import Painter, generator_for

    clock = _Clock()
    yield clock.begin("load")
    family = (load or load_choice)(job.networks, device=choose_device(job.settings.run.device))
    scenes = pictures(job.settings)
    painters = {
        name: Painter(family, job.settings, generator=generator_for(job.seed, family.device)) for name in scenes
    }
    yield Ready(family.name, str(family.device))

    if must_separate(job):
        yield clock.begin("separate")
        sources(job, on_progress=on_separation)
    yield clock.begin("hear")
    drives = drive(job)
    beside = hear_beside(job, family, drives)
    trajectories = {name: hear(job, family, stems, drives=drives, beside=beside) for name, stems in scenes.items()}
    silent = {stem for trajectory in trajectories.values() for stem in trajectory.silent}
    if silent:
        yield Silent(tuple(sorted(silent)))

    yield clock.begin("paint")
    painted: list[FramePainted] = []
    if job.frames_dir:
        empty_folder(job.frames_dir, PICTURES, overwrite=job.overwrite)
    with scratch_beside(job.out) as picture:
        grid = grid_of(job.settings)
        with _film_writer(picture, job, grid) as writer:
            for frame in paint(job, painters, trajectories, writer, drives=drives, grid=grid):
                painted.append(frame)
                yield frame
                if stop():
                    break
        film = yield from _finish(job, family, picture, painted, clock)
    yield Finished(film)


def _finish(
    job: Job, family: Family, picture: Path, painted: list[FramePainted], clock: _Clock
) -> Generator[Event, None, Film]:
    """Join what was painted and the sound, check that they agree, and write the run record."""
    planned = job.timeline.frames
    job = shortened(job, len(painted))
    timeline, track = job.timeline, job.track

    yield clock.begin("join")
    with appear_whole(job.out) as part:
        tags = {"title": track.title or track.path.stem, "comment": record.summary(job, family)}
        mux(picture, track, part, metadata=tags, plan=job.sound)
        yield clock.begin("check")
        sync = verify_film(part, frames=timeline.frames, fps=timeline.fps, duration=track.duration, sound=track)
    film = Film(
        path=job.out, record=record_beside(job.out), frames=len(painted), seconds=sync.picture_seconds,
        seed=job.seed, sync=sync, timings=clock.finish(), partial=len(painted) < planned,
    )  # fmt: skip
    record.write(record.describe(job, family, film, painted), film.record)
    return film


def drive(job: Job) -> Drives:
    """Measure those features of song and stems that drive a setting, and follow them; a silent stem drives nothing."""
    from wav2clip_gen.synthesis.drives import follow_maps
    from wav2clip_gen.synthesis.listening import is_silent

    tracks = sources(job)
    needed = {one.stem for one in job.settings.maps}
    features = {stem: measure(decode(tracks[stem or MIX], job.timeline), job.timeline) for stem in needed}
    if needed - {None}:
        song, fps = levels(job.track, job.timeline), float(job.timeline.fps)
        features = {
            stem: silenced(found) if stem and is_silent(found.levels, song, fps=fps) else found
            for stem, found in features.items()
        }
    return follow_maps(job.settings, features, job.timeline)


def hear(
    job: Job,
    family: Family,
    stems: Sequence[Stem] | None = None,
    *,
    windows: Tensor | None = None,
    drives: Drives | None = None,
    beside: Beside | None = None,
) -> Trajectory:
    """Bring what is heard, and words and style images beside it, to one target per frame.

    Args:
        job: Any.
        family: Networks.
        stems: Stems to follow, none for the whole song; by default those of the settings.
        windows: The whole song's, from `embed_sound`, if they are there already.
        drives: From `drive`, if they are there already.
        beside: From `hear_beside`, if it is there already.
    """
    from wav2clip_gen.synthesis.listening import listen, listen_to_stems
    from wav2clip_gen.synthesis.trajectory import build_trajectory, hold_scenes

    settings, found = job.settings, sources(job)
    stems = settings.stems if stems is None else stems
    drives = drives or drive(job)
    beside = beside or hear_beside(job, family, drives)
    if stems:
        followed = [(stem, found[stem.name]) for stem in stems]
        heard = listen_to_stems(family.wav2clip, job.track, job.timeline, followed)
    else:
        heard = listen(embed_sound(job, family) if windows is None else windows, job.track, job.timeline)
    trajectory = build_trajectory(
        heard.embeddings,
        heard.loudness,
        job.timeline,
        half_life=drives.curves["smoothing"],
        sound_weight=settings.sound.weight,
        prompts=beside.vectors,
        pulls=beside.curves,
    )
    if beside.scenes:
        trajectory = hold_scenes(trajectory, beside.scenes, crossfade=settings.motion.crossfade)
    return replace(trajectory, silent=heard.silent)


class Beside(NamedTuple):
    """What all pictures of a film have in common beside the sound that each follows."""

    vectors: Tensor | None  # (P, D) of words and pictures
    curves: Tensor | None  # (P, F), how much each pulls
    scenes: list[slice]  # frames that hold one target; none where targets follow each moment


def hear_beside(job: Job, family: Family, drives: Drives) -> Beside:
    """Embed words and style images, and find the sections that a film holds: once, however many pictures it has."""
    settings = job.settings
    scenes = find_scenes(job) if settings.motion.scenes == "sections" else []
    if not settings.pulls:
        return Beside(None, None, scenes)
    return Beside(embed_pulls(settings, family), pull_curves(job, drives), scenes)


def find_scenes(job: Job) -> list[slice]:
    """The frames of each section of the song."""
    edges = measure(decode(job.track, job.timeline), job.timeline).sections.tolist()
    return [job.timeline.frames_between(start, stop) for start, stop in pairwise(edges)]


def embed_sound(job: Job, family: Family) -> Tensor | None:
    """Unit vectors (W, D) of the track's windows, on the CPU; None where sound does not steer."""
    if not job.settings.sound.weight:
        return None
    return family.wav2clip.embed(lambda: iterate_windows(job.track.mono_blocks(), job.timeline))


def pull_curves(job: Job, drives: Drives | None = None) -> Tensor:
    """How much words and pictures pull at each frame, (P, F), in the order of `settings.pulls`.

    What the sound makes of the words' weights is in `drives`; without them, all weights are as they were set.
    """
    import torch

    from wav2clip_gen.synthesis.trajectory import pull_curve

    times = job.timeline.frame_times() + job.track.start  # prompts tell times of the song, not of the film
    fade = job.settings.motion.crossfade
    weights: list[float | NDArray[np.float64]] = [one.weight for one in job.settings.pulls]
    if drives:
        weights[: len(drives.prompts)] = list(drives.prompts)
    curves = [
        pull_curve(weight, times, start=one.start, end=one.end, crossfade=fade)
        for weight, one in zip(weights, job.settings.pulls, strict=True)
    ]
    return torch.stack(curves) if curves else torch.zeros(0, len(times))


def embed_pulls(settings: Settings, family: Family) -> Tensor:
    """Unit vectors (P, D) of what pulls beside the sound, in the order of `settings.pulls`, on the CPU."""
    import torch

    from wav2clip_gen.synthesis.styles import embed_style

    words = [prompt.text for prompt in settings.prompts]
    read = [family.clip.embed_text(words).cpu()] if words else []
    seen = [embed_style(read_style(image.file), family.clip).cpu()[None] for image in settings.style_images]
    return torch.cat([*read, *seen])


class Painted(NamedTuple):
    """A picture that is finished."""

    pixels: Picture
    loss: float | None
    similarity: float | None


def paint(
    job: Job,
    painters: Mapping[str, Painter],
    trajectories: Mapping[str, Trajectory],
    writer: FilmWriter,
    *,
    drives: Drives,
    grid: Grid | None = None,
) -> Iterator[FramePainted]:
    """Paint all frames into the film, one from the other: each the picture of one painter, or a grid of several's."""
    targets = {name: trajectories[name].targets.to(painter.family.device) for name, painter in painters.items()}
    for index in range(job.timeline.frames):
        made = {
            name: _paint_picture(painter, targets[name][index], drives, index) for name, painter in painters.items()
        }
        pixels = [picture.pixels for picture in made.values()]
        writer.write(grid.joined(pixels) if grid else pixels[0])
        values = {name: (picture.loss, picture.similarity) for name, picture in made.items()}
        loss, similarity = (_mean(column) for column in zip(*values.values(), strict=True))
        yield FramePainted(index, job.timeline.frames, loss, similarity, values if grid else {})


def _paint_picture(painter: Painter, target: Tensor, drives: Drives, index: int) -> Painted:
    settings = painter.settings
    painter.move(drives.way(index))
    steps = painter.paint(
        target,
        steps=drives.steps(index) if index else settings.painting.first_steps,
        inertia=settings.motion.inertia if index else 0,
        learning_rate=float(drives.curves["learning-rate"][index]),
    )
    last = deque(steps, maxlen=1)
    loss, similarity = (float(last[0].loss), float(last[0].similarity)) if last else (None, None)
    return Painted(painter.show_bytes(drives.view(index)), loss, similarity)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def grid_of(settings: Settings) -> Grid | None:
    """Where the pictures of a film lie, if it has several."""
    picture = settings.picture
    return Grid(list(pictures(settings)), size=(picture.width, picture.height)) if picture.layout == "grid" else None


def _film_writer(path: Path, job: Job, grid: Grid | None) -> FilmWriter:
    picture = job.settings.picture
    return FilmWriter(
        path, size=grid.size if grid else (picture.width, picture.height), fps=job.timeline.fps,
        upscale=picture.upscale, frames_dir=job.frames_dir,
    )  # fmt: skip


class _Clock:
    """Seconds spent in each stage."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._stage, self._since = "", time.perf_counter()

    def begin(self, stage: str) -> Stage:
        now = time.perf_counter()
        if self._stage:
            self._seconds[self._stage] = now - self._since
        self._stage, self._since = stage, now
        return Stage(stage)

    def finish(self) -> dict[str, float]:
        self.begin("")
        return {stage: round(seconds, 3) for stage, seconds in self._seconds.items()}
