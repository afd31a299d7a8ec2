"""The bare form: `w2c-gen song.wav --out video.mp4`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from wav2clip_gen.cli import options
from wav2clip_gen.cli.app import COMMANDS, INTERRUPTED
from wav2clip_gen.config import Settings, family_settings, settings_from
from wav2clip_gen.errors import SettingsError

if TYPE_CHECKING:
    import torch

    from wav2clip_gen.cli.console import Listener
    from wav2clip_gen.job import Job
    from wav2clip_gen.models.choice import Choice
    from wav2clip_gen.models.families import Family
    from wav2clip_gen.record import Again


app = typer.Typer(
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


@dataclass(frozen=True)
class RenderRequest:
    """What is made of each track."""

    settings: Settings
    out: str | None
    overwrite: bool
    frames_dir: Path | None
    keep_stems: Path | None
    demucs_repo: Path | None
    dry_run: bool
    storyboard: bool
    weights_dir: Path | None

    def prepare(self, source: Path, *, unfetched: bool = False) -> Job:
        """Check everything for one track; see `wav2clip_gen.job`."""
        from wav2clip_gen.job import prepare

        return prepare(
            source, self.out, self.settings, overwrite=self.overwrite, frames_dir=self.frames_dir,
            weights_dir=self.weights_dir, unfetched=unfetched, keep_stems=self.keep_stems,
            demucs_repo=self.demucs_repo, storyboard=self.storyboard,
        )  # fmt: skip

    def with_fetched_models(self, job: Job) -> Job:
        """A job that was prepared before its weights were downloaded, with the models that are now available."""
        from wav2clip_gen.models.choice import choose

        networks = choose(job.settings.run, self.weights_dir)
        networks.require()
        return replace(job, networks=networks)


class ModelLoader:
    """Loads models, once for all tracks that need the same."""

    def __init__(self) -> None:
        self._family: Family | None = None

    def __call__(self, networks: Choice, *, device: torch.device) -> Family:
        """The models on a device; see `load_choice`."""
        from wav2clip_gen.models.families import load_choice

        if self._family is None or (self._family.choice, self._family.device) != (networks, device):
            self._family = load_choice(networks, device=device)
        return self._family


EPILOG = "\n\n".join(  # Typer shows each paragraph as a line
    ["Other commands:", *(f"[bold]w2c-gen {word:<8}[/] {what}" for word, what in COMMANDS.items())]
)


@app.command(epilog=EPILOG)
@options.with_options(*options.OPTIONS, everyday=True)
def render(**given: Any) -> None:
    """Generate a music video from audio.

    Wav2CLIP embeds each moment of the track in CLIP's space, and VQGAN-CLIP optimizes each frame towards the embedding.
    """
    from wav2clip_gen.cli import console

    debug, progress = given["debug"], given["progress"]
    with console.errors_shown(debug=debug):
        with options.deprecations_shown():
            sources, request = _read_request(given)
        fetched = _fetch_models(sources, request) if given["fetch"] else {}
    listener, loader = console.listener(progress.value if progress else None), ModelLoader()
    code = 0
    for source in sources:
        try:
            with console.errors_shown(debug=debug):
                prepared = fetched.get(source)
                job = request.with_fetched_models(prepared) if prepared else request.prepare(source)
                _make(job, request, listener, loader)
        except typer.Exit as error:  # the other tracks are still rendered
            code = max(code, error.exit_code)
            if error.exit_code == INTERRUPTED:
                break
    raise typer.Exit(code)


def _read_request(given: dict[str, Any]) -> tuple[list[Path], RenderRequest]:
    """The tracks, and what is made of each."""
    replay = _read_record(given)
    sources, settings = _merge(given, replay)
    settings = settings.with_stem_weights(dict(given["stem_weight"] or []))
    _refuse_same_names(sources, (given["out"] or "{stem}.mp4", given["frames_dir"], given["keep_stems"]), settings)
    names = ("out", "overwrite", "frames_dir", "keep_stems", "demucs_repo", "dry_run", "storyboard", "weights_dir")
    values = {name: given[name] for name in names}
    if replay:
        values["demucs_repo"] = replay.demucs_repo
    return sources, RenderRequest(settings=settings, **values)


def _read_record(given: dict[str, Any]) -> Again | None:
    """The run record, if one is given; differences between then and now are reported."""
    if given["from_record"] is None:
        return None
    from wav2clip_gen import record

    replay = record.read(given["from_record"], given["weights_dir"], given["demucs_repo"])
    for difference in replay.differences:
        typer.echo(f"note: {difference}", err=True)
    return replay


def _merge(given: dict[str, Any], replay: Again | None) -> tuple[list[Path], Settings]:
    """Tracks and settings: those of a record or of the family of models, then preset and files, then options."""
    inputs, changes = given["inputs"] or [], options.settings_given(given)
    layers = {"preset": given["preset"], "config": given["config"], "assignments": tuple(given["set"] or ())}
    if replay is None:
        if not inputs:
            raise SettingsError("no track was given", hint="w2c-gen song.wav, or w2c-gen --help")
        from wav2clip_gen.models import store

        asked = settings_from(**layers).merged(changes)
        base = family_settings(store.resolve(asked.run.models, given["weights_dir"]))
        return inputs, settings_from(base, **layers).merged(changes)
    base = replace(replay.settings, stem_files=()) if inputs else replay.settings  # another song has other stems
    settings = settings_from(base, **layers).merged(changes)
    if settings.stem_files == base.stem_files:
        needed = tuple(file for file in base.stem_files if file.partition("=")[0] in settings.required_stems)
        settings = replace(settings, stem_files=needed)
    return inputs or [replay.track], settings


def _refuse_same_names(sources: list[Path], templates: tuple[str | Path | None, ...], settings: Settings) -> None:
    """Raise a SettingsError if two tracks would have the same output."""
    from wav2clip_gen.job import fill

    for template in templates:
        if template and len({fill(template, source, settings) for source in sources}) < len(sources):
            raise SettingsError(f"several tracks cannot all go to {template}", hint="use {stem}: videos/{stem}.mp4")


def _fetch_models(sources: list[Path], request: RenderRequest) -> dict[Path, Job]:
    """Download missing weights, after everything else has been checked for each track."""
    from wav2clip_gen.cli.weights import fetch_missing

    jobs = {source: request.prepare(source, unfetched=True) for source in sources}
    fetch_missing(request.settings.run, request.weights_dir)
    return jobs


def _make(job: Job, request: RenderRequest, listener: Listener, loader: ModelLoader) -> None:
    """Make all outputs of a track, or estimate what they cost; paths go to stdout."""
    from wav2clip_gen.job import films

    if request.dry_run:
        from wav2clip_gen.estimate import estimate

        with listener.following(job):
            listener.estimated(estimate(job))
        return
    for film in films(job):
        _make_one(film, listener, loader)


def _make_one(job: Job, listener: Listener, loader: ModelLoader) -> None:
    """Make one video or storyboard."""
    from wav2clip_gen.cli.interrupt import GentleStop
    from wav2clip_gen.events import Finished
    from wav2clip_gen.pipeline import rendering
    from wav2clip_gen.storyboard import storyboarding

    with listener.following(job), GentleStop() as stop:
        if job.storyboard:
            events = storyboarding(job, load=loader, on_separation=listener.separated)
        else:
            events = rendering(job, load=loader, stop=stop, on_separation=listener.separated)
        for event in events:
            stop.follow(event)
            listener.show(event)
    typer.echo(event.film.path if isinstance(event, Finished) else job.out)
    if stop():
        raise typer.Exit(INTERRUPTED)
