"""The options of the bare form. Most borrow meaning, range and default from the settings."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from wav2clip_gen import __version__
from wav2clip_gen.config import (
    DESTINATIONS,
    FEATURES,
    PITCHES,
    Group,
    MotionSettings,
    PaintingSettings,
    PictureSettings,
    RunSettings,
    SoundSettings,
    describe_range,
    knobs,
    parse_time,
    preset_names,
)
from wav2clip_gen.errors import SettingsError

DEFAULTS = {  # in words, where the value itself would say little
    "duration": "default: to the track's end",
    "seed": "default: drawn, and told",
    "models": "default auto",
    "perceptor": "default: the family's",
    "vqgan": "default: the family's",
    "device": "default auto",
    "precision": "default auto",
    "border": "default reflect",
    "scenes": "default moments",
    "separator": "default auto: Demucs where it and its model are at hand, else dsp",
    "layout": "default single",
    "init_image": "default: none",
}


OLD_FLAGS = {"temporal_weight": "--inertia", "ema_half_life": "--blend"}


def knob_option(group: type[Group], name: str, *, panel: str, flag: str = "", **options: Any) -> Any:
    """A command-line option for a knob, with its meaning, range and default; None means not given."""
    item = knobs(group)[name]
    default = DEFAULTS.get(name) or f"default {item.default:g} {item.metadata['unit']}".rstrip()
    bounds = "; ".join(part for part in (describe_range(item), default) if part)
    meaning = item.metadata["meaning"]
    return typer.Option(
        flag or f"--{name.replace('_', '-')}", *([OLD_FLAGS[name]] if name in OLD_FLAGS else []), help=f"{meaning[0].upper()}{meaning[1:]} [dim]({bounds})[/]",
        show_default=False, rich_help_panel=panel, **options,
    )  # fmt: skip


def stems_option(meaning: str) -> Any:
    """`--stems`, for a command in which they mean this."""
    return typer.Option(
        "--stems", metavar="NAME,NAME", rich_help_panel="Stems",
        help=f"{meaning}: vocals, drums, bass, other, or names of files given.",
    )  # fmt: skip


def parse_seconds(written: str) -> float:
    """Read a time as `parse_time` does."""
    try:
        return parse_time(written)
    except SettingsError as error:
        raise typer.BadParameter(f"{error.what}: {error.hint}") from None


def parse_stem_weight(written: str) -> tuple[str, float]:
    """Read `drums=2` as ("drums", 2.0)."""
    name, _, weight = written.partition("=")
    try:
        return name.strip(), float(weight)
    except ValueError:
        raise typer.BadParameter(f"{written!r} is no weight of a stem: write NAME=WEIGHT, such as drums=2") from None


def parse_size(written: str) -> tuple[int, int]:
    """Read `128x96` as (128, 96)."""
    match = re.fullmatch(r"(\d+)[xX×](\d+)", written)
    if not match:
        raise typer.BadParameter(f"{written!r} is no size: write WIDTHxHEIGHT, such as 256x144")
    return int(match[1]), int(match[2])


def given(changes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The options that were given, {group: {name: value}}, without those that were not."""
    return {
        group: {name: value for name, value in values.items() if value is not None} for group, values in changes.items()
    }


def given_stems(names: str | None, files: list[str] | None) -> dict[str, list[str]]:
    """The stems that were named, as in `vocals,drums`, and their files, as settings."""
    split = [name.strip() for name in names.split(",")] if names is not None else None
    return {name: value for name, value in (("stems", split), ("stem_files", files)) if value is not None}


def show_version(wanted: bool) -> None:
    """Print the version and leave."""
    if wanted:
        typer.echo(f"w2c-gen {__version__}")
        raise typer.Exit


class Progress(str, Enum):
    """How progress is told on stderr."""

    bar = "bar"
    plain = "plain"
    json = "json"
    none = "none"


Inputs = Annotated[
    list[Path] | None,
    typer.Argument(metavar="INPUT...", help="Sound files, videos whose sound is taken, or folders of stems and mix."),
]
Out = Annotated[
    str | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FILM",
        rich_help_panel="Output",
        help="The film; {stem} and {seed} are filled in: films/{stem}_{seed}.mp4 [dim](default {stem}.mp4)[/]",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", rich_help_panel="Output", help="Replace an older film.")]
FramesDir = Annotated[
    Path | None,
    typer.Option("--frames-dir", metavar="DIR", rich_help_panel="Output", help="Also keep the pictures, as PNG."),
]
Storyboard = Annotated[
    bool,
    typer.Option(
        "--storyboard",
        rich_help_panel="Output",
        help="Instead of a film, one quick picture for each section of the song, on one PNG.",
    ),
]
Upscale = Annotated[int | None, knob_option(PictureSettings, "upscale", panel="Output")]
Start = Annotated[
    float | None, knob_option(SoundSettings, "start", panel="Sound", parser=parse_seconds, metavar="TIME")
]
Duration = Annotated[
    float | None, knob_option(SoundSettings, "duration", panel="Sound", parser=parse_seconds, metavar="TIME")
]
Window = Annotated[float | None, knob_option(SoundSettings, "window", panel="Sound")]
Hop = Annotated[float | None, knob_option(SoundSettings, "hop", panel="Sound")]
Stems = Annotated[str | None, stems_option("Parts of the song that steer instead of the whole")]
StemFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--stem-file",
        metavar="NAME=FILE",
        rich_help_panel="Stems",
        help="Where a stem lies; or a folder with vocals.wav and so on, or a .stem.mp4; repeatable. "
        "[dim](default: beside a file called mix, else taken out of the song)[/]",
    ),
]
StemWeights = Annotated[
    list[Any] | None,
    typer.Option(
        "--stem-weight",
        metavar="NAME=WEIGHT",
        parser=parse_stem_weight,
        rich_help_panel="Stems",
        help="A stem's pull beside the other stems'; repeatable. [dim](from 0 to 100; default 1)[/]",
    ),
]
Separator = Annotated[str | None, knob_option(SoundSettings, "separator", panel="Stems")]
DemucsRepo = Annotated[
    Path | None,
    typer.Option(
        "--demucs-repo",
        metavar="DIR",
        rich_help_panel="Stems",
        help="Folder of Demucs' weights [dim](default: W2C_DEMUCS_REPO, else the published ones)[/]",
    ),
]
KeepStems = Annotated[
    Path | None,
    typer.Option(
        "--keep-stems", metavar="DIR", rich_help_panel="Stems", help="Also keep the stems that are separated, as FLAC."
    ),
]
Layout = Annotated[str | None, knob_option(PictureSettings, "layout", panel="Stems")]
Prompts = Annotated[
    list[str] | None,
    typer.Option(
        "--prompt",
        "-p",
        metavar="[TIME-TIME] TEXT[:WEIGHT]",
        rich_help_panel="Words",
        help='Words that pull the picture too, as in "0:12-0:30 a burning city:0.7"; repeatable.',
    ),
]
PromptFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--prompts",
        metavar="FILE",
        rich_help_panel="Words",
        help="Words with times from a .srt, .vtt, .lrc, .csv, .json, .yaml or .txt file; repeatable.",
    ),
]
AudioWeight = Annotated[float | None, knob_option(SoundSettings, "weight", panel="Words", flag="--audio-weight")]
Crossfade = Annotated[float | None, knob_option(MotionSettings, "crossfade", panel="Words")]
StyleImages = Annotated[
    list[str] | None,
    typer.Option(
        "--style-image",
        metavar="[TIME-TIME] FILE[:WEIGHT]",
        rich_help_panel="Pictures",
        help="A picture that pulls as words do, by what CLIP sees in it; repeatable.",
    ),
]
InitImage = Annotated[str | None, knob_option(PaintingSettings, "init_image", panel="Pictures", metavar="FILE")]
InitWeight = Annotated[float | None, knob_option(PaintingSettings, "init_weight", panel="Pictures")]
Size = Annotated[
    Any,
    typer.Option(
        "--size",
        "-s",
        metavar="WxH",
        parser=parse_size,
        rich_help_panel="Picture",
        help=f"Painted size, in multiples of the latent's cell [dim](px; default {PictureSettings.width}x{PictureSettings.height})[/]",
    ),
]
Fps = Annotated[float | None, knob_option(PictureSettings, "fps", panel="Picture")]
Steps = Annotated[int | None, knob_option(PaintingSettings, "steps", panel="Painting")]
FirstSteps = Annotated[int | None, knob_option(PaintingSettings, "first_steps", panel="Painting")]
Cuts = Annotated[int | None, knob_option(PaintingSettings, "cuts", panel="Painting")]
CutBatch = Annotated[int | None, knob_option(PaintingSettings, "cut_batch", panel="Painting")]
LearningRate = Annotated[float | None, knob_option(PaintingSettings, "learning_rate", panel="Painting")]
Smoothing = Annotated[float | None, knob_option(MotionSettings, "smoothing", panel="Motion")]
Inertia = Annotated[float | None, knob_option(MotionSettings, "temporal_weight", panel="Motion")]
Blend = Annotated[float | None, knob_option(MotionSettings, "ema_half_life", panel="Motion")]
Scenes = Annotated[str | None, knob_option(MotionSettings, "scenes", panel="Motion")]
Zoom = Annotated[float | None, knob_option(MotionSettings, "zoom", panel="Motion")]
PanX = Annotated[float | None, knob_option(MotionSettings, "pan_x", panel="Motion")]
PanY = Annotated[float | None, knob_option(MotionSettings, "pan_y", panel="Motion")]
Rotate = Annotated[float | None, knob_option(MotionSettings, "rotate", panel="Motion")]
Maps = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="[STEM.]FEATURE:WHAT=SCALE",
        rich_help_panel="Motion",
        help="Let a feature of the sound drive a setting, as in drums.onset:zoom=0.04,decay=0.2; repeatable. "
        f"[dim](features: {', '.join(FEATURES[: -len(PITCHES)])}, C to B; "
        f"what: {', '.join(DESTINATIONS)}, prompt.1)[/]",
    ),
]
Border = Annotated[str | None, knob_option(MotionSettings, "border", panel="Motion")]
Models = Annotated[str | None, knob_option(RunSettings, "models", panel="Models")]
Perceptor = Annotated[str | None, knob_option(RunSettings, "perceptor", panel="Models")]
VQGAN = Annotated[str | None, knob_option(RunSettings, "vqgan", panel="Models")]
WeightsDir = Annotated[
    Path | None,
    typer.Option(
        "--weights-dir",
        metavar="DIR",
        rich_help_panel="Models",
        help="Folder of fetched weights [dim](default: W2C_WEIGHTS, else in the user's cache)[/]",
    ),
]
Fetch = Annotated[
    bool, typer.Option("--fetch", rich_help_panel="Models", help="Fetch the weights that are missing, then go on.")
]
Seed = Annotated[int | None, knob_option(RunSettings, "seed", panel="Run")]
Device = Annotated[str | None, knob_option(RunSettings, "device", panel="Run")]
Precision = Annotated[str | None, knob_option(RunSettings, "precision", panel="Run")]
Preset = Annotated[
    str | None,
    typer.Option("--preset", rich_help_panel="Settings", help=f"A set of settings: {', '.join(preset_names())}."),
]
Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", rich_help_panel="Settings", help="A YAML file of settings."),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        rich_help_panel="Settings",
        help="Any setting by its name, as in painting.steps=8; repeatable.",
    ),
]
FromRecord = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="RECORD",
        rich_help_panel="Settings",
        help="Start from the run record (JSON) of a film, seed included: the same film again.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", rich_help_panel="Run", help="Check everything, tell the plan and the time; make nothing."
    ),
]
ProgressKind = Annotated[
    Progress | None,
    typer.Option(
        "--progress",
        rich_help_panel="Run",
        help="How progress is told on stderr [dim](default: bar in a terminal, else plain)[/]",
    ),
]
Debug = Annotated[bool, typer.Option("--debug", rich_help_panel="Run", help="Show where an error comes from.")]
Version = Annotated[
    bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and leave.")
]
