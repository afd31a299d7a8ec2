"""`w2c-gen weights ...`: fetch, convert, list, verify and remove the published models."""

from __future__ import annotations

import json as jsonlib
import time
from collections.abc import Iterable
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from wav2clip_gen.config import RunSettings
    from wav2clip_gen.models.download import Progress
    from wav2clip_gen.models.maintenance import Extra
    from wav2clip_gen.models.manifest import Part
    from wav2clip_gen.models.registry import Status

app = typer.Typer(
    help="The published models. Nothing is fetched unless you ask for it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Precision(str, Enum):
    """How weights are written."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"


Folder = Annotated[
    Path | None,
    typer.Option("--weights-dir", metavar="DIR", help="Folder of weights.", show_default="W2C_WEIGHTS, else a cache"),
]
Names = Annotated[list[str], typer.Argument(metavar="NAME", help="Parts or families, as `list` shows them.")]
Written = Annotated[Precision, typer.Option(help="How the converted weights are written.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace weights that are there.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")]


@app.command("list")
def list_all(
    *,
    weights_dir: Folder = None,
    json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object on stdout.")] = False,
    debug: Debug = False,
) -> None:
    """Show all parts with their role, size, licence and state."""
    from wav2clip_gen.cli import console

    with console.errors_shown(debug=debug):
        from wav2clip_gen.models import maintenance, manifest

        published = manifest.published()
        found = [store.status(part, weights_dir) for part in published.parts.values()]
        extras = maintenance.extras(weights_dir)
        if json:
            content = {"folder": str(store.weights_folder(weights_dir)), "families": published.families}
            lists = {"parts": [_part_fields(one) for one in found], "extras": [_extra_fields(one) for one in extras]}
            typer.echo(jsonlib.dumps({**content, **lists}, indent=2))
            return
        families = [f"{family}: {', '.join(members.values())}" for family, members in published.families.items()]
        notes = [f"{part.name}: {part.note}" for part in published.parts.values() if part.note]
        blocks = [families, map(_part_line, found), map(_extra_line, extras), notes]
        typer.echo("\n\n".join(filter(None, map("\n".join, blocks))))


@app.command()
def fetch(
    names: Names,
    *,
    weights_dir: Folder = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Use no network (or W2C_OFFLINE=1): convert what was copied there.")
    ] = False,
    keep_original: Annotated[
        bool, typer.Option("--keep-original", help="Leave the published file next to the converted one.")
    ] = False,
    precision: Written = Precision.fp32,
    debug: Debug = False,
) -> None:
    """Download parts, check them, and convert them. Run it again after a break: it resumes where it stopped."""
    from wav2clip_gen.cli import console
    from wav2clip_gen.cli.app import INTERRUPTED

    with console.errors_shown(debug=debug):
        from wav2clip_gen.models import manifest

        tags = [name for name in names if "/" in name]  # of open_clip
        wanted: list[Part | str] = [*manifest.expand(*(name for name in names if name not in tags)), *tags]
    code = 0
    for part in wanted:
        try:
            with console.errors_shown(debug=debug):
                if isinstance(part, str):
                    _fetch_tag(part, weights_dir, precision=precision.value, offline=offline)
                else:
                    _fetch_part(
                        part, weights_dir, precision=precision.value, keep_original=keep_original, offline=offline
                    )
        except typer.Exit as left:  # one part that fails does not stop the others
            code = max(code, left.exit_code)
            if left.exit_code == INTERRUPTED:
                break
    raise typer.Exit(code)


@app.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Parts or families; else all that there is.")
    ] = None,
    *,
    weights_dir: Folder = None,
    debug: Debug = False,
) -> None:
    """Read weights to their ends and compare their hashes; exit code 1 when something is damaged."""
    from wav2clip_gen.cli import console

    code = 0
    with console.errors_shown(debug=debug):
        from wav2clip_gen.errors import WeightsError
        from wav2clip_gen.models import maintenance, manifest

        for part in manifest.expand(*(names or manifest.published().parts)):
            if not names and store.status(part, weights_dir).state == "missing":
                continue
            try:
                typer.echo(f"ok  {part.name}: {maintenance.verify(part, weights_dir)}")
            except WeightsError as error:
                code = 1
                typer.echo(f"!!  {error.what}; {error.hint}")
    raise typer.Exit(code)


@app.command()
def path(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A part or a family; else the folder.")] = None,
    *,
    weights_dir: Folder = None,
    debug: Debug = False,
) -> None:
    """Print where weights are; exit code 1 when they are not there."""
    from wav2clip_gen.cli import console

    with console.errors_shown(debug=debug):
        from wav2clip_gen.models import manifest

        if name is None:
            typer.echo(str(store.weights_folder(weights_dir)))
            return
        for part in manifest.expand(name):
            typer.echo(str(store.require_part(part, weights_dir)))


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A published checkpoint, or one of the same structure.")],
    *,
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="The part whose structure it has.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="A .safetensors file.", show_default="the part's place")
    ] = None,
    overwrite: Overwrite = False,
    precision: Written = Precision.fp32,
    weights_dir: Folder = None,
    debug: Debug = False,
) -> None:
    """Convert a checkpoint that you have; its path goes to stdout."""
    from wav2clip_gen.cli import console

    with console.errors_shown(debug=debug):
        from wav2clip_gen.errors import OutputError, WeightsError
        from wav2clip_gen.files import check_output
        from wav2clip_gen.models import manifest

        part = manifest.part(name)
        if part.shipped:
            hint = "name the published part whose structure the checkpoint has"
            raise WeightsError(f"{name} comes with w2c-gen as it is", hint=hint)
        if not file.is_file():
            raise WeightsError(f"{file}: no such file", hint="give the checkpoint to convert")
        if out is None:
            from wav2clip_gen.models.fetch import install

            _refuse_existing(store.locate(part, weights_dir), overwrite, ", or --out")
            out = install(file, part, weights_dir, precision=precision.value)
        else:
            if out.suffix.lower() != ".safetensors":
                raise OutputError(f"{out}: weights are written as safetensors", hint=f"name it {out.stem}.safetensors")
            check_output(out, overwrite=overwrite)
            from wav2clip_gen.models import convert as converter

            converter.convert(file, out, role=part.role, config=dict(part.config), precision=precision.value)
        typer.echo(str(out))


@app.command()
def fake(
    names: Names,
    *,
    seed: Annotated[int, typer.Option(min=0, help="Decides the weights.")] = 0,
    precision: Written = Precision.fp16,
    overwrite: Overwrite = False,
    weights_dir: Folder = None,
    debug: Debug = False,
) -> None:
    """For developers: put networks of published size with RANDOM weights where the real ones belong."""
    from wav2clip_gen.cli import console

    with console.errors_shown(debug=debug):
        from wav2clip_gen.errors import WeightsError
        from wav2clip_gen.models import manifest, random_weights
        from wav2clip_gen.models.lockfile import LockFile

        for part in manifest.expand(*names):
            path = store.locate(part, weights_dir)
            if part.shipped:
                hint = "name a published part: `w2c-gen weights list`"
                raise WeightsError(f"{part.name} comes with w2c-gen", hint=hint)
            _refuse_existing(path, overwrite)
            random_weights.write_random(path, role=part.role, config=part.config, seed=seed, precision=precision.value)
            LockFile(path.parent.parent).forget(part.name)
            typer.echo(str(path))


@app.command()
def remove(
    names: Names,
    *,
    forget: Annotated[
        bool, typer.Option("--forget", help="Forget the hash too that the published file had when it was fetched.")
    ] = False,
    weights_dir: Folder = None,
    debug: Debug = False,
) -> None:
    """Delete weights that were fetched or converted, broken downloads included."""
    from wav2clip_gen.cli import console

    with console.errors_shown(debug=debug):
        from wav2clip_gen.models import maintenance, manifest

        extras = {extra.name: extra for extra in maintenance.extras(weights_dir)}
        parts = manifest.expand(*(name for name in names if name not in extras))  # all are known, or none is deleted
        for part in parts:
            freed = maintenance.remove(part, weights_dir, forget=forget)
            typer.echo(f"{part.name}: {f'{_size(freed)} freed' if freed else 'nothing there'}", err=True)
        for name in dict.fromkeys(name for name in names if name in extras):
            typer.echo(f"{name}: {_size(maintenance.remove_extra(extras[name]))} freed", err=True)


def fetch_missing(run: RunSettings, weights_dir: Path | None) -> None:
    """Fetch what the networks of a render still lack."""
    from wav2clip_gen.models import manifest
    from wav2clip_gen.models.registry import select_models

    for component in select_models(run, weights_dir).components.values():
        if component.name in manifest.published().parts:
            _fetch_part(manifest.part(component.name), weights_dir)
        elif component.name != str(component.path):  # else a file of the user's own
            _fetch_tag(component.name, weights_dir)


def _refuse_existing(path: Path, overwrite: bool, otherwise: str = "") -> None:
    from wav2clip_gen.errors import OutputError

    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists", hint=f"use --overwrite to replace it{otherwise}")


def _fetch_tag(asked: str, weights_dir: Path | None, *, precision: str = "fp32", offline: bool = False) -> None:
    """Let open_clip fetch `ARCHITECTURE/TAG` with its own client and progress."""
    from wav2clip_gen.environment import asked_to_stay_offline
    from wav2clip_gen.errors import WeightsError
    from wav2clip_gen.models.convert import fetch_tag
    from wav2clip_gen.models.registry import tag_file

    if offline or asked_to_stay_offline():
        raise WeightsError(f"{asked} cannot be fetched offline", hint="leave out --offline and W2C_OFFLINE")
    path = tag_file(asked, weights_dir)
    if not path.is_file():
        fetch_tag(asked, path, precision=precision)
    typer.echo(f"{asked}: {path}", err=True)


def _fetch_part(part: Part, weights_dir: Path | None, **options: Any) -> None:
    """Fetch a part and show the progress; Ctrl-C prints how to resume."""
    from wav2clip_gen.cli.app import INTERRUPTED
    from wav2clip_gen.cli.console import stderr
    from wav2clip_gen.models import fetch as fetching

    try:
        (_show_bar if stderr.is_terminal else _show_lines)(fetching.fetch(part, weights_dir, **options))
    except KeyboardInterrupt:
        typer.echo("interrupted: the same command resumes where it stopped", err=True)
        raise typer.Exit(INTERRUPTED) from None


def _show_bar(events: Iterable[Progress]) -> None:
    """A progress bar, for a terminal."""
    from rich import progress

    from wav2clip_gen.cli.console import stderr

    columns = (
        progress.TextColumn("{task.description}"), progress.BarColumn(), progress.DownloadColumn(),
        progress.TransferSpeedColumn(), progress.TimeRemainingColumn(),
    )  # fmt: skip
    with progress.Progress(*columns, console=stderr, transient=True) as bar:
        task = bar.add_task("", total=None, visible=False)
        for event in events:
            if event.message:
                stderr.print(f"{event.part}: {event.message}", markup=False)
            else:
                bar.update(task, description=event.part, total=event.total, completed=event.done, visible=True)


def _show_lines(events: Iterable[Progress]) -> None:
    """Lines some seconds apart, for logs and pipes."""
    from wav2clip_gen.cli.console import INTERVAL, stderr
    from wav2clip_gen.drawing import clock

    shown = time.monotonic()
    for event in events:
        message = event.message
        if not message and (time.monotonic() - shown >= INTERVAL or event.done == event.total):
            shown = time.monotonic()
            of = f" of {event.total / 2**20:.1f}" if event.total else ""
            left = f", {clock((event.total - event.done) / event.rate)} left" if event.total and event.rate else ""
            message = f"{event.done / 2**20:.1f}{of} MiB, {event.rate / 2**20:.1f} MiB/s{left}"
        if message:
            stderr.print(f"{event.part}: {message}", markup=False)


def _part_fields(status: Status) -> dict[str, Any]:
    state = {"state": status.state, "path": str(status.path), "bytes": status.size, "partial": status.partial}
    return {**asdict(status.part), **state}


def _extra_fields(extra: Extra) -> dict[str, Any]:
    about = {"name": extra.name, "role": extra.role, "made_of": extra.made_of}
    return {**about, "path": str(extra.folder), "bytes": extra.size}


def _part_line(status: Status) -> str:
    part, state = status.part, "not converted" if status.state == "fetched" else status.state
    if status.partial:
        state = (
            f"missing ({100 * status.partial / status.size:.0f}%)"
            if status.size
            else f"missing ({_size(status.partial)})"
        )
    return f"{part.name:<17} {part.role:<9} {_size(status.size):>9}  {state:<16}  {part.licence}"


def _extra_line(extra: Extra) -> str:
    source = "open_clip" if extra.made_of == extra.name else extra.made_of
    state = f"from {source}" if source else "damaged"
    return f"{extra.name:<17} {extra.role:<9} {_size(extra.size):>9}  {state}"


def _size(size: int | None) -> str:
    if size is None:
        return "?"
    return f"{size / 2**20:.1f} MiB" if size < 2**30 else f"{size / 2**30:.2f} GiB"
