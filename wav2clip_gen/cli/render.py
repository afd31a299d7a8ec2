"""The bare form: `w2c-gen song.wav --out film.mp4`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from wav2clip_gen.cli import options
from wav2clip_gen.cli.app import COMMANDS, INTERRUPTED
from wav2clip_gen.config import Prompt, Settings, StyleImage, family_settings, settings_from
from wav2clip_gen.errors import SettingsError

if TYPE_CHECKING:
    import torch

    from wav2clip_gen.cli.console import Listener
    from wav2clip_gen.job import Job
    from wav2clip_gen.models.choice import Choice
    from wav2clip_gen.models.families import Family
    from wav2clip_gen.record import Replay


app = typer.Typer(
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


@dataclass(frozen=True)
class Request:
    """What shall be made of each track."""

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
        """Check all of it for one track; see `wav2clip_gen.job`."""
        from wav2clip_gen.job import prepare

        return prepare(
            source, self.out, self.settings, overwrite=self.overwrite, frames_dir=self.frames_dir,
            weights_dir=self.weights_dir, allow_missing_weights=unfetched, keep_stems=self.keep_stems,
            demucs_repo=self.demucs_repo, storyboard=self.storyboard,
        )  # fmt: skip

    def renew(self, job: Job) -> Job:
        """A job that was prepared unfetched, with the networks that are there by now: what is in them has a say."""
        from wav2clip_gen.models.choice import choose

        networks = choose(job.settings.run, self.weights_dir)
        networks.require()
        return replace(job, selection=networks)


class Loader:
    """Loads networks, once for all tracks that want the same."""

    def __init__(self) -> None:
        self._family: Family | None = None

    def __call__(self, networks: Choice, *, device: torch.device) -> Family:
        """The networks on a device; see `load_choice`."""
        from wav2clip_gen.models.families import load_choice

        if self._family is None or (self._family.selection, self._family.device) != (networks, device):
            self._family = load_choice(networks, device=device)
        return self._family


EPILOG = "\n\n".join(  # which Typer makes one line each
    ["Other commands:", *(f"[bold]w2c-gen {word:<8}[/] {what}" for word, what in COMMANDS.items())]
)


@app.command(epilog=EPILOG)
def render(
    *,
    inputs: options.Inputs = None,
    out: options.Out = None,
    overwrite: options.Overwrite = False,
    frames_dir: options.FramesDir = None,
    upscale: options.Upscale = None,
    start: options.Start = None,
    duration: options.Duration = None,
    window: options.Window = None,
    hop: options.Hop = None,
    stems: options.Stems = None,
    stem_file: options.StemFiles = None,
    stem_weight: options.StemWeights = None,
    separator: options.Separator = None,
    demucs_repo: options.DemucsRepo = None,
    keep_stems: options.KeepStems = None,
    layout: options.Layout = None,
    prompt: options.Prompts = None,
    prompt_files: options.PromptFiles = None,
    audio_weight: options.AudioWeight = None,
    crossfade: options.Crossfade = None,
    style_image: options.StyleImages = None,
    init_image: options.InitImage = None,
    init_weight: options.InitWeight = None,
    size: options.Size = None,
    fps: options.Fps = None,
    steps: options.Steps = None,
    first_steps: options.FirstSteps = None,
    cuts: options.Cuts = None,
    cut_batch: options.CutBatch = None,
    learning_rate: options.LearningRate = None,
    smoothing: options.Smoothing = None,
    temporal_weight: options.Inertia = None,
    ema_half_life: options.Blend = None,
    scenes: options.Scenes = None,
    zoom: options.Zoom = None,
    pan_x: options.PanX = None,
    pan_y: options.PanY = None,
    rotate: options.Rotate = None,
    border: options.Border = None,
    maps: options.Maps = None,
    models: options.Models = None,
    perceptor: options.Perceptor = None,
    vqgan: options.VQGAN = None,
    weights_dir: options.WeightsDir = None,
    fetch: options.Fetch = False,
    seed: options.Seed = None,
    device: options.Device = None,
    precision: options.Precision = None,
    preset: options.Preset = None,
    config: options.Config = None,
    assignments: options.Assignments = None,
    from_record: options.FromRecord = None,
    storyboard: options.Storyboard = False,
    dry_run: options.DryRun = False,
    progress: options.ProgressKind = None,
    debug: options.Debug = False,
    version: options.Version = False,
) -> None:
    """Sound in, film out: paint what a track sounds like.

    Wav2CLIP hears each moment of the track, and VQGAN-CLIP paints it, frame by frame.
    """
    from wav2clip_gen.cli import console

    changes = {
        "sound": {"start": start, "duration": duration, "window": window, "hop": hop, "weight": audio_weight,
            "separator": separator},
        "picture": {"width": size and size[0], "height": size and size[1], "fps": fps, "upscale": upscale,
            "layout": layout},
        "painting": {"steps": steps, "first_steps": first_steps, "cuts": cuts, "cut_batch": cut_batch,
            "learning_rate": learning_rate, "init_image": init_image, "init_weight": init_weight},
        "motion": {"smoothing": smoothing, "temporal_weight": temporal_weight, "ema_half_life": ema_half_life, "crossfade": crossfade,
            "scenes": scenes, "zoom": zoom, "pan_x": pan_x, "pan_y": pan_y, "rotate": rotate, "border": border},
        "run": {"models": models, "perceptor": perceptor, "vqgan": vqgan, "seed": seed, "device": device,
            "precision": precision},
    }  # fmt: skip
    with console.errors_shown(debug=debug):
        layers = {"preset": preset, "config": config, "assignments": tuple(assignments or ())}
        pulls = _given(changes, prompt or [], prompt_files or [], style_image or [])
        given = {**pulls, **options.given_stems(stems, stem_file), **({"maps": maps} if maps else {})}
        again = _read_again(from_record, weights_dir, demucs_repo)
        sources, settings = _collect(inputs or [], again, layers, given, weights_dir)
        settings = settings.with_stem_weights(dict(stem_weight or []))
        _refuse_same_names(sources, (out or "{stem}.mp4", frames_dir, keep_stems), settings)
        request = Request(
            settings, out, overwrite, frames_dir, keep_stems, again.demucs_repo if again else demucs_repo, dry_run,
            storyboard, weights_dir,
        )  # fmt: skip
        ready: dict[Path, Job] = {}
        if fetch:
            from wav2clip_gen.cli.weights import fetch_missing

            for source in sources:  # what cannot become a film is not worth a gigabyte
                ready[source] = request.prepare(source, unfetched=True)
            fetch_missing(settings.run, weights_dir)
    listener, loader = console.listener(progress.value if progress else None), Loader()
    code = 0
    for source in sources:
        try:
            with console.errors_shown(debug=debug):
                job = request.renew(ready.pop(source)) if source in ready else request.prepare(source)
                _make(job, request, listener, loader)
        except typer.Exit as left:  # one track that fails does not stop the others
            code = max(code, left.exit_code)
            if left.exit_code == INTERRUPTED:
                break
    raise typer.Exit(code)


def _read_again(path: Path | None, weights_dir: Path | None, demucs_repo: Path | None) -> Replay | None:
    """What a run record says, if one is given; what is no longer as it was is told."""
    if path is None:
        return None
    from wav2clip_gen import record

    again = record.read(path, weights_dir, demucs_repo)
    for difference in again.differences:
        typer.echo(f"note: {difference}", err=True)
    return again


def _collect(
    inputs: list[Path],
    again: Replay | None,
    layers: dict[str, Any],
    given: dict[str, Any],
    weights_dir: Path | None,
) -> tuple[list[Path], Settings]:
    """Tracks and settings: from a record or the family's own, then presets and files, then options."""
    if again is None:
        if not inputs:
            raise SettingsError("no track was given", hint="w2c-gen song.wav, or w2c-gen --help")
        from wav2clip_gen.models import store

        asked = settings_from(**layers).merged(given)
        base = family_settings(store.resolve(asked.run.models, weights_dir))
        return inputs, settings_from(base, **layers).merged(given)
    base = replace(again.settings, stem_files=()) if inputs else again.settings  # another song has other stems
    settings = settings_from(base, **layers).merged(given)
    if settings.stem_files == base.stem_files:
        needed = tuple(file for file in base.stem_files if file.partition("=")[0] in settings.required_stems)
        settings = replace(settings, stem_files=needed)
    return inputs or [again.source], settings


def _given(
    changes: dict[str, dict[str, Any]], written: list[str], files: list[Path], styles: list[str]
) -> dict[str, Any]:
    """The options that were given, without those that were not; words of files and of options together."""
    from wav2clip_gen.prompts import read_prompts

    prompts = [*(prompt for path in files for prompt in read_prompts(path)), *map(Prompt.parse, written)]
    pulls = {"prompts": prompts, "style_images": list(map(StyleImage.parse, styles))}
    return {**options.given(changes), **{name: values for name, values in pulls.items() if values}}


def _refuse_same_names(sources: list[Path], templates: tuple[str | Path | None, ...], settings: Settings) -> None:
    """Raise a SettingsError where two tracks would go to the same place."""
    from wav2clip_gen.job import fill

    for template in templates:
        if template and len({fill(template, source, settings) for source in sources}) < len(sources):
            raise SettingsError(f"several tracks cannot all go to {template}", hint="use {stem}: films/{stem}.mp4")


def _make(job: Job, request: Request, listener: Listener, loader: Loader) -> None:
    """Make the films or the storyboard of a track, or estimate their cost; paths go to stdout."""
    from wav2clip_gen.cli.interrupt import GentleStop
    from wav2clip_gen.pipeline import render_job
    from wav2clip_gen.progress import Progress

    with listener.following(job), GentleStop() as stop:

        def show(progress: Progress) -> None:
            stop.follow(progress)
            listener.show(progress)

        if request.dry_run:
            from wav2clip_gen.preview import estimate

            listener.show_estimate(estimate(job, on_progress=show))
        elif job.storyboard:
            from wav2clip_gen.preview import make_storyboard

            typer.echo(make_storyboard(job, load=loader, on_progress=show).path)
        else:
            for film in render_job(job, load=loader, stop=stop, on_progress=show):
                listener.show_film(film)
                typer.echo(film.path)
    if stop():
        raise typer.Exit(INTERRUPTED)
