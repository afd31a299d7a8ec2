"""`w2c-gen report film.mp4`: a page for a finished film."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from wav2clip_gen.cli import options
from wav2clip_gen.cli.batch import Batch
from wav2clip_gen.errors import SettingsError

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

FILMS = typer.Argument(metavar="FILM", help="Films, or their run records.")
OUT_HELP = "The page [dim](default: the film's name, as .html)[/]"
PANEL = {"rich_help_panel": "Output"}


@app.command(cls=options.Command)
@options.with_options("embed", "overwrite", "weights_dir", "device", "debug", inputs=FILMS)
def report(
    *,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help=OUT_HELP, **PANEL)] = None,
    no_labels: Annotated[
        bool, typer.Option("--no-labels", help="Do not label sections, which needs the networks.", **PANEL)
    ] = False,
    **shared: Any,
) -> None:
    """Write a page for a finished film: picture, waveform, onsets, sections, labels, prompts and settings over time.

    The page is one file that needs no network. It shows what the run record next to the film tells, and measures the
    song again; without a record it shows what can be measured.
    """
    from wav2clip_gen.cli import console
    from wav2clip_gen.cli.render import ModelLoader
    from wav2clip_gen.report import write_report

    films: list[Path] = shared["inputs"] or []
    with console.errors_shown(debug=shared["debug"]):
        if not films:
            raise SettingsError("no film was given", hint="w2c-gen report film.mp4, or w2c-gen report --help")
        if out and len(films) > 1:
            raise SettingsError(f"several pages cannot all go to {out}", hint="leave out --out")
    listener, loader = console.PlainListener(), ModelLoader()
    batch = Batch(films, "pages written", shared["debug"])
    for film in films:
        with batch.attempt(film):
            page = write_report(
                film,
                out,
                embed=shared["embed"],
                overwrite=shared["overwrite"],
                load=None if no_labels else loader,
                weights_dir=shared["weights_dir"],
                device=shared["device"] or "auto",
                on_progress=listener.show,
            )
            console.print_path(page)
            batch.made.append(film)
        if batch.interrupted:
            break
    listener.show_batch(batch)
    raise typer.Exit(batch.code)
