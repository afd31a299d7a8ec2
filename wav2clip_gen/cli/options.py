"""Options that borrow meaning, range and default from the settings, and how their values are read."""

from __future__ import annotations

import re
from typing import Any

import typer

from wav2clip_gen import __version__
from wav2clip_gen.settings import Group, describe_range, knobs

DEFAULTS = {  # in words, where the value itself would say little
    "duration": "default: to the track's end",
    "seed": "default: drawn, and told",
    "models": "default auto",
    "device": "default auto",
    "precision": "default auto",
}


def knob_option(group: type[Group], name: str, *flags: str, panel: str, **options: Any) -> Any:
    """A command-line option for a knob, with its meaning, range and default; None means not given."""
    item = knobs(group)[name]
    default = DEFAULTS.get(name) or f"default {item.default:g} {item.metadata['unit']}".rstrip()
    bounds = "; ".join(part for part in (describe_range(item), default) if part)
    meaning = item.metadata["meaning"]
    return typer.Option(
        *flags, help=f"{meaning[0].upper()}{meaning[1:]} [dim]({bounds})[/]", show_default=False,
        rich_help_panel=panel, **options,
    )  # fmt: skip


def parse_seconds(written: str) -> float:
    """Read `75`, `75.5`, `1:15.5` or `0:01:15.5` as seconds."""
    if not re.fullmatch(r"(\d+:){0,2}\d+(\.\d*)?|\.\d+", written):
        raise typer.BadParameter(f"{written!r} is no time: write 75.5 or 1:15.5")
    seconds = 0.0
    for part in written.split(":"):
        seconds = seconds * 60 + float(part)
    return seconds


def parse_size(written: str) -> tuple[int, int]:
    """Read `128x96` as (128, 96)."""
    match = re.fullmatch(r"(\d+)[xX×](\d+)", written)
    if not match:
        raise typer.BadParameter(f"{written!r} is no size: write WIDTHxHEIGHT, such as 256x144")
    return int(match[1]), int(match[2])


def show_version(wanted: bool) -> None:
    """Print the version and leave."""
    if wanted:
        typer.echo(f"w2c-gen {__version__}")
        raise typer.Exit
