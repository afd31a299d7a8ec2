"""`w2c-gen weights list|verify|path|remove`: the weights that there are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from wav2clip_gen.models.store import Status
    from wav2clip_gen.models.upkeep import Extra

Folder = Annotated[
    Path | None,
    typer.Option("--weights-dir", metavar="DIR", help="Folder of weights.", show_default="W2C_WEIGHTS, else a cache"),
]
Names = Annotated[list[str], typer.Argument(metavar="NAME", help="Parts or families, as `list` shows them.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")]


def list_all(
    *,
    weights_dir: Folder = None,
    json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object on stdout.")] = False,
    debug: Debug = False,
) -> None:
    """Show all parts with what they do, their size, their licence, and what there is of them."""
    from wav2clip_gen.cli import console

    with console.errors_shown(debug=debug):
        from wav2clip_gen.models import manifest, store, upkeep

        published = manifest.published()
        found = [store.status(part, weights_dir) for part in published.parts.values()]
        extras = upkeep.extras(weights_dir)
        if json:
            import json as writer

            content = {"folder": str(weights_dir or store.weights_folder()), "families": published.families}
            lists = {"parts": [_fields(one) for one in found], "extras": [_extra_fields(extra) for extra in extras]}
            typer.echo(writer.dumps({**content, **lists}, indent=2))
            return
        families = [f"{family}: {', '.join(members.values())}" for family, members in published.families.items()]
        notes = [f"{part.name}: {part.note}" for part in published.parts.values() if part.note]
        blocks = [families, map(_line, found), map(_extra_line, extras), notes]
        typer.echo("\n\n".join(filter(None, map("\n".join, blocks))))


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

        parts = manifest.expand_all(names or manifest.published().parts)
        for part in parts:
            if not names and store.status(part, weights_dir).state == "missing":
                continue
            try:
                typer.echo(f"ok  {part.name}: {upkeep.verify(part, weights_dir)}")
            except WeightsError as error:
                code = 1
                typer.echo(f"!!  {error.what}; {error.hint}")
    raise typer.Exit(code)


def path(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A part or a family; else the folder.")] = None,
    *,
    weights_dir: Folder = None,
    debug: Debug = False,
) -> None:
    """Print where weights lie; exit code 1 when they are not there."""
    from wav2clip_gen.cli import console

    with console.errors_shown(debug=debug):
        from wav2clip_gen.models import manifest, store

        if name is None:
            typer.echo(str(weights_dir or store.weights_folder()))
            return
        for part in manifest.expand(name):
            typer.echo(str(store.find_part(part.name, weights_dir)))


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
        from wav2clip_gen.models import manifest, upkeep

        extras = {extra.name: extra for extra in upkeep.extras(weights_dir)}
        parts = manifest.expand_all(name for name in names if name not in extras)  # all are known, or none is deleted
        for part in parts:
            freed = upkeep.remove(part, weights_dir, forget=forget)
            typer.echo(f"{part.name}: {f'{_size(freed)} freed' if freed else 'nothing there'}", err=True)
        for name in dict.fromkeys(name for name in names if name in extras):
            typer.echo(f"{name}: {_size(upkeep.remove_extra(extras[name]))} freed", err=True)


def _fields(status: Status) -> dict[str, Any]:
    from dataclasses import asdict

    state = {"state": status.state, "path": str(status.path), "bytes": status.size, "partial": status.partial}
    return {**asdict(status.part), **state}


def _extra_fields(extra: Extra) -> dict[str, Any]:
    about = {"name": extra.name, "role": extra.role, "made_of": extra.made_of}
    return {**about, "path": str(extra.folder), "bytes": extra.size}


def _line(status: Status) -> str:
    part = status.part
    return f"{part.name:<17} {part.role:<9} {_size(status.size):>9}  {_state(status):<16}  {part.licence}"


def _extra_line(extra: Extra) -> str:
    source = "open_clip" if extra.made_of == extra.name else extra.made_of
    state = f"from {source}" if source else "damaged"
    return f"{extra.name:<17} {extra.role:<9} {_size(extra.size):>9}  {state}"


def _state(status: Status) -> str:
    if status.partial:
        share = f"{100 * status.partial / status.size:.0f}%" if status.size else _size(status.partial)
        return f"missing ({share})"
    return "not converted" if status.state == "fetched" else status.state


def _size(size: int | None) -> str:
    if size is None:
        return "?"
    return f"{size / 2**20:.1f} MiB" if size < 2**30 else f"{size / 2**30:.2f} GiB"
