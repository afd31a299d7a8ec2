"""The options of the bare form: one for each setting, made from its field, and those that are not settings."""

from __future__ import annotations

import inspect
import os
import re
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import Field, dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

from wav2clip_gen import __version__
from wav2clip_gen.cli.app import COMMANDS, COMPLETE
from wav2clip_gen.config import (
    CURVES,
    DESTINATIONS,
    SECTIONS,
    DeprecatedNameWarning,
    PictureSettings,
    Prompt,
    PromptNote,
    SettingsGroup,
    StyleImage,
    describe_range,
    preset_names,
)
from wav2clip_gen.errors import SettingsError

PANELS = (
    "Output",
    "Audio",
    "Stems",
    "Prompts and images",
    "Video",
    "Optimization",
    "Motion",
    "Modulation",
    "Models",
    "Settings",
    "Run",
)
DEPRECATED = {"inertia": "temporal_weight", "blend": "ema_half_life"}  # earlier names of options
AnyCommand = TypeVar("AnyCommand", bound=Callable[..., None])


@dataclass(frozen=True)
class Option:
    """An option of the command line."""

    name: str  # of the parameter
    annotation: Any
    flags: tuple[str, ...]
    help: str
    panel: str
    everyday: bool = False  # shown by --help, not only by --help-all
    default: Any = None
    key: str = ""  # of the setting, such as picture.fps; empty: it is not a single setting
    details: dict[str, Any] = field(default_factory=dict)  # further arguments of typer.Option

    def parameter(self, *, hidden: bool = False) -> inspect.Parameter:
        """The option as a parameter of a command."""
        info = typer.Option(
            *self.flags, help=self.help, rich_help_panel=self.panel or None, show_default=False, hidden=hidden,
            **self.details,
        )  # fmt: skip
        return _parameter(self.name, Annotated[self.annotation, info], self.default)


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def completion(words: Callable[[], list[str]] | tuple[Any, ...]) -> Callable[[str], list[str]]:
    """Completion of a value by one of `words`."""

    def complete(incomplete: str) -> list[str]:
        found = words() if callable(words) else words
        return [str(word) for word in found if str(word).startswith(incomplete)]

    return complete


def parse_stem_weight(written: str) -> tuple[str, float]:
    """Read `drums=2` as ("drums", 2.0)."""
    name, _, weight = written.partition("=")
    try:
        return name.strip(), float(weight)
    except ValueError:
        raise SettingsError(f"--stem-weight {written} is not NAME=WEIGHT", hint="write drums=2") from None


def parse_size(written: str) -> dict[str, int]:
    """Read `128x96` as the width and height."""
    match = re.fullmatch(r"(\d+)[xX×](\d+)", written)
    if not match:
        raise SettingsError(f"--size {written} is not WIDTHxHEIGHT", hint="write 256x144")
    return {"width": int(match[1]), "height": int(match[2])}


def describe_default(item: Field[Any]) -> str:
    """The default of a setting, in words."""
    value = f"{item.default:g}" if isinstance(item.default, float) else item.default
    return item.metadata["default_text"] or f"{value} {item.metadata['unit']}".strip()


def _setting_option(section: str, group: type[SettingsGroup], item: Field[Any]) -> Option:
    """The option of a setting, with its meaning, range and default; None means that it was not given."""
    about = item.metadata
    flags = about["flags"] or (f"--{item.name.replace('_', '-')}",)
    name = flags[0].removeprefix("--").replace("-", "_")
    if typing.get_type_hints(group)[item.name] is bool:
        flags = (f"{flags[0]}/--no-{flags[0].removeprefix('--')}",)
    bounds = "; ".join(part for part in (describe_range(item), f"default: {describe_default(item)}") if part)
    kind = str if about["metavar"] == "TIME" else typing.get_type_hints(group)[item.name]
    details: dict[str, Any] = {"metavar": about["metavar"]}
    if about["choices"]:
        details["autocompletion"] = completion(about["choices"])
    return Option(
        name=name,
        annotation=kind | None,
        flags=flags,
        help=f"{about['meaning'][0].upper()}{about['meaning'][1:]} [dim]({bounds})[/]",
        panel=about["panel"] or group.PANEL,
        everyday=about["everyday"],
        key=f"{section}.{item.name}",
        details=details,
    )


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"w2c-gen {__version__}")
        raise typer.Exit


def _show_all_help(context: typer.Context, wanted: bool) -> None:
    if wanted:
        for parameter in context.command.params:
            parameter.hidden = parameter.name in DEPRECATED  # type: ignore[attr-defined]
        typer.echo(context.get_help())
        raise typer.Exit


class Progress(str, Enum):
    """How progress is reported on stderr."""

    bar = "bar"
    plain = "plain"
    json = "json"
    none = "none"


def _other(name: str, annotation: Any, panel: str, text: str, **details: Any) -> Option:
    """An option that is not a single setting."""
    flags = details.pop("flags", None) or (f"--{name.replace('_', '-')}",)
    everyday = details.pop("everyday", False)
    default = False if annotation is bool else None
    kind = annotation if annotation is bool else annotation | None
    return Option(name, kind, flags, text, panel, everyday, default, details=details)


STEM_NAMES = "vocals, drums, bass, other, or names of stem files"
MAP_HELP = (
    "Modulate a setting by a feature of the audio, as in drums.onset:zoom=0.04,decay=0.2; repeatable. "
    f"[dim](features: {', '.join(CURVES)}, C to B; settings: {', '.join(DESTINATIONS)}, prompt.1)[/]"
)
OTHERS = (
    _other("out", str, "Output", "Output file; {stem} and {seed} are replaced: videos/{stem}_{seed}.mp4 "
        "[dim](default: {stem}.mp4)[/]", flags=("--out", "-o"), metavar="FILE", everyday=True),
    _other("overwrite", bool, "Output", "Replace existing files.", everyday=True),
    _other("skip_existing", bool, "Output", "Skip tracks whose film exists.", everyday=True),
    _other("storyboard", bool, "Output", "Instead of a video, write a PNG with one quickly generated picture for each "
        "section of the song.", everyday=True),
    _other("report", bool, "Output", "Also write a page for each video, NAME.html: sound, prompts and settings over "
        "time.", everyday=True),
    _other("embed", bool, "Output", "Put the video into its page, so that the page can be moved alone."),
    _other("preview", bool, "Output", "Show the video in the browser while it is made, at the address that is printed.",
        everyday=True),
    _other("frames_dir", Path, "Output", "Also write all frames to this folder, as PNG.", metavar="DIR"),
    _other("stems", str, "Stems", f"Stems that guide the picture instead of the whole song: {STEM_NAMES}.",
        metavar="NAME,NAME", everyday=True),
    _other("stem_weight", list[str], "Stems", "Weight of a stem relative to the others; repeatable. "
        "[dim](from 0 to 100; default: 1)[/]", metavar="NAME=WEIGHT"),
    _other("stem_file", list[str], "Stems", "File of a stem; or a folder with vocals.wav and so on, or a .stem.mp4; "
        "repeatable. [dim](default: next to the song; otherwise stems are separated)[/]",
        metavar="NAME=FILE"),
    _other("demucs_repo", Path, "Stems", "Folder of Demucs weights [dim](default: W2C_DEMUCS_REPO, else the published "
        "weights)[/]", metavar="DIR"),
    _other("keep_stems", Path, "Stems", "Also write the separated stems to this folder, as FLAC.", metavar="DIR"),
    _other("prompt", list[str], "Prompts and images", "Text prompt, optionally with times and a weight, as in "
        '"0:12-0:30 a burning city:0.7"; repeatable.', flags=("--prompt", "-p"),
        metavar="[TIME-TIME] TEXT[:WEIGHT]", everyday=True),
    _other("prompts", list[Path], "Prompts and images", "Prompts with times from a .srt, .vtt, .ass, .lrc, .csv, "
        ".json, .yaml or .txt file; repeatable.", metavar="FILE", everyday=True),
    _other("encoding", str, "Prompts and images", "Encoding of the files of prompts, such as cp1252 [dim](default: "
        "UTF-8, else guessed, with a note)[/]", metavar="NAME"),
    _other("style_image", list[str], "Prompts and images", "Image that guides the picture by its CLIP embedding, "
        "with optional times and weight; repeatable.", metavar="[TIME-TIME] FILE[:WEIGHT]", everyday=True),
    _other("size", str, "Video", "Size of the generated frames, a multiple of the size of a latent cell [dim](px; "
        f"default: {PictureSettings.width}x{PictureSettings.height})[/]", flags=("--size", "-s"), metavar="WxH",
        everyday=True),
    _other("map", list[str], "Modulation", MAP_HELP, metavar="[STEM.]FEATURE:SETTING=SCALE", everyday=True),
    _other("weights_dir", Path, "Models", "Folder of downloaded weights [dim](default: W2C_WEIGHTS, else a folder in "
        "the user's cache)[/]", metavar="DIR"),
    _other("fetch", bool, "Models", "Download missing weights first.", everyday=True),
    _other("preset", str, "Settings", f"Preset of settings: {', '.join(preset_names())}.", everyday=True,
        autocompletion=completion(preset_names)),
    _other("config", Path, "Settings", "YAML file of settings.", metavar="FILE", everyday=True),
    _other("set", list[str], "Settings", "Any setting by its name, as in painting.steps=8; repeatable.",
        metavar="KEY=VALUE"),
    _other("from_record", Path, "Settings", "Replay the run record (JSON) of a video: same track, settings and seed, "
        "unless others are given.", flags=("--from",), metavar="RECORD", everyday=True),
    _other("range", str, "Run", "Generate a part of a finished video again, as in w2c-gen video.mp4 --range 1:05-1:20; "
        "settings are those of its run record, unless others are given.", metavar="TIME-TIME"),
    _other("fresh", bool, "Run", "Begin anew, instead of resuming an interrupted run."),
    _other("workers", str, "Run", "Processes that generate the segments of a video, which stays the same [dim]("
        "default: auto: one for each core that memory suffices for, or one for each GPU)[/]", metavar="auto|N"),
    _other("cluster", str, "Run", "Generate the segments on a Ray cluster; the video stays the same.",
        metavar="auto|ADDRESS"),
    _other("keep_work", bool, "Run", "Keep the work folder, NAME.w2c, of a finished video."),
    _other("dry_run", bool, "Run", "Check everything, and report the plan and the estimated time; write nothing.",
        everyday=True),
    _other("progress", Progress, "Run", "How progress is reported on stderr [dim](default: bar in a terminal, else "
        "plain)[/]"),
    _other("debug", bool, "Run", "Show the traceback of an error."),
    _other("version", bool, "", "Show the version and exit.", callback=_show_version, is_eager=True, everyday=True),
    _other("help_all", bool, "", "Show all options and exit.", callback=_show_all_help, is_eager=True, everyday=True),
)  # fmt: skip
SETTINGS = tuple(
    _setting_option(section, group, item)
    for section, group in SECTIONS.items()
    for item in fields(group)
    if item.metadata["flags"] != ()
)
INPUTS = typer.Argument(
    metavar="INPUT",
    help="Audio files, videos with audio, or folders of stems with a mix.",
    autocompletion=completion(lambda: list(COMMANDS) if os.environ.get("COMP_CWORD", "1") == "1" else []),
)
OPTIONS = {option.name: option for panel in (*PANELS, "") for option in (*OTHERS, *SETTINGS) if option.panel == panel}


class Command(TyperCommand):
    """A command whose arguments are files: a file whose name begins with a dash is not taken for options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse such a file, unless it is the value of an option or follows `--`."""
        from wav2clip_gen.cli import console

        options_with_value = {flag for one in self.params if not getattr(one, "is_flag", True) for flag in one.opts}
        before = ""
        for word in args[: args.index("--")] if "--" in args else args:
            if word.startswith("-") and before not in options_with_value and Path(word).exists():
                with console.errors_shown():
                    raise SettingsError(f"{word} begins with a dash, as options do", hint=f"write ./{word}")
            before = word
        return super().parse_args(ctx, args)


def stems_option(meaning: str) -> Any:
    """`--stems` of another command, where it has this meaning."""
    return typer.Option("--stems", metavar="NAME,NAME", rich_help_panel="Stems", help=f"{meaning}: {STEM_NAMES}.")


def with_options(*names: str, everyday: bool = False, inputs: Any = INPUTS) -> Callable[[AnyCommand], AnyCommand]:
    """Give a command the INPUT argument and these options, which it receives by its `**` parameter.

    Args:
        names: Names of `OPTIONS`.
        everyday: Whether its help hides all options that are not everyday, and deprecated names are accepted.
        inputs: The argument, if it is another one.
    """
    hide = everyday and COMPLETE not in os.environ
    shared = [_parameter("inputs", Annotated[list[Path] | None, inputs], None)]
    shared += [OPTIONS[name].parameter(hidden=hide and not OPTIONS[name].everyday) for name in names]
    if everyday:
        for old, new in DEPRECATED.items():
            hidden = Option(old, OPTIONS[new].annotation, (f"--{old}",), f"Use --{new}.", OPTIONS[new].panel)
            shared.append(hidden.parameter(hidden=True))

    def decorate(command: AnyCommand) -> AnyCommand:
        own = inspect.signature(command, eval_str=True).parameters.values()
        parameters = [*shared, *(one for one in own if one.kind is not one.VAR_KEYWORD)]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return command

    return decorate


def settings_given(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings among the options that were given: {group: {name: value}}, and whole lists."""
    from wav2clip_gen.prompts import read_prompts

    values = {name: value for name, value in given.items() if value is not None}
    for old, new in DEPRECATED.items():
        if old in values:
            message = f"--{old} is deprecated; use {OPTIONS[new].flags[0]}"
            warnings.warn(message, DeprecatedNameWarning, stacklevel=2)
            values.setdefault(new, values[old])
    changes: dict[str, Any] = {section: {} for section in SECTIONS}
    for option in SETTINGS:
        if option.name in values:
            section, _, key = option.key.partition(".")
            changes[section][key] = values[option.name]
    if "size" in values:
        changes["picture"] |= parse_size(values["size"])
    encoding = values.get("encoding")
    prompts = [prompt for path in values.get("prompts", ()) for prompt in read_prompts(path, encoding)]
    lists = {
        "prompts": [*prompts, *map(Prompt.parse, values.get("prompt", ()))],
        "style_images": [*map(StyleImage.parse, values.get("style_image", ()))],
        "stems": [name.strip() for name in values["stems"].split(",")] if "stems" in values else [],
        "stem_files": values.get("stem_file", []),
        "maps": values.get("map", []),
    }
    return {**changes, **{name: items for name, items in lists.items() if items}}


@contextmanager
def deprecations_shown() -> Iterator[None]:
    """Show each deprecated name that is used once, as a note on stderr, and notes on prompts."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DeprecatedNameWarning)
        warnings.simplefilter("always", PromptNote)
        try:
            yield
        finally:
            for text in dict.fromkeys(str(one.message) for one in caught):
                typer.echo(f"note: {text}", err=True)
