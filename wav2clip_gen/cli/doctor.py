"""`w2c-gen doctor`: versions, ffmpeg and its encoders, devices, weights; exit code 1 when something is missing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from wav2clip_gen import __version__

if TYPE_CHECKING:
    from wav2clip_gen.models.store import Status

app = typer.Typer(
    add_completion=False, context_settings={"help_option_names": ["-h", "--help"]}, pretty_exceptions_enable=False
)

ENCODERS = ("libx264", "aac", "flac")  # that a film may need


@app.command()
def doctor(
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
) -> None:
    """Tell what is installed, and whether all that a film needs is there and works."""
    from wav2clip_gen.cli import console

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
    from wav2clip_gen import record

    return [(version != "not installed", f"{name} {version}") for name, version in record.package_versions().items()]


def _ffmpeg() -> list[tuple[bool, str]]:
    from wav2clip_gen import ffmpeg
    from wav2clip_gen.errors import VideoError

    try:
        found = [(True, f"{ffmpeg.version()}, {ffmpeg.find_ffmpeg()}")]
        return found + [(name in ffmpeg.encoders(), f"encoder {name}") for name in ENCODERS]
    except VideoError as error:
        return [(False, f"{error.what}: {error.hint}")]


def _devices() -> list[tuple[bool, str]]:
    import torch

    from wav2clip_gen.models.families import choose_device, computes_in_bf16

    best = choose_device("auto")
    precision = "bf16" if computes_in_bf16(best) else "fp32"
    found = [(True, f"device {best} ({precision}) is what auto takes")]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        found.append((True, f"device cuda:{index}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB"))
    return [*found, (True, f"device cpu: {os.cpu_count()} cores, {torch.get_num_threads()} threads")]


def _weights() -> list[tuple[bool, str]]:
    from wav2clip_gen.models import store

    found = []
    for family in store.FAMILIES:
        members = [store.status(part) for part in store.members(family).values()]
        if family != store.FAMILIES[-1] and all(member.state == "missing" for member in members):
            found.append((True, f"{family}: not fetched (`w2c-gen weights fetch {family}`)"))
        else:
            found += [_member(family, member) for member in members]
    return found


def _member(family: str, member: Status) -> tuple[bool, str]:
    """Whether a part is in place and builds its network."""
    from wav2clip_gen.errors import WeightsError
    from wav2clip_gen.models import checkpoints, manifest, store

    role = member.part.role
    if member.state == "missing" and role in manifest.OPTIONAL:
        return True, f"{family} {role}: none, films are painted without it"
    if member.state in ("missing", "fetched") and not member.part.shipped:
        return True, f"{family} {role}: {member.state}, not ready (`w2c-gen weights fetch {member.part.name}`)"
    try:
        checkpoints.load(member.path, part=role)
    except WeightsError as error:
        return False, error.what
    size = member.path.stat().st_size / 2**20
    return True, (
        f"{family} {role}: {member.state}, {size:.1f} MiB, sha256 {store.sha256(member.path)[:12]}, {member.path}"
    )
