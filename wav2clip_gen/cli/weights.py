"""`w2c-gen weights ...`: the published models, listed, fetched, checked and removed."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from wav2clip_gen.models.fetch import Event
    from wav2clip_gen.models.manifest import Part
    from wav2clip_gen.models.store import Status
    from wav2clip_gen.settings import Run

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
Debug = Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")]


@app.command("list")
def list_parts(
    *,
    weights_dir: Folder = None,
    json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object on stdout.")] = False,
    debug: Debug = False,
) -> None:
    """Show all parts with what they do, their size, their licence, and what there is of them."""
    from wav2clip_gen.cli import console

    with console.errors_shown(debug=debug):
        from wav2clip_gen.models import manifest, store

        published = manifest.published()
        found = [store.status(part, weights_dir) for part in published.parts.values()]
        if json:
            import json as writer

            content = {"folder": str(weights_dir or store.weights_folder()), "families": published.families}
            typer.echo(writer.dumps({**content, "parts": [_fields(one) for one in found]}, indent=2))
            return
        families = [f"{family}: {', '.join(members.values())}" for family, members in published.families.items()]
        notes = [f"{part.name}: {part.note}" for part in published.parts.values() if part.note]
        typer.echo("\n".join([*families, "", *map(_line, found), "", *notes]))


@app.command()
def fetch(
    names: Names,
    *,
    weights_dir: Folder = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Use no network (or W2C_OFFLINE=1): convert what was copied there.")
    ] = False,
    keep_original: Annotated[
        bool, typer.Option("--keep-original", help="Leave the published file beside the converted one.")
    ] = False,
    precision: Written = Precision.fp32,
    debug: Debug = False,
) -> None:
    """Download parts, check them, and convert them. Again, after a break: it goes on where it stopped."""
    from wav2clip_gen.cli import console
    from wav2clip_gen.cli.app import INTERRUPTED

    with console.errors_shown(debug=debug):
        tags = [name for name in names if "/" in name]  # of open_clip
        wanted: list[Part | str] = [*_parts([name for name in names if name not in tags]), *tags]
    code = 0
    for part in wanted:
        try:
            with console.errors_shown(debug=debug):
                if isinstance(part, str):
                    _fetch_tag(part, weights_dir, precision=precision.value, offline=offline)
                    continue
                from wav2clip_gen.models import fetch as fetching

                _follow(
                    fetching.fetch(
                        part, weights_dir, precision=precision.value, keep_original=keep_original, offline=offline
                    )
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
        from wav2clip_gen.models import manifest, store, upkeep

        parts = _parts(names) if names else list(manifest.published().parts.values())
        for part in parts:
            if not names and store.status(part, weights_dir).state == "missing":
                continue
            try:
                typer.echo(f"ok  {part.name}: {upkeep.verify(part, weights_dir)}")
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
    """Print where weights lie; exit code 1 when they are not there."""
    from wav2clip_gen.cli import console

    with console.errors_shown(debug=debug):
        from wav2clip_gen.models import store

        if name is None:
            typer.echo(str(weights_dir or store.weights_folder()))
            return
        for part in _parts([name]):
            typer.echo(str(store.find_part(part.name, weights_dir)))


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A published checkpoint, or one of the same structure.")],
    *,
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="The part whose structure it has.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="A .safetensors file.", show_default="the part's place")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace weights that are there.")] = False,
    precision: Written = Precision.fp32,
    weights_dir: Folder = None,
    debug: Debug = False,
) -> None:
    """Convert a checkpoint that you have; its path goes to stdout."""
    from wav2clip_gen.cli import console

    with console.errors_shown(debug=debug):
        from wav2clip_gen.errors import OutputError, WeightsError
        from wav2clip_gen.files import check_output
        from wav2clip_gen.models import fetch as fetching
        from wav2clip_gen.models import manifest, store

        part = manifest.part(name)
        if part.shipped:
            raise WeightsError(f"{name} comes with w2c-gen as it is", hint="name the published part it looks like")
        if not file.is_file():
            raise WeightsError(f"{file}: no such file", hint="give the checkpoint that shall be converted")
        if out is None:
            there = store.locate_part(part, weights_dir)
            if there.exists() and not overwrite:
                raise OutputError(f"{there} exists", hint="use --overwrite to replace it, or --out")
            typer.echo(str(fetching.install(file, part, weights_dir, precision=precision.value)))
        else:
            if out.suffix.lower() != ".safetensors":
                raise OutputError(f"{out}: weights are written as safetensors", hint=f"name it {out.stem}.safetensors")
            check_output(out, overwrite=overwrite)
            fetching.convert(file, out, part, precision=precision.value)
            typer.echo(str(out))


@app.command()
def fake(
    names: Names,
    *,
    seed: Annotated[int, typer.Option(min=0, help="Decides the weights.")] = 0,
    precision: Written = Precision.fp16,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace weights that are there.")] = False,
    weights_dir: Folder = None,
    debug: Debug = False,
) -> None:
    """For developers: put networks of published size with RANDOM weights where the real ones belong."""
    from wav2clip_gen.cli import console

    with console.errors_shown(debug=debug):
        from wav2clip_gen.errors import OutputError, WeightsError
        from wav2clip_gen.models import fakes, store
        from wav2clip_gen.models.locks import Lock

        for part in _parts(names):
            path = store.locate_part(part, weights_dir)
            if part.shipped:
                raise WeightsError(f"{part.name} comes with w2c-gen", hint="only published parts can be stood in for")
            if path.exists() and not overwrite:
                raise OutputError(f"{path} exists", hint="use --overwrite to replace it")
            fakes.write_fake(path, role=part.role, config=part.config, seed=seed, precision=precision.value)
            Lock(path.parent.parent).forget(part.name, original=False)
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
    """Delete what was fetched of parts, broken downloads included."""
    from wav2clip_gen.cli import console

    with console.errors_shown(debug=debug):
        from wav2clip_gen.models import upkeep

        for part in _parts(names):
            freed = upkeep.remove(part, weights_dir, forget=forget)
            typer.echo(f"{part.name}: {f'{_size(freed)} freed' if freed else 'nothing there'}", err=True)


def fetch_missing(run: Run, weights_dir: Path | None) -> None:
    """Fetch what the networks of a render still lack."""
    from wav2clip_gen.models import fetch as fetching
    from wav2clip_gen.models.choice import choose

    for part in choose(run, weights_dir).parts.values():
        if part.original or part.name == str(part.path):  # of the user's own
            continue
        if "/" in part.name:
            _fetch_tag(part.name, weights_dir)
            continue
        for published in _parts([part.name]):  # what is in place is left as it is
            _follow(fetching.fetch(published, weights_dir))


def _fetch_tag(asked: str, weights_dir: Path | None, *, precision: str = "fp32", offline: bool = False) -> None:
    """Let open_clip fetch `ARCHITECTURE/TAG` with its own client and progress."""
    from wav2clip_gen.errors import WeightsError
    from wav2clip_gen.models.choice import tag_file
    from wav2clip_gen.models.convert import fetch_tag
    from wav2clip_gen.models.fetch import asked_to_stay_offline

    if offline or asked_to_stay_offline():
        raise WeightsError(f"{asked} cannot be fetched offline", hint="leave --offline and W2C_OFFLINE away")
    path = tag_file(asked, weights_dir)
    if not path.is_file():
        fetch_tag(asked, path, precision=precision)
    typer.echo(f"{asked}: {path}", err=True)


def _follow(events: Iterable[Event]) -> None:
    """Show how the fetching of a part goes; Ctrl-C says how to go on."""
    from wav2clip_gen.cli.app import INTERRUPTED
    from wav2clip_gen.cli.transfer import following

    try:
        with following() as show:
            for event in events:
                show(event)
    except KeyboardInterrupt:
        typer.echo("interrupted: the same command goes on where it stopped", err=True)
        raise typer.Exit(INTERRUPTED) from None


def _parts(names: list[str]) -> list[Part]:
    """The parts that are meant, each once."""
    from wav2clip_gen.models import manifest

    return list({part.name: part for name in names for part in manifest.expand(name)}.values())


def _fields(status: Status) -> dict[str, Any]:
    from dataclasses import asdict

    state = {"state": status.state, "path": str(status.path), "bytes": status.size, "partial": status.partial}
    return {**asdict(status.part), **state}


def _line(status: Status) -> str:
    part = status.part
    return f"{part.name:<17} {part.role:<9} {_size(status.size):>9}  {_state(status):<16}  {part.licence}"


def _state(status: Status) -> str:
    if status.partial:
        share = f"{100 * status.partial / status.size:.0f}%" if status.size else _size(status.partial)
        return f"missing ({share})"
    return "not converted" if status.state == "fetched" else status.state


def _size(size: int | None) -> str:
    if size is None:
        return "?"
    return f"{size / 2**20:.1f} MiB" if size < 2**30 else f"{size / 2**30:.2f} GiB"
