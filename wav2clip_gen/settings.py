"""Every knob once: its name, meaning, unit, default and range. Knows no torch."""

from __future__ import annotations

import difflib
import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar

from wav2clip_gen.errors import SettingsError


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
    """Base of the groups below: checks every value against its knob when made."""

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


@dataclass(frozen=True, kw_only=True)
class Prompt(Group):
    """Words that pull the picture towards them, or, with a negative weight, away from them."""

    text: str = knob("", "words")
    weight: float = knob(1.0, "pull beside the sound's own; negative: away from the words", minimum=-100, maximum=100)
    start: float | None = knob(None, "when in the track they begin to pull; none: at once", unit="s", minimum=0)
    end: float | None = knob(None, "when they cease; none: at its end", unit="s", above=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.text.strip():
            raise SettingsError("a prompt has no words", hint='write it as "a stormy sea" or "a stormy sea:0.5"')
        if self.end is not None and self.end <= (self.start or 0):
            what = f"the prompt {self.text!r} ends at {self.end:g} s, before it begins"
            raise SettingsError(what, hint='write "0:12-0:30 a stormy sea"')

    @classmethod
    def parse(cls, written: str) -> Prompt:
        """Read `words`, `words:weight` or `0:12-0:30 words:weight`; either time may be left out.

        A colon that no number follows belongs to the words, and so does what only resembles two times.
        """
        span = re.fullmatch(rf"(?s)\s*({TIME})?\s*-\s*({TIME})?\s+(.*)", written)
        start, end, words = (span[1], span[2], span[3]) if span and (span[1] or span[2]) else (None, None, written)
        match = re.fullmatch(r"(?s)(.*):\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)\s*", words)
        text, weight = (match[1], float(match[2])) if match else (words, 1.0)
        return cls(
            text=text.strip(), weight=weight, start=parse_time(start) if start else None,
            end=parse_time(end) if end else None,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Sound(Group):
    """What is heard, and how finely."""

    start: float = knob(0.0, "where in the track the film begins", unit="s", minimum=0)
    duration: float | None = knob(None, "how much of the track to film", unit="s", above=0)
    window: float = knob(1.0, "how much sound one embedding hears", unit="s", minimum=0.1, maximum=30)
    hop: float = knob(0.1, "time between two embeddings", unit="s", minimum=0.01, maximum=10)
    weight: float = knob(1.0, "the sound's pull beside the prompts'", minimum=0, maximum=100)


@dataclass(frozen=True, kw_only=True)
class Picture(Group):
    """The shape of the film."""

    width: int = knob(128, "painted width", unit="px", minimum=32, maximum=4096)
    height: int = knob(128, "painted height", unit="px", minimum=32, maximum=4096)
    fps: float = knob(12.0, "frames painted and shown per second", unit="1/s", minimum=1, maximum=120)
    upscale: int = knob(1, "enlarge for display (Lanczos)", choices=(1, 2, 4))


@dataclass(frozen=True, kw_only=True)
class Painting(Group):
    """How each frame is optimised (VQGAN-CLIP, arXiv 2204.08583)."""

    first_steps: int = knob(40, "steps for the first frame", minimum=0, maximum=10_000)
    steps: int = knob(4, "steps for each further frame", minimum=0, maximum=10_000)
    cuts: int = knob(8, "random views of the picture that the perceptor sees at each step", minimum=1, maximum=1024)
    cut_batch: int = knob(0, "views the perceptor sees at a time, to save memory; 0: all", minimum=0, maximum=1024)
    total_variation: float = knob(5.0, "weight of the loss that calms the picture", minimum=0, maximum=1000)
    learning_rate: float = knob(0.2, "Adam's step on the latent", above=0, maximum=10)
    recognition: float = knob(
        10.0, "pull towards a picture that is read as the target is; only where the family has a prior", minimum=0,
        maximum=100,
    )  # fmt: skip
    layout: float = knob(3.0, "pull towards the colours that the prior expects; also the start", minimum=0, maximum=100)


@dataclass(frozen=True, kw_only=True)
class Motion(Group):
    """How fast the picture may follow the sound."""

    smoothing: float = knob(
        0.15, "half-life of the targets' zero-phase smoothing; 0: none", unit="s", minimum=0, maximum=60
    )
    inertia: float = knob(0.05, "pull towards the frame before", minimum=0, maximum=100)
    crossfade: float = knob(1.0, "over how long words that begin or cease come and go", unit="s", minimum=0, maximum=60)
    blend: float = knob(0.1, "half-life of the latents shown; 0: each frame by itself", unit="s", minimum=0, maximum=10)


@dataclass(frozen=True, kw_only=True)
class Run(Group):
    """With what the film is made."""

    models: str = knob("auto", "family of networks", choices=("auto", "full", "mini"))
    perceptor: str | None = knob(None, "another CLIP: a part's name, ARCHITECTURE/TAG of open_clip, or a weights file")
    vqgan: str | None = knob(None, "another VQGAN: a part's name, a weights file, or a .ckpt with its .yaml beside it")
    seed: int | None = knob(None, "decides everything that is drawn", minimum=0, maximum=2**63 - 1)
    device: str = knob("auto", "where the networks run: auto, cpu, cuda, cuda:1, mps")
    precision: str = knob("auto", "arithmetic of the networks", choices=("auto", "fp32", "bf16"))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that decides a film, beside the track and the weights."""

    sound: Sound = field(default_factory=Sound)
    picture: Picture = field(default_factory=Picture)
    painting: Painting = field(default_factory=Painting)
    motion: Motion = field(default_factory=Motion)
    run: Run = field(default_factory=Run)
    prompts: tuple[Prompt, ...] = ()

    def require_steering(self) -> None:
        """Make sure that something steers the picture: sound, or words.

        Raises:
            SettingsError: Nothing does.
        """
        if self.sound.weight == 0 and not any(prompt.weight for prompt in self.prompts):
            raise SettingsError("nothing steers the picture", hint="give sound.weight or a prompt a weight above 0")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as the run record and presets hold them."""
        return {**asdict(self), "prompts": [asdict(prompt) for prompt in self.prompts]}

    def merged(self, changes: Mapping[str, Any]) -> Settings:
        """These settings with `changes` ({group: {name: value}} and `prompts`) laid over them.

        Raises:
            SettingsError: A name is unknown or a value is out of range.
        """
        updates: dict[str, Any] = {}
        for name, value in changes.items():
            if name == "prompts":
                updates[name] = tuple(_prompt(item) for item in _sequence(value))
            elif name in SECTIONS:
                updates[name] = _merge_group(getattr(self, name), name, value)
            else:
                raise SettingsError(
                    f"no settings are called {name!r}", hint=suggestion(str(name), [*SECTIONS, "prompts"])
                )
        return replace(self, **updates)


SECTIONS: dict[str, type[Group]] = {
    "sound": Sound, "picture": Picture, "painting": Painting, "motion": Motion, "run": Run,
}  # fmt: skip


AnyGroup = TypeVar("AnyGroup", bound=Group)


def _merge_group(group: AnyGroup, section: str, changes: Any) -> AnyGroup:
    if not isinstance(changes, Mapping):
        raise SettingsError(f"{section} is a group of settings, not {changes!r}", hint=f"write `{section}: {{...}}`")
    known = [item.name for item in fields(group)]
    for name in changes:
        if name not in known:
            raise SettingsError(f"no setting is called {section}.{name}", hint=suggestion(str(name), known))
    return replace(group, **changes)


def _prompt(item: Any) -> Prompt:
    if isinstance(item, Prompt):
        return item
    if isinstance(item, str):
        return Prompt.parse(item)
    if isinstance(item, Mapping):
        return _merge_group(Prompt(text="-"), "prompts", item)
    raise SettingsError(f"a prompt is words, not {item!r}", hint='write `prompts: ["a stormy sea:0.5"]`')


def _sequence(value: Any) -> list[Any] | tuple[Any, ...]:
    return value if isinstance(value, (list, tuple)) else [value]


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
