"""The bare form: `w2c-gen song.wav --out video.mp4`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from wav2clip_gen.cli import options
from wav2clip_gen.cli.app import COMMANDS, INTERRUPTED
from wav2clip_gen.cli.batch import Batch
from wav2clip_gen.cli.report import Pages
from wav2clip_gen.config import Settings, family_settings, settings_from
from wav2clip_gen.errors import SettingsError

if TYPE_CHECKING:
    import torch

    from wav2clip_gen.cli.console import Listener
    from wav2clip_gen.job import Job
    from wav2clip_gen.models.registry import Models, ModelSelection
    from wav2clip_gen.ranges import Original
    from wav2clip_gen.record import Replay
    from wav2clip_gen.render_queue import RenderQueue


app = typer.Typer(
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


class ModelLoader:
    """Loads models, once for all tracks that need the same."""

    def __init__(self) -> None:
        self._models: Models | None = None

    def __call__(self, selection: ModelSelection, *, device: torch.device) -> Models:
        """The models on a device; see `load_models`."""
        from wav2clip_gen.models.registry import load_models

        if self._models is None or (self._models.selection, self._models.device) != (selection, device):
            self._models = load_models(selection, device=device)
        return self._models


EPILOG = "\n\n".join(  # Typer shows each paragraph as a line
    ["Other commands:", *(f"[bold]w2c-gen {word:<8}[/] {what}" for word, what in COMMANDS.items())]
)


@app.command(epilog=EPILOG, cls=options.Command)
@options.with_options(*options.OPTIONS, everyday=True)
def render(**given: Any) -> None:
    """Generate a music video from audio.

    Wav2CLIP embeds each moment of the track in CLIP's space, and VQGAN-CLIP optimizes each frame towards the embedding.
    """
    from wav2clip_gen.cli import console
    from wav2clip_gen.cli.live import previewed, refuse_preview
    from wav2clip_gen.job import name_film
    from wav2clip_gen.render_queue import RenderQueue

    debug, progress = given["debug"], given["progress"]
    with console.errors_shown(debug=debug):
        with options.deprecations_shown():
            changes = options.settings_given(given)
            original = _open_original(given)
            replay = _read_record(given)
            sources, settings = _merge(given, changes, replay)
        _refuse_contradictions(given, settings)
        pages = Pages.of(given)
        refuse_preview(given)
        prepare = _preparation(given, replay, original)
        _refuse_same_names(sources, (given["out"] or "{stem}.mp4", given["frames_dir"], given["keep_stems"]), settings)
        batch = Batch(sources, _what_is_done(given, settings), debug)
        wanted = _skip_existing(batch, given, settings)
    listener, loader = console.listener(progress.value if progress else None), ModelLoader()
    jobs = _check(batch, wanted, prepare, pages, fetch=given["fetch"])
    with console.errors_shown(debug=debug):
        pages.check(jobs.values(), [name_film(given["out"], track, settings) for track in batch.skipped])
    if jobs and given["fetch"]:
        with console.errors_shown(debug=debug):
            jobs = _fetch_models(jobs, settings, given["weights_dir"])
    with (
        previewed(listener, wanted=given["preview"] and bool(jobs)) as following,
        RenderQueue([*jobs.values()], loader) as queue,
    ):
        for number, (source, job) in enumerate(jobs.items(), 1):
            if batch.interrupted and not queue.is_finished(job):
                continue
            place = f"{number}/{len(jobs)}" if len(sources) > 1 else ""
            with batch.attempt(source):
                _make(job, following, queue, loader, pages, place=place, dry_run=given["dry_run"])
                batch.made.append(source)
    with console.errors_shown(debug=debug):
        pages.write_index(listener)
    listener.show_batch(batch)
    raise typer.Exit(batch.code)


def _open_original(given: dict[str, Any]) -> Original | None:
    """The film of which a range is generated again, if one is given; its record is then the one that is replayed."""
    if given["range"] is None:
        return None
    from wav2clip_gen import ranges
    from wav2clip_gen.job import record_path

    inputs, path = given["inputs"] or [], given["from_record"]
    ranges.parse_range(given["range"])
    if (path is None) != (len(inputs) == 1) or len(inputs) > 1:
        what = "--range needs one finished film"
        raise SettingsError(what, hint="w2c-gen video.mp4 --range 1:05-1:20, or w2c-gen --from video.json --range ...")
    for name in ("frames_dir", "preview", "skip_existing", "storyboard"):
        if given[name]:
            flag = options.OPTIONS[name].flags[0]
            raise SettingsError(f"--range and {flag} contradict each other", hint="leave one of them out")
    original = ranges.open_original(path.with_suffix(".mp4") if path else inputs[0])
    given |= {"from_record": record_path(original.film), "inputs": []}
    return original


def _read_record(given: dict[str, Any]) -> Replay | None:
    """The run record, if one is given; differences between then and now are reported."""
    if given["from_record"] is None:
        return None
    from wav2clip_gen import record

    replay = record.read(given["from_record"], given["weights_dir"], given["demucs_repo"])
    for difference in replay.differences:
        if not (given["range"] and "--range" in difference):  # those stay
            typer.echo(f"note: {difference}", err=True)
    return replay


def _merge(given: dict[str, Any], changes: dict[str, Any], replay: Replay | None) -> tuple[list[Path], Settings]:
    """Tracks and settings: those of a record or of the family of models, then preset and files, then options."""
    inputs = given["inputs"] or []
    weights = dict(map(options.parse_stem_weight, given["stem_weight"] or []))
    layers = {"preset": given["preset"], "config": given["config"], "assignments": tuple(given["set"] or ())}
    if replay is None:
        if not inputs:
            raise SettingsError("no track was given", hint="w2c-gen song.wav, or w2c-gen --help")
        from wav2clip_gen.models.registry import resolve_family

        asked = settings_from(**layers).merged(changes)
        base = family_settings(resolve_family(asked.run.models, given["weights_dir"]))
        return inputs, settings_from(base, **layers).merged(changes).with_stem_weights(weights)
    base = replace(replay.settings, stem_files=()) if inputs else replay.settings  # another song has other stems
    settings = settings_from(base, **layers).merged(changes)
    if settings.stem_files == base.stem_files:
        settings = settings.with_needed_stem_files()
    return inputs or [replay.source], settings.with_stem_weights(weights)


def _refuse_contradictions(given: dict[str, Any], settings: Settings) -> None:
    """Raise a SettingsError if films are to be skipped that cannot be."""
    if given["skip_existing"] and given["overwrite"]:
        raise SettingsError("--skip-existing and --overwrite contradict each other", hint="leave one of them out")
    if given["skip_existing"] and settings.run.seed is None and "{seed" in (given["out"] or ""):
        raise SettingsError("each film is named after a new seed, so none exists", hint="add --seed, or skip none")


def _refuse_same_names(sources: list[Path], templates: tuple[str | Path | None, ...], settings: Settings) -> None:
    """Raise a SettingsError if two tracks would have the same output."""
    from wav2clip_gen.job import fill

    for template in templates:
        if template and len({fill(template, source, settings) for source in sources}) < len(sources):
            raise SettingsError(f"several tracks cannot all go to {template}", hint="use {stem}: videos/{stem}.mp4")


def _preparation(given: dict[str, Any], replay: Replay | None, original: Original | None) -> Callable[..., Job]:
    """`wav2clip_gen.job.prepare`, or that of a range, with everything but the track and its settings."""
    from wav2clip_gen.job import prepare
    from wav2clip_gen.ranges import prepare_range

    names = ("out", "overwrite", "frames_dir", "weights_dir", "keep_stems", "demucs_repo", "keep_work", "fresh")
    values = {name: given[name] for name in (*names, "storyboard", "cluster")}
    values["workers"] = given["workers"] or "auto"
    if replay:
        values["demucs_repo"] = replay.demucs_repo
    return partial(prepare_range, original, given["range"], **values) if original else partial(prepare, **values)


def _what_is_done(given: dict[str, Any], settings: Settings) -> str:
    """What the last line of several tracks counts."""
    if given["dry_run"]:
        return "tracks checked"
    if given["storyboard"]:
        return "storyboards made"
    return "films made" if settings.picture.layout != "separate" else "tracks filmed"


def _skip_existing(batch: Batch, given: dict[str, Any], settings: Settings) -> dict[Path, Settings]:
    """The settings for each track that is not skipped because its films, or its storyboard, exist."""
    from wav2clip_gen.job import without_existing

    if not given["skip_existing"]:
        return dict.fromkeys(batch.tracks, settings)
    out, storyboard = given["out"], given["storyboard"]
    missing = {track: without_existing(out, track, settings, storyboard=storyboard) for track in batch.tracks}
    batch.skipped = [track for track, left in missing.items() if left is None]
    return {track: left for track, left in missing.items() if left}


def _check(
    batch: Batch, wanted: dict[Path, Settings], prepare: Callable[..., Job], pages: Pages, *, fetch: bool
) -> dict[Path, Job]:
    """Check all tracks before the first is rendered: the jobs of those without an error.

    A job holds no sound, and no track is opened again for its film.
    """
    from wav2clip_gen.job import films

    jobs: dict[Path, Job] = {}
    taken: set[Path] = set()
    for source, settings in wanted.items():
        with batch.attempt(source):
            job = prepare(source, settings=settings, allow_missing_weights=fetch)
            outs = {film.out for film in films(job)}
            if twice := outs & taken:  # as of song.wav and song.vocals.wav with the layout separate
                raise SettingsError(f"two films would be {twice.pop()}", hint="use another --out for one of the tracks")
            pages.check_job(job)
            taken |= outs
            jobs[source] = job
        if batch.interrupted:
            return {}
    return jobs


def _fetch_models(jobs: dict[Path, Job], settings: Settings, weights_dir: Path | None) -> dict[Path, Job]:
    """Download missing weights; gives the jobs with them."""
    from wav2clip_gen.cli.weights import fetch_missing
    from wav2clip_gen.memory import fit
    from wav2clip_gen.models.registry import select_models

    fetch_missing(settings.run, weights_dir)
    fetched = {}
    for source, job in jobs.items():
        selection = select_models(job.settings.run, weights_dir)  # of the family that the settings were made for
        selection.require()
        fitting, lowered = fit(job.settings, selection)  # until now the size of the networks was not known
        fetched[source] = replace(job, selection=selection, settings=fitting, lowered=lowered)
    return fetched


def _make(
    job: Job,
    listener: Listener,
    queue: RenderQueue,
    loader: ModelLoader,
    pages: Pages,
    *,
    place: str,
    dry_run: bool,
) -> None:
    """Make the films, with their pages, or the storyboard of a track, or estimate their cost; paths go to stdout.

    `place`: which of several tracks it is, as in 3/30.
    """
    from wav2clip_gen.cli.interrupt import GentleStop
    from wav2clip_gen.progress import Progress
    from wav2clip_gen.range_render import render_range
    from wav2clip_gen.ranges import RangeJob

    with listener.following(job, place), GentleStop(listener.show) as stop:

        def show(progress: Progress) -> None:
            stop.follow(progress)
            listener.show(progress)

        if dry_run:
            from wav2clip_gen.preview import estimate

            found = estimate(job, on_progress=show)
            listener.show_estimate(job.share(found) if isinstance(job, RangeJob) else found)
        elif job.storyboard:
            from wav2clip_gen.preview import make_storyboard

            storyboard = make_storyboard(job, load=loader, on_progress=show)
            listener.show_storyboard(storyboard)
            listener.print_path(storyboard.path)
        else:
            listener.offer_stop(stop.request)
            ranged = partial(render_range, job, load=loader) if isinstance(job, RangeJob) else None
            for film in (ranged or partial(queue.render, job))(
                stop=stop, on_progress=show, on_picture=listener.show_picture
            ):
                listener.show_film(film)
                listener.print_path(film.path)
                pages.write(film, job, loader, listener, show)
    if stop():
        raise typer.Exit(INTERRUPTED)
