"""`w2c-gen doctor`: versions, ffmpeg and its encoders, devices, weights; exit code 1 when something is missing."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from wav2clip_gen import __version__, ffmpeg, record
from wav2clip_gen.cli import console
from wav2clip_gen.devices import choose_device
from wav2clip_gen.errors import SettingsError, VideoError, WeightsError
from wav2clip_gen.models import manifest, registry, store

app = typer.Typer(
    add_completion=False, context_settings={"help_option_names": ["-h", "--help"]}, pretty_exceptions_enable=False
)

ENCODERS = ("libx264", "aac", "flac")  # that a film may need


@app.command()
def doctor(
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
) -> None:
    """Show what is installed, and whether all that a film needs is there and works."""
    healthy = True
    with console.errors_shown(debug=debug):
        typer.echo(f"w2c-gen {__version__}")
        for check in (_packages, _ffmpeg, _devices, _weights):
            for good, line in check():
                typer.echo(f"{'ok ' if good else '!! '} {line}")
                healthy = healthy and good
    if not healthy:
        raise typer.Exit(1)


def _packages() -> list[tuple[bool, str]]:
    return [(version != "not installed", f"{name} {version}") for name, version in record.package_versions().items()]


def _ffmpeg() -> list[tuple[bool, str]]:
    try:
        found = [(True, f"{ffmpeg.version()}, {ffmpeg.find_ffmpeg()}")]
        return found + [(name in ffmpeg.encoders(), f"encoder {name}") for name in ENCODERS]
    except VideoError as error:
        return [(False, f"{error.what}: {error.hint}")]


def _devices() -> list[tuple[bool, str]]:
    import torch

    notes: list[str] = []
    best = choose_device("auto", on_note=notes.append)
    precision = "bf16" if registry.computes_in_bf16(best) else "fp32"
    found = [(True, f"device {best} ({precision}) is what auto selects")]
    found += [(False, note) for note in notes]
    for index in range(torch.cuda.device_count()):
        try:
            properties = torch.cuda.get_device_properties(choose_device(f"cuda:{index}"))
        except SettingsError as error:
            found.append((False, error.what))
            continue
        found.append((True, f"device cuda:{index}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB"))
    return [*found, (True, f"device cpu: {os.cpu_count()} cores, {torch.get_num_threads()} threads")]


def _weights() -> list[tuple[bool, str]]:
    found = []
    for family in registry.FAMILIES:
        parts = [store.status(part) for part in manifest.expand(family)]
        if family != registry.FAMILIES[-1] and all(part.state == "missing" for part in parts):
            found.append((True, f"{family}: not fetched (`w2c-gen weights fetch {family}`)"))
        else:
            found += [_check_part(family, part) for part in parts]
    return found


def _check_part(family: str, found: store.Status) -> tuple[bool, str]:
    """Whether a part is in place and builds its network."""
    from wav2clip_gen.models import checkpoints

    part, path = found.part, found.path
    if found.state == "missing" and part.role in manifest.OPTIONAL:
        return True, f"{family} {part.role}: none, films are made without it"
    if found.state in ("missing", "fetched") and not part.shipped:
        return True, f"{family} {part.role}: {found.state}, not ready (`w2c-gen weights fetch {part.name}`)"
    try:
        checkpoints.load(path, role=part.role)
    except WeightsError as error:
        return False, error.what
    size, digest = path.stat().st_size / 2**20, store.weights_sha256(path)[:12]
    return True, f"{family} {part.role}: {found.state}, {size:.1f} MiB, sha256 {digest}, {path}"
