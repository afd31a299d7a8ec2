"""`w2c-gen weights ...`: fetch, convert, list, verify and remove the published models."""

from __future__ import annotations

import inspect
import json as jsonlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wav2clip_gen.cli import console
from wav2clip_gen.cli.app import INTERRUPTED
from wav2clip_gen.drawing import clock
from wav2clip_gen.environment import asked_to_stay_offline
from wav2clip_gen.errors import OutputError, WeightsError
from wav2clip_gen.files import check_output
from wav2clip_gen.models import manifest, registry, store
from wav2clip_gen.models.manifest import Part

if TYPE_CHECKING:
    from wav2clip_gen.config import RunSettings
    from wav2clip_gen.models.download import Progress

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


def _command(function: Callable[..., object]) -> Callable[..., object]:
    """Register a command under the name of its function, with errors in two lines and the option --debug."""

    def run(*, debug: bool, **given: Any) -> None:
        with console.errors_shown(debug=debug):
            function(**given)

    option = inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug)
    own = inspect.signature(function, eval_str=True).parameters.values()
    run.__signature__ = inspect.Signature([*own, option])  # type: ignore[attr-defined]
    run.__doc__ = function.__doc__
    app.command(function.__name__.strip("_"))(run)
    return function


@_command
def _list(
    *,
    weights_dir: Folder = None,
    json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object on stdout.")] = False,
) -> None:
    """Show all parts with their role, size, licence and state."""
    published = manifest.published()
    found = [store.status(part, weights_dir) for part in published.parts.values()]
    extras = store.extras(weights_dir)
    if json:
        content = {
            "folder": store.weights_folder(weights_dir),
            "families": published.families,
            "parts": [
                {**asdict(one.part), "state": one.state, "path": one.path, "bytes": one.size, "partial": one.partial}
                for one in found
            ],
            "extras": [asdict(extra) for extra in extras],
        }
        typer.echo(jsonlib.dumps(content, indent=2, default=str))
        return
    families = [f"{family}: {', '.join(members.values())}" for family, members in published.families.items()]
    notes = [f"{part.name}: {part.note}" for part in published.parts.values() if part.note]
    lines = [_line(one.part.name, one.part.role, one.size, f"{_state(one):<16}  {one.part.licence}") for one in found]
    others = []
    for extra in extras:
        source = "open_clip" if extra.made_of == extra.name else extra.made_of
        others.append(_line(extra.name, extra.role, extra.bytes, f"from {source}" if source else "damaged"))
    typer.echo("\n\n".join(filter(None, map("\n".join, (families, lines, others, notes)))))


@_command
def fetch(
    context: typer.Context,
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
) -> None:
    """Download parts, check them, and convert them. Run it again after a break: it resumes where it stopped."""
    tags = [name for name in names if "/" in name]  # of open_clip
    code = 0
    wanted: list[Part | str] = [*manifest.expand(*(name for name in names if name not in tags)), *tags]
    for one in wanted:
        try:
            with console.errors_shown(debug=context.params["debug"]):
                if isinstance(one, str):
                    _fetch_tag(one, weights_dir, precision=precision.value, offline=offline)
                else:
                    _fetch_part(
                        one, weights_dir, precision=precision.value, keep_original=keep_original, offline=offline
                    )
        except typer.Exit as left:  # one part that fails does not stop the others
            code = max(code, left.exit_code)
            if left.exit_code == INTERRUPTED:
                break
    raise typer.Exit(code)


@_command
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Parts or families; else all that there is.")
    ] = None,
    *,
    weights_dir: Folder = None,
) -> None:
    """Read weights to their ends and compare their hashes; exit code 1 when something is damaged."""
    code = 0
    for part in manifest.expand(*(names or manifest.published().parts)):
        if names or store.status(part, weights_dir).state != "missing":
            try:
                typer.echo(f"ok  {part.name}: {store.verify(part, weights_dir)}")
            except WeightsError as error:
                code = 1
                typer.echo(f"!!  {error.what}; {error.hint}")
    raise typer.Exit(code)


@_command
def path(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A part or a family; else the folder.")] = None,
    *,
    weights_dir: Folder = None,
) -> None:
    """Print where weights are; exit code 1 when they are not there."""
    if name is None:
        console.print_path(store.weights_folder(weights_dir))
        return
    for part in manifest.expand(name):
        console.print_path(store.require_part(part, weights_dir))


@_command
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
) -> None:
    """Convert a checkpoint that you have; its path goes to stdout."""
    part = _published_part(name)
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
    console.print_path(out)


@_command
def fake(
    names: Names,
    *,
    seed: Annotated[int, typer.Option(min=0, help="Decides the weights.")] = 0,
    precision: Written = Precision.fp16,
    overwrite: Overwrite = False,
    weights_dir: Folder = None,
) -> None:
    """For developers: put networks of published size with RANDOM weights where the real ones belong."""
    from wav2clip_gen.models import checkpoints

    for part in manifest.expand(*names):
        path = store.locate(_published_part(part.name), weights_dir)
        _refuse_existing(path, overwrite)
        checkpoints.write_random(path, role=part.role, config=part.config, seed=seed, precision=precision.value)
        store.record(path.parent.parent, part.name, converted=None)
        console.print_path(path)


@_command
def remove(
    names: Names,
    *,
    forget: Annotated[
        bool, typer.Option("--forget", help="Forget the hash too that the published file had when it was fetched.")
    ] = False,
    weights_dir: Folder = None,
) -> None:
    """Delete weights that were fetched or converted, broken downloads included."""
    extras = {extra.name: extra for extra in store.extras(weights_dir)}
    parts = manifest.expand(*(name for name in names if name not in extras))  # all are known, or none is deleted
    for part in parts:
        freed = store.remove(part, weights_dir, forget=forget)
        typer.echo(f"{part.name}: {f'{_size(freed)} freed' if freed else 'nothing there'}", err=True)
    for name in dict.fromkeys(name for name in names if name in extras):
        store.remove_extra(extras[name])
        typer.echo(f"{name}: {_size(extras[name].bytes)} freed", err=True)


def fetch_missing(run: RunSettings, weights_dir: Path | None) -> None:
    """Fetch what the networks of a render still lack."""
    for component in registry.select_models(run, weights_dir).components.values():
        if component.name in manifest.published().parts:
            _fetch_part(manifest.part(component.name), weights_dir)
        elif component.name != str(component.path):  # else a file of the user's own
            _fetch_tag(component.name, weights_dir)


def _published_part(name: str) -> Part:
    part = manifest.part(name)
    if part.shipped:
        raise WeightsError(f"{name} comes with w2c-gen", hint="name a published part: `w2c-gen weights list`")
    return part


def _refuse_existing(path: Path, overwrite: bool, otherwise: str = "") -> None:
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists", hint=f"use --overwrite to replace it{otherwise}")


def _fetch_tag(asked: str, weights_dir: Path | None, *, precision: str = "fp32", offline: bool = False) -> None:
    """Let open_clip fetch `ARCHITECTURE/TAG` with its own client and progress."""
    from wav2clip_gen.models.convert import fetch_tag

    if offline or asked_to_stay_offline():
        raise WeightsError(f"{asked} cannot be fetched offline", hint="leave out --offline and W2C_OFFLINE")
    path = store.locate_tag(asked, weights_dir)
    if not path.is_file():
        fetch_tag(asked, path, precision=precision)
    typer.echo(f"{asked}: {path}", err=True)


def _fetch_part(part: Part, weights_dir: Path | None, **options: Any) -> None:
    """Fetch a part and show the progress: a bar on a terminal, else lines; Ctrl-C prints how to resume."""
    from wav2clip_gen.models import fetch as fetching

    try:
        events = fetching.fetch(part, weights_dir, **options)
        for line in _show_bar(events, part.name) if console.stderr.is_terminal else _progress_lines(events):
            console.stderr.print(f"{part.name}: {line}", markup=False)
    except KeyboardInterrupt:
        typer.echo("interrupted: the same command resumes where it stopped", err=True)
        raise typer.Exit(INTERRUPTED) from None


def _show_bar(events: Iterable[Progress], name: str) -> Iterator[str]:
    """Draw a progress bar, and yield the messages above it."""
    from rich import progress

    columns = (
        progress.TextColumn("{task.description}"), progress.BarColumn(), progress.DownloadColumn(),
        progress.TransferSpeedColumn(), progress.TimeRemainingColumn(),
    )  # fmt: skip
    with progress.Progress(*columns, console=console.stderr, transient=True) as bar:
        task = bar.add_task(name, total=None, visible=False)
        for event in events:
            if event.message:
                yield event.message
            else:
                bar.update(task, total=event.total, completed=event.done, visible=True)


def _progress_lines(events: Iterable[Progress]) -> Iterator[str]:
    """The messages, and what has arrived, some seconds apart."""
    shown = time.monotonic()
    for event in events:
        if event.message:
            yield event.message
        elif time.monotonic() - shown >= console.INTERVAL or event.done == event.total:
            shown = time.monotonic()
            of = f" of {event.total / 2**20:.1f}" if event.total else ""
            left = f", {clock((event.total - event.done) / event.rate)} left" if event.total and event.rate else ""
            yield f"{event.done / 2**20:.1f}{of} MiB, {event.rate / 2**20:.1f} MiB/s{left}"


def _state(status: store.Status) -> str:
    if status.partial:
        share = f"{100 * status.partial / status.size:.0f}%" if status.size else _size(status.partial)
        return f"missing ({share})"
    return "not converted" if status.state == "fetched" else status.state


def _line(name: str, role: str, size: int | None, state: str) -> str:
    return f"{name:<17} {role:<9} {_size(size):>9}  {state}"


def _size(size: int | None) -> str:
    if size is None:
        return "?"
    return f"{size / 2**20:.1f} MiB" if size < 2**30 else f"{size / 2**30:.2f} GiB"
