"""`w2c-gen evaluate`: what a family is worth, in tables on stdout; progress goes to stderr."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wav2clip_gen import __version__
from wav2clip_gen.drawing import clock
from wav2clip_gen.errors import SettingsError
from wav2clip_gen.evaluation import parts as parts_of
from wav2clip_gen.evaluation import tables
from wav2clip_gen.files import appear_whole, check_output

if TYPE_CHECKING:
    from wav2clip_gen.evaluation.tables import Figures
    from wav2clip_gen.models.registry import Models

app = typer.Typer(
    add_completion=False, context_settings={"help_option_names": ["-h", "--help"]}, pretty_exceptions_enable=False
)

EVERY = 5.0  # seconds between two lines of progress


@app.command()
def evaluate(
    family: Annotated[str, typer.Argument(metavar="FAMILY", help="The family of networks.")] = "mini",
    *,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the training data, as weights/README.md describes it.")
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(metavar="PARTS", help=f"Some parts, with commas between: {', '.join(parts_of.PARTS)}."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Pictures, sounds and films at most, of each kind.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides which, and all that is drawn.")] = 0,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write the figures as JSON.")
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(metavar="PAGE", help="Also put the tables between their comments in a page: weights/README.md."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.", show_default="one per core")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
) -> None:
    """Measure what a family is worth on data it was not trained on, against chance."""
    from wav2clip_gen.cli import console
    from wav2clip_gen.models import registry

    with console.errors_shown(debug=debug):
        parts = parts_of.chosen_parts(only)
        if data is None:
            raise SettingsError(
                "no data to evaluate on", hint="give its folder with --data; weights/README.md describes it"
            )
        if write:
            tables.check_sections(write, [f"{registry.resolve_family(family)} {part}" for part in parts])
        if json_file:
            check_output(json_file, overwrite=True)

        import torch

        from wav2clip_gen.evaluation import suite
        from wav2clip_gen.models.registry import choose_device, load_family

        if threads:
            torch.set_num_threads(threads)
        networks = load_family(family, device=choose_device(device))
        found = suite.evaluate(networks, data, parts=parts, limit=limit, seed=seed, on_event=_Teller())
        if write:
            _write_page(write, found, networks, seed=seed)
        if json_file:
            _write_json(json_file, found, networks, {"seed": seed, "limit": limit})


class _Teller:
    """Shows a table as soon as it is measured, and says on stderr how far the next one is."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def __call__(self, event: parts_of.Event) -> None:
        from wav2clip_gen.cli import console

        if isinstance(event, parts_of.Began):
            typer.echo(f"{event.part}: {parts_of.PARTS[event.part]}", err=True)
        elif isinstance(event, parts_of.Measured):
            typer.echo(f"{event.part}: took {clock(event.seconds)}", err=True)
            console.show_table(event.figures.table())
        elif event.done == event.total or time.monotonic() - self._told >= EVERY:
            self._told = time.monotonic()
            typer.echo(f"{event.part}: {event.done}/{event.total}", err=True)


def _write_page(path: Path, found: dict[str, Figures], family: Models, *, seed: int) -> None:
    """Put each table into its section, with what it was measured on."""
    weights = ", ".join(f"{part} {digest[:8]}" for part, digest in _digests(family).items())
    by = f"Measured by version {__version__}, seed {seed}, on weights {weights} (SHA-256)."
    shown = {part: figures.table() for part, figures in found.items()}
    sections = {
        f"{family.name} {part}": f"**{table.title}**\n\n{tables.markdown(table)}\n\n{by}"
        for part, table in shown.items()
    }
    tables.write_sections(path, sections)
    typer.echo(f"wrote {path}", err=True)


def _write_json(path: Path, found: dict[str, Figures], family: Models, about: dict[str, Any]) -> None:
    content = {
        "w2c-gen": {"version": __version__},
        "family": {"name": family.name, "sha256": _digests(family)},
        **about,
        "parts": {part: asdict(figures) for part, figures in found.items()},  # type: ignore[call-overload]
    }
    with appear_whole(path) as part:
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    typer.echo(f"wrote {path}", err=True)


def _digests(family: Models) -> dict[str, str]:
    from wav2clip_gen.models import registry

    return {part: registry.weights_sha256(path) for part, path in family.files.items()}
