"""The bare form: `w2c-gen song.wav --out film.mp4`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wav2clip_gen.cli.app import COMMANDS, INTERRUPTED
from wav2clip_gen.cli.options import knob_option, parse_seconds, parse_size, show_version
from wav2clip_gen.configuration import preset_names, settings_from
from wav2clip_gen.errors import SettingsError
from wav2clip_gen.settings import Motion, Painting, Picture, Run, Settings, Sound

if TYPE_CHECKING:
    from wav2clip_gen.cli.console import Listener


app = typer.Typer(
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


class Progress(str, Enum):
    """How progress is told on stderr."""

    bar = "bar"
    plain = "plain"
    json = "json"
    none = "none"


@dataclass(frozen=True)
class Request:
    """What shall be made of each track."""

    settings: Settings
    out: str | None
    overwrite: bool
    frames_dir: Path | None
    dry_run: bool


EPILOG = "Other commands: " + " · ".join(f"[bold]w2c-gen {word}[/] ({what})" for word, what in COMMANDS.items())


@app.command(epilog=EPILOG)
def render(
    *,
    inputs: Annotated[
        list[Path] | None, typer.Argument(metavar="INPUT...", help="Sound files, or videos whose sound is taken.")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILM",
            rich_help_panel="Output",
            help="The film; {stem} and {seed} are filled in: films/{stem}_{seed}.mp4 [dim](default {stem}.mp4)[/]",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", rich_help_panel="Output", help="Replace an older film.")
    ] = False,
    frames_dir: Annotated[
        Path | None,
        typer.Option("--frames-dir", metavar="DIR", rich_help_panel="Output", help="Also keep the pictures, as PNG."),
    ] = None,
    upscale: Annotated[int | None, knob_option(Picture, "upscale", "--upscale", panel="Output")] = None,
    start: Annotated[
        float | None, knob_option(Sound, "start", "--start", panel="Sound", parser=parse_seconds, metavar="TIME")
    ] = None,
    duration: Annotated[
        float | None, knob_option(Sound, "duration", "--duration", panel="Sound", parser=parse_seconds, metavar="TIME")
    ] = None,
    window: Annotated[float | None, knob_option(Sound, "window", "--window", panel="Sound")] = None,
    hop: Annotated[float | None, knob_option(Sound, "hop", "--hop", panel="Sound")] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt",
            "-p",
            metavar="TEXT[:WEIGHT]",
            rich_help_panel="Picture",
            help="Words that pull the picture too, for the whole film; repeatable.",
        ),
    ] = None,
    size: Annotated[
        Any,
        typer.Option(
            "--size",
            "-s",
            metavar="WxH",
            parser=parse_size,
            rich_help_panel="Picture",
            help="Painted size, in multiples of the latent's cell "
            f"[dim](px; default {Picture.width}x{Picture.height})[/]",
        ),
    ] = None,
    fps: Annotated[float | None, knob_option(Picture, "fps", "--fps", panel="Picture")] = None,
    steps: Annotated[int | None, knob_option(Painting, "steps", "--steps", panel="Painting")] = None,
    first_steps: Annotated[int | None, knob_option(Painting, "first_steps", "--first-steps", panel="Painting")] = None,
    cuts: Annotated[int | None, knob_option(Painting, "cuts", "--cuts", panel="Painting")] = None,
    learning_rate: Annotated[
        float | None, knob_option(Painting, "learning_rate", "--learning-rate", panel="Painting")
    ] = None,
    smoothing: Annotated[float | None, knob_option(Motion, "smoothing", "--smoothing", panel="Motion")] = None,
    inertia: Annotated[float | None, knob_option(Motion, "inertia", "--inertia", panel="Motion")] = None,
    blend: Annotated[float | None, knob_option(Motion, "blend", "--blend", panel="Motion")] = None,
    models: Annotated[str | None, knob_option(Run, "models", "--models", panel="Run")] = None,
    seed: Annotated[int | None, knob_option(Run, "seed", "--seed", panel="Run")] = None,
    device: Annotated[str | None, knob_option(Run, "device", "--device", panel="Run")] = None,
    precision: Annotated[str | None, knob_option(Run, "precision", "--precision", panel="Run")] = None,
    preset: Annotated[
        str | None,
        typer.Option("--preset", rich_help_panel="Settings", help=f"A set of settings: {', '.join(preset_names())}."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", rich_help_panel="Settings", help="A YAML file of settings."),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            rich_help_panel="Settings",
            help="Any setting by its name, as in painting.steps=8; repeatable.",
        ),
    ] = None,
    from_record: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="RECORD",
            rich_help_panel="Settings",
            help="Start from the run record (JSON) of a film, seed included: the same film again.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", rich_help_panel="Run", help="Check everything, tell the plan and the time; make nothing."
        ),
    ] = False,
    progress: Annotated[
        Progress | None,
        typer.Option(
            "--progress",
            rich_help_panel="Run",
            help="How progress is told on stderr [dim](default: bar in a terminal, else plain)[/]",
        ),
    ] = None,
    debug: Annotated[
        bool, typer.Option("--debug", rich_help_panel="Run", help="Show where an error comes from.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Sound in, film out: paint what a track sounds like.

    Wav2CLIP hears each moment of the track, and VQGAN-CLIP paints it, frame by frame.
    """
    from wav2clip_gen.cli import console

    changes = {
        "sound": {"start": start, "duration": duration, "window": window, "hop": hop},
        "picture": {"width": size and size[0], "height": size and size[1], "fps": fps, "upscale": upscale},
        "painting": {"steps": steps, "first_steps": first_steps, "cuts": cuts, "learning_rate": learning_rate},
        "motion": {"smoothing": smoothing, "inertia": inertia, "blend": blend},
        "run": {"models": models, "seed": seed, "device": device, "precision": precision},
    }  # fmt: skip
    with console.errors_shown(debug=debug):
        sources, settings = _collect(inputs or [], from_record, preset, config, tuple(assignments or ()))
        settings = settings.merged(_given(changes, prompt))
        _refuse_same_names(sources, (out or "{stem}.mp4", frames_dir), settings)
    request = Request(settings, out, overwrite, frames_dir, dry_run)
    listener = console.listener(progress.value if progress else None)
    code = 0
    for source in sources:
        try:
            with console.errors_shown(debug=debug):
                _make(source, request, listener)
        except typer.Exit as left:  # one track that fails does not stop the others
            code = max(code, left.exit_code)
            if left.exit_code == INTERRUPTED:
                break
    raise typer.Exit(code)


def _collect(
    inputs: list[Path], from_record: Path | None, preset: str | None, config: Path | None, assignments: tuple[str, ...]
) -> tuple[list[Path], Settings]:
    """Tracks and settings, from a record or from presets and files."""
    if from_record is None:
        if not inputs:
            raise SettingsError("no track was given", hint="w2c-gen song.wav, or w2c-gen --help")
        return inputs, settings_from(preset=preset, config=config, assignments=assignments)
    from wav2clip_gen import record

    again = record.read(from_record)
    for difference in again.differences:
        typer.echo(f"note: {difference}", err=True)
    settings = settings_from(again.settings, preset=preset, config=config, assignments=assignments)
    return inputs or [again.track], settings


def _given(changes: dict[str, dict[str, Any]], prompts: list[str] | None) -> dict[str, Any]:
    """The options that were given, without those that were not."""
    given: dict[str, Any] = {
        group: {name: value for name, value in values.items() if value is not None} for group, values in changes.items()
    }
    return {**given, "prompts": prompts} if prompts else given


def _refuse_same_names(sources: list[Path], templates: tuple[str | Path | None, ...], settings: Settings) -> None:
    """Raise a SettingsError where two tracks would go to the same place."""
    from wav2clip_gen.job import fill

    for template in templates:
        if template and len({fill(template, source, settings) for source in sources}) < len(sources):
            raise SettingsError(f"several tracks cannot all go to {template}", hint="use {stem}: films/{stem}.mp4")


def _make(source: Path, request: Request, listener: Listener) -> None:
    """Make one film, or tell what it would cost; its path goes to stdout."""
    from wav2clip_gen.cli.interrupt import GentleStop
    from wav2clip_gen.events import Finished
    from wav2clip_gen.job import prepare
    from wav2clip_gen.pipeline import rendering

    job = prepare(source, request.out, request.settings, overwrite=request.overwrite, frames_dir=request.frames_dir)
    with listener.following(job):
        if request.dry_run:
            from wav2clip_gen.estimate import estimate

            listener.estimated(estimate(job))
            return
        with GentleStop() as stop:
            for event in rendering(job, stop=stop):
                stop.follow(event)
                listener.show(event)
    if isinstance(event, Finished):  # it always is, unless there was an error
        typer.echo(event.film.path)
        if stop():
            raise typer.Exit(INTERRUPTED)
