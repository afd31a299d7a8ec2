"""The lists of settings: prompts, style images, stems, and maps of audio features to other settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from wav2clip_gen.errors import SettingsError
from wav2clip_gen.fields import (
    TIME,
    MotionSettings,
    PaintingSettings,
    SettingsGroup,
    View,
    merge,
    parse_time,
    setting,
    suggestion,
)

AnyItem = TypeVar("AnyItem", bound="ListItem")
AnyGuidance = TypeVar("AnyGuidance", bound="Guidance")


@dataclass(frozen=True, kw_only=True)
class ListItem(SettingsGroup):
    """Base of the items of a list of settings, each of which is also written as a single text."""

    KEY: ClassVar[str]  # of the list in a settings file
    KIND: ClassVar[str]
    CONTENT: ClassVar[str]  # the field that must not be empty
    EXAMPLE: ClassVar[str]

    @classmethod
    def parse(cls: type[AnyItem], written: str) -> AnyItem:
        """Read an item from a text, as options and settings files have it."""
        return cls(**{cls.CONTENT: written.strip()})

    @classmethod
    def read(cls: type[AnyItem], item: Any) -> AnyItem:
        """Read an item of a list in a settings file: a text, or the values by name.

        Raises:
            SettingsError: It is neither, or a value is not allowed.
        """
        if isinstance(item, cls):
            return item
        if isinstance(item, str):
            return cls.parse(item)
        if isinstance(item, Mapping):
            return merge(cls, cls.KEY, item)
        raise SettingsError(f"a {cls.KIND} is a text, not {item!r}", hint=f'write `{cls.KEY}: ["{cls.EXAMPLE}"]`')

    def __post_init__(self) -> None:
        super().__post_init__()
        if not getattr(self, self.CONTENT).strip():
            what = f"a {self.KIND} has no {self.CONTENT}"
            raise SettingsError(what, hint=f'write it as in "{self.EXAMPLE}"')


@dataclass(frozen=True, kw_only=True)
class StemWeight(ListItem):
    """A stem that guides the picture, and its weight."""

    KEY, KIND, CONTENT, EXAMPLE = "stems", "stem", "name", "vocals"

    name: str = setting("", "vocals, drums, bass, other, or the name of a stem file")
    weight: float = setting(1.0, "weight relative to the other stems", minimum=0, maximum=100)


@dataclass(frozen=True, kw_only=True)
class Guidance(ListItem):
    """A prompt or an image that guides the picture towards it, or away from it if its weight is negative."""

    weight: float = setting(1.0, "weight relative to the audio; negative: away from it", minimum=-100, maximum=100)
    start: float | None = setting(
        None,
        "time in the track at which its effect starts",
        unit="s",
        minimum=0,
        default_text="the start",
        metavar="TIME",
    )
    end: float | None = setting(
        None, "time in the track at which its effect ends", unit="s", above=0, default_text="the end", metavar="TIME"
    )

    @property
    def content(self) -> str:
        """The text of the prompt, or the file of the image."""
        return str(getattr(self, self.CONTENT))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.end is not None and self.end <= (self.start or 0):
            what = f"the {self.KIND} {self.content!r} ends at {self.end:g} s, before it starts"
            raise SettingsError(what, hint=f'write "0:12-0:30 {self.EXAMPLE}"')

    @classmethod
    def parse(cls: type[AnyGuidance], written: str) -> AnyGuidance:
        """Read `CONTENT`, `CONTENT:WEIGHT` or `0:12-0:30 CONTENT:WEIGHT`; either time may be left out.

        A colon that no number follows is part of the content, and so is text that is not a range of times.
        """
        span = re.fullmatch(rf"(?s)\s*({TIME})?\s*-\s*({TIME})?\s+(.*)", written)
        start, end, rest = (span[1], span[2], span[3]) if span and (span[1] or span[2]) else (None, None, written)
        match = re.fullmatch(r"(?s)(.*):\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)\s*", rest)
        content, weight = (match[1], float(match[2])) if match else (rest, 1.0)
        values: dict[str, Any] = {cls.CONTENT: content.strip(), "weight": weight}
        values |= {"start": parse_time(start) if start else None, "end": parse_time(end) if end else None}
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Prompt(Guidance):
    """A text that guides the picture."""

    KEY, KIND, CONTENT, EXAMPLE = "prompts", "prompt", "text", "a stormy sea:0.5"

    text: str = setting("", "what the picture shows")


@dataclass(frozen=True, kw_only=True)
class StyleImage(Guidance):
    """An image that guides the picture by its CLIP embedding, as a prompt does."""

    KEY, KIND, CONTENT, EXAMPLE = "style_images", "style image", "file", "painting.jpg:0.5"

    file: str = setting("", "image file")


DESTINATIONS: dict[str, tuple[type[SettingsGroup], str]] = {  # what an audio map can modulate: a field of a group
    **{name.replace("_", "-"): (View, name) for name in ("zoom", "pan_x", "pan_y", "rotate")},
    **{f"{name}-speed".replace("_", "-"): (MotionSettings, name) for name in ("zoom", "pan_x", "pan_y", "rotate")},
    "steps": (PaintingSettings, "steps"),
    "learning-rate": (PaintingSettings, "learning_rate"),
    "smoothing": (MotionSettings, "smoothing"),
    "prompt": (Prompt, "weight"),
    "brightness": (View, "brightness"),
    "saturation": (View, "saturation"),
}
PITCHES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
CURVES = ("loudness", "loudness_a", "onset", "centroid", "low", "mid", "high", "onsets", "beats")
FEATURES = (*CURVES, *PITCHES)  # of the track or a stem, frame by frame, as `w2c-gen analyze` writes them
MIX = "mix"  # the name of the whole song among its stems
MAP_EXAMPLE = "drums.onset:zoom=0.04"
MAP_HINT = f"write {MAP_EXAMPLE}, or {MAP_EXAMPLE},offset=0.01,attack=0.02,decay=0.2"


@dataclass(frozen=True, kw_only=True)
class AudioMap(ListItem):
    """A map of an audio feature to a setting: `scale` times the feature, plus `offset`, is added to the setting."""

    KEY, KIND, CONTENT, EXAMPLE = "maps", "map", "source", MAP_EXAMPLE

    source: str = setting("", "FEATURE of the track, or STEM.FEATURE")
    to: str = setting("", "setting that is modulated")
    scale: float = setting(1.0, "amount added where the feature is 1", minimum=-10_000, maximum=10_000)
    offset: float = setting(0.0, "amount added at all times", minimum=-10_000, maximum=10_000)
    attack: float = setting(0.0, "half-life of a rise", unit="s", minimum=0, maximum=60)
    decay: float = setting(0.0, "half-life of a fall", unit="s", minimum=0, maximum=60)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.feature not in FEATURES:
            raise SettingsError(f"no feature is called {self.feature!r}", hint=_map_hint(self.feature, FEATURES))
        if self.stem is not None and not self.stem:
            raise SettingsError(f"{self.source!r} names no stem", hint=MAP_HINT)
        if self.to not in DESTINATIONS and not re.fullmatch(r"prompt\.[1-9]\d*", self.to):
            hint = _map_hint(self.to, [*DESTINATIONS, "prompt.1"])
            raise SettingsError(f"a map cannot modulate {self.to!r}", hint=hint)

    @property
    def stem(self) -> str | None:
        """The stem whose feature it is; None: the whole song."""
        name, dot, _ = self.source.rpartition(".")
        return name if dot and name != MIX else None

    @property
    def feature(self) -> str:
        """The name of the feature."""
        return self.source.rpartition(".")[2]

    @property
    def prompt(self) -> int | None:
        """The number of the prompt whose weight is modulated, from 1; None: no prompt, or all of them."""
        return int(self.to.removeprefix("prompt.")) if self.to.startswith("prompt.") else None

    @property
    def modulates_prompts(self) -> bool:
        """Whether it adds to the weight of prompts, even where their own weight is 0."""
        return (self.to == "prompt" or self.prompt is not None) and (self.scale, self.offset) != (0, 0)

    @classmethod
    def parse(cls, written: str) -> AudioMap:
        """Read `[STEM.]FEATURE:DESTINATION=SCALE[,offset=X][,attack=SECONDS][,decay=SECONDS]`."""
        source, _, target = written.partition(":")
        (to, scale), *others = (_assignment(part, written) for part in target.split(","))
        values: dict[str, Any] = {}
        for name, value in others:
            if name in values or name == to:
                raise SettingsError(f"{written!r} sets {name} twice", hint=MAP_HINT)
            if name not in ("offset", "attack", "decay"):
                hint = "a map modulates one setting; add another --map" if name in DESTINATIONS else MAP_HINT
                raise SettingsError(f"{written!r}: {name!r} is not one of offset, attack and decay", hint=hint)
            values[name] = value
        return cls(source=source.strip(), to=to, scale=scale, **values)


def _map_hint(name: str, known: Iterable[str]) -> str:
    return f"{suggestion(name, list(known))}; {MAP_HINT}"


def _assignment(part: str, written: str) -> tuple[str, float]:
    """Read `NAME=NUMBER`, a part of a map."""
    name, sign, number = (piece.strip() for piece in part.partition("="))
    if not sign or not name:
        raise SettingsError(f"{written!r} is not a map", hint=MAP_HINT)
    try:
        return name, float(number)
    except ValueError:
        raise SettingsError(f"{written!r}: {number!r} is not a number", hint=MAP_HINT) from None
