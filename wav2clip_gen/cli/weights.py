"""`w2c-gen weights fetch|convert|fake`: weights are brought and made; what there is of them is in `inventory`."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wav2clip_gen.cli import inventory
from wav2clip_gen.cli.inventory import Debug, Folder, Names

if TYPE_CHECKING:
    from wav2clip_gen.config import RunSettings
    from wav2clip_gen.models.fetch import Event
    from wav2clip_gen.models.manifest import Part

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


Written = Annotated[Precision, typer.Option(help="How the converted weights are written.")]


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
        from wav2clip_gen.models import manifest

        tags = [name for name in names if "/" in name]  # of open_clip
        wanted: list[Part | str] = [*manifest.expand_all(name for name in names if name not in tags), *tags]
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
            raise WeightsError(
                f"{name} comes with w2c-gen as it is", hint="name the published part whose structure the checkpoint has"
            )
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
        from wav2clip_gen.models import fakes, manifest, store
        from wav2clip_gen.models.locks import Lock

        for part in manifest.expand_all(names):
            path = store.locate_part(part, weights_dir)
            if part.shipped:
                raise WeightsError(
                    f"{part.name} comes with w2c-gen", hint="name a published part: `w2c-gen weights list`"
                )
            if path.exists() and not overwrite:
                raise OutputError(f"{path} exists", hint="use --overwrite to replace it")
            fakes.write_fake(path, role=part.role, config=part.config, seed=seed, precision=precision.value)
            Lock(path.parent.parent).forget(part.name, original=False)
            typer.echo(str(path))


def fetch_missing(run: RunSettings, weights_dir: Path | None) -> None:
    """Fetch what the networks of a render still lack."""
    from wav2clip_gen.models import fetch as fetching
    from wav2clip_gen.models import manifest
    from wav2clip_gen.models.choice import choose

    for part in choose(run, weights_dir).components.values():
        if part.original or part.name == str(part.path):  # of the user's own
            continue
        if "/" in part.name:
            _fetch_tag(part.name, weights_dir)
            continue
        for published in manifest.expand(part.name):  # what is in place is left as it is
            _follow(fetching.fetch(published, weights_dir))


def _fetch_tag(asked: str, weights_dir: Path | None, *, precision: str = "fp32", offline: bool = False) -> None:
    """Let open_clip fetch `ARCHITECTURE/TAG` with its own client and progress."""
    from wav2clip_gen.environment import asked_to_stay_offline
    from wav2clip_gen.errors import WeightsError
    from wav2clip_gen.models.choice import tag_file
    from wav2clip_gen.models.convert import fetch_tag

    if offline or asked_to_stay_offline():
        raise WeightsError(f"{asked} cannot be fetched offline", hint="leave out --offline and W2C_OFFLINE")
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


app.command("list")(inventory.list_all)
app.command()(fetch)
app.command()(inventory.verify)
app.command()(inventory.path)
app.command()(convert)
app.command()(fake)
app.command()(inventory.remove)
