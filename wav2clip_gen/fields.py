"""Every setting once: its meaning, unit, range and default."""

from __future__ import annotations

import difflib
import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar

from wav2clip_gen.errors import SettingsError

SEPARATORS = ("auto", "demucs", "dsp")


def knob(
    default: Any,
    meaning: str,
    *,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[Any, ...] = (),
    above: float | None = None,
) -> Any:
    """A dataclass field with its meaning and range; `minimum` and `maximum` are allowed values, `above` is not."""
    allowed = {"minimum": minimum, "maximum": maximum, "choices": choices, "above": above}
    return field(default=default, metadata={"meaning": meaning, "unit": unit, **allowed})


@dataclass(frozen=True, kw_only=True)
class Group:
    """Base of all groups of settings: checks every value against its knob when made."""

    def __post_init__(self) -> None:
        for item in fields(self):
            _check(item, _kind(type(self), item.name), getattr(self, item.name))


TIME = r"(?:\d+:){0,2}\d+(?:\.\d*)?|\.\d+"  # 75, 75.5, 1:15.5, 0:01:15.5


def parse_time(written: str) -> float:
    """Read `75`, `75.5`, `1:15.5` or `0:01:15.5` as seconds.

    Raises:
        SettingsError: It is no time.
    """
    if not re.fullmatch(TIME, written):
        raise SettingsError(f"{written!r} is no time", hint="write 75.5 or 1:15.5")
    seconds = 0.0
    for part in written.split(":"):
        seconds = seconds * 60 + float(part)
    return seconds


AnyGroup = TypeVar("AnyGroup", bound=Group)


def merge_group(group: AnyGroup, section: str, changes: Any) -> AnyGroup:
    """A group with `changes` ({name: value}) laid over it; `section` is what a person calls it."""
    if not isinstance(changes, Mapping):
        raise SettingsError(f"{section} is a group of settings, not {changes!r}", hint=f"write `{section}: {{...}}`")
    known = [item.name for item in fields(group)]
    changes = current_names(section, changes)
    for name in changes:
        if name not in known:
            raise SettingsError(f"no setting is called {section}.{name}", hint=suggestion(str(name), known))
    return replace(group, **changes)


DEPRECATED = {
    "motion.inertia": "temporal_weight", "motion.blend": "ema_half_life", "painting.recognition": "concept_weight",
    "painting.layout": "layout_weight", "painting.total_variation": "tv_weight",
}  # fmt: skip


def current_names(section: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes` with deprecated names replaced by today's."""
    return {DEPRECATED.get(f"{section}.{name}", str(name)): value for name, value in changes.items()}


def suggestion(name: str, known: list[str]) -> str:
    """A hint for a name that is not among `known`."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"choose from: {', '.join(known)}"


def _kind(group: type[Group], name: str) -> tuple[type, ...]:
    """The types a value may have; an int is a float too."""
    hint = typing.get_type_hints(group)[name]
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return (*kinds, int) if float in kinds else kinds


def _check(item: Field[Any], kinds: tuple[type, ...], value: Any) -> None:
    """Raise a SettingsError unless `value` is of one of `kinds` and within the knob's range."""
    unit = f" {item.metadata['unit']}" if item.metadata["unit"] else ""
    label = item.name.replace("_", " ")
    if not isinstance(value, kinds) or isinstance(value, bool):
        wanted = " or ".join("nothing" if kind is type(None) else kind.__name__ for kind in kinds)
        raise SettingsError(f"{label} must be {wanted}, not {value!r}", hint=item.metadata["meaning"])
    if value is None:
        return
    if item.metadata["choices"] and value not in item.metadata["choices"]:
        choices = ", ".join(map(str, item.metadata["choices"]))
        raise SettingsError(f"{label} cannot be {value}", hint=f"choose from: {choices}")
    if isinstance(value, (int, float)) and not _within(value, item.metadata):
        raise SettingsError(
            f"{label} cannot be {value}{unit}", hint=f"{item.metadata['meaning']}; {describe_range(item)}"
        )


def _within(value: float, allowed: Mapping[str, Any]) -> bool:
    return (
        (isinstance(value, int) or math.isfinite(value))
        and (allowed["minimum"] is None or value >= allowed["minimum"])
        and (allowed["maximum"] is None or value <= allowed["maximum"])
        and (allowed["above"] is None or value > allowed["above"])
    )


def describe_range(item: Field[Any]) -> str:
    """A knob's range in words, such as "from 1 to 120 1/s"."""
    allowed, unit = item.metadata, item.metadata["unit"]
    if allowed["choices"]:
        return ", ".join(map(str, allowed["choices"]))
    low = f"above {allowed['above']:g}" if allowed["above"] is not None else ""
    low = f"from {allowed['minimum']:g}" if allowed["minimum"] is not None else low
    high = f"to {allowed['maximum']:g}" if allowed["maximum"] is not None and allowed["maximum"] < 2**62 else ""
    return " ".join(part for part in (low, high, unit) if part)


def knobs(group: type[Group]) -> dict[str, Field[Any]]:
    """The knobs of a group by name, for help texts and tables."""
    assert is_dataclass(group)
    return {item.name: item for item in fields(group) if item.default is not MISSING}


@dataclass(frozen=True, kw_only=True)
class SoundSettings(Group):
    """What is heard, and how finely."""

    start: float = knob(0.0, "where in the track the film begins", unit="s", minimum=0)
    duration: float | None = knob(None, "how much of the track to film", unit="s", above=0)
    window: float = knob(1.0, "how much sound one embedding hears", unit="s", minimum=0.1, maximum=30)
    hop: float = knob(0.1, "time between two embeddings", unit="s", minimum=0.01, maximum=10)
    weight: float = knob(1.0, "the sound's pull beside the prompts'", minimum=0, maximum=100)
    separator: str = knob("auto", "what takes stems out of the song", choices=SEPARATORS)


@dataclass(frozen=True, kw_only=True)
class PictureSettings(Group):
    """The shape of the film."""

    width: int = knob(128, "painted width", unit="px", minimum=32, maximum=4096)
    height: int = knob(128, "painted height", unit="px", minimum=32, maximum=4096)
    fps: float = knob(12.0, "frames painted and shown per second", unit="1/s", minimum=1, maximum=120)
    upscale: int = knob(1, "enlarge for display (Lanczos)", choices=(1, 2, 4))
    layout: str = knob(
        "single", "one picture, one of the mix and of each stem side by side, or a film of each stem",
        choices=("single", "grid", "separate"),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PaintingSettings(Group):
    """How each frame is optimised (VQGAN-CLIP, arXiv 2204.08583)."""

    first_steps: int = knob(40, "steps for the first frame", minimum=0, maximum=10_000)
    steps: int = knob(4, "steps for each further frame", minimum=0, maximum=10_000)
    cuts: int = knob(8, "random views of the picture that the perceptor sees at each step", minimum=1, maximum=1024)
    cut_batch: int = knob(0, "views the perceptor sees at a time, to save memory; 0: all", minimum=0, maximum=1024)
    tv_weight: float = knob(5.0, "weight of the loss that calms the picture", minimum=0, maximum=1000)
    learning_rate: float = knob(0.2, "Adam's step on the latent", above=0, maximum=10)
    concept_weight: float = knob(
        10.0, "pull towards a picture that is read as the target is; only where the family has a prior", minimum=0,
        maximum=100,
    )  # fmt: skip
    layout_weight: float = knob(
        3.0, "pull towards the colours that the prior expects; also the start", minimum=0, maximum=100
    )
    init_image: str | None = knob(None, "a picture's file, which the first frame starts from, cut to the film's shape")
    init_weight: float = knob(0.0, "pull towards that picture in every frame", minimum=0, maximum=100)


@dataclass(frozen=True, kw_only=True)
class MotionSettings(Group):
    """How fast the picture may follow the sound, and how it moves by itself."""

    smoothing: float = knob(
        0.15, "half-life of the targets' zero-phase smoothing; 0: none", unit="s", minimum=0, maximum=60
    )
    temporal_weight: float = knob(0.05, "pull towards the frame before", minimum=0, maximum=100)
    crossfade: float = knob(1.0, "over how long words that begin or cease come and go", unit="s", minimum=0, maximum=60)
    ema_half_life: float = knob(
        0.1, "half-life of the latents shown; 0: each frame by itself", unit="s", minimum=0, maximum=10
    )
    scenes: str = knob(
        "moments", "what the targets follow: each moment, or whole sections, crossed over as words are",
        choices=("moments", "sections"),
    )  # fmt: skip
    zoom: float = knob(0.0, "how much nearer the picture comes; 0.1: 10 %", unit="1/s", minimum=-0.9, maximum=9)
    pan_x: float = knob(0.0, "how far it goes to the right, in widths", unit="1/s", minimum=-10, maximum=10)
    pan_y: float = knob(0.0, "how far it goes down, in heights", unit="1/s", minimum=-10, maximum=10)
    rotate: float = knob(0.0, "how far it turns clockwise", unit="degrees/s", minimum=-3600, maximum=3600)
    border: str = knob(
        "reflect", "what comes in over an edge: its mirror, or the other side", choices=("reflect", "wrap")
    )


@dataclass(frozen=True, kw_only=True)
class View(Group):
    """How a picture is seen while it is shown; only the sound moves it, see `Drive`."""

    zoom: float = knob(1.0, "how near the picture stands", minimum=0.1, maximum=10)
    pan_x: float = knob(0.0, "how far to the right it stands, in widths", minimum=-10, maximum=10)
    pan_y: float = knob(0.0, "how far down it stands, in heights", minimum=-10, maximum=10)
    rotate: float = knob(0.0, "how far it is turned clockwise", unit="degrees", minimum=-36_000, maximum=36_000)
    brightness: float = knob(1.0, "factor of the light", minimum=0, maximum=10)
    saturation: float = knob(1.0, "factor of the colours' distance from grey", minimum=0, maximum=10)


@dataclass(frozen=True, kw_only=True)
class RunSettings(Group):
    """With what the film is made."""

    models: str = knob("auto", "family of networks", choices=("auto", "full", "mini"))
    perceptor: str | None = knob(None, "another CLIP: a part's name, ARCHITECTURE/TAG of open_clip, or a weights file")
    vqgan: str | None = knob(None, "another VQGAN: a part's name, a weights file, or a .ckpt with its .yaml beside it")
    seed: int | None = knob(None, "decides everything that is drawn", minimum=0, maximum=2**63 - 1)
    device: str = knob("auto", "where the networks run: auto, cpu, cuda, cuda:1, mps")
    precision: str = knob("auto", "arithmetic of the networks", choices=("auto", "fp32", "bf16"))
