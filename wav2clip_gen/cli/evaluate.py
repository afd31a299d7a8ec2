"""`w2c-gen evaluate`: benchmarks of a family as tables on stdout, progress on stderr."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from wav2clip_gen import __version__
from wav2clip_gen.drawing import clock
from wav2clip_gen.errors import SettingsError
from wav2clip_gen.evaluation import suite
from wav2clip_gen.files import appear_whole, check_output

app = typer.Typer(
    add_completion=False, context_settings={"help_option_names": ["-h", "--help"]}, pretty_exceptions_enable=False
)

ONLY_HELP = f"Some measures, separated by commas: {', '.join(suite.MEASURES)}."
WRITE_HELP = "Also write the tables between their comments in a page, such as weights/README.md."


@app.command()
def evaluate(
    family: Annotated[str, typer.Argument(metavar="FAMILY", help="The family of networks.")] = "mini",
    *,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the training data, as weights/README.md describes it.")
    ] = None,
    only: Annotated[str | None, typer.Option(metavar="MEASURES", help=ONLY_HELP)] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Maximum number of pictures, sounds and films.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the selection and of all random numbers.")] = 0,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write the figures as JSON.")
    ] = None,
    write: Annotated[Path | None, typer.Option(metavar="PAGE", help=WRITE_HELP)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.", show_default="one per core")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Measure a family on held-out data, against chance."""
    from wav2clip_gen.cli import console
    from wav2clip_gen.models import registry, store

    with console.errors_shown(debug=debug):
        measures = suite.select_measures(only)
        if data is None:
            raise SettingsError(
                "no data to evaluate on", hint="give its folder with --data; weights/README.md describes it"
            )
        if write:
            suite.fill_sections(write, {f"{registry.resolve_family(family)} {name}": "" for name in measures})
        if json_file:
            check_output(json_file, overwrite=True)

        import torch

        from wav2clip_gen.devices import choose_device

        if threads:
            torch.set_num_threads(threads)
        networks = registry.load_family(family, device=choose_device(device, on_note=partial(typer.echo, err=True)))
        progress, found = console.TaskProgress(), {}

        def show(measure: str, done: int, total: int) -> None:
            if not total:
                typer.echo(f"{measure}: {suite.MEASURES[measure]}", err=True)
            progress(measure, done, total)

        for name, table in suite.evaluate(networks, data, measures=measures, limit=limit, seed=seed, on_progress=show):
            found[name] = table
            typer.echo(f"{name}: took {clock(progress.seconds)}", err=True)
            console.show_table(table)
        digests = {component: store.weights_sha256(path) for component, path in networks.files.items()}
        if write:
            weights = ", ".join(f"{component} {digest[:8]}" for component, digest in digests.items())
            origin = f"Measured by version {__version__}, seed {seed}, on weights {weights} (SHA-256)."
            sections = {
                f"{networks.name} {name}": f"**{table.title}**\n\n{suite.markdown(table)}\n\n{origin}"
                for name, table in found.items()
            }
            _write(write, suite.fill_sections(write, sections))
        if json_file:
            content = {
                "w2c-gen": {"version": __version__},
                "family": {"name": networks.name, "sha256": digests},
                "seed": seed,
                "limit": limit,
                "parts": {name: table.figures for name, table in found.items()},
            }
            _write(json_file, json.dumps(content, indent=1, default=asdict) + "\n")


def _write(path: Path, text: str) -> None:
    with appear_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    typer.echo(f"wrote {path}", err=True)
