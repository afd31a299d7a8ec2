"""What guides the frames: prompts, style images, stems, and maps of audio features to settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from wav2clip_gen.errors import SettingsError
from wav2clip_gen.fields import (
    TIME,
    Group,
    MotionSettings,
    PaintingSettings,
    View,
    knob,
    merge_group,
    parse_time,
    suggestion,
)

AnyPull = TypeVar("AnyPull", bound="Guidance")


@dataclass(frozen=True, kw_only=True)
class StemWeight(Group):
    """A part of the song that steers the picture by itself."""

    name: str = knob("", "vocals, drums, bass, other, or a name that was given to a file")
    weight: float = knob(1.0, "its pull beside the other stems'", minimum=0, maximum=100)


@dataclass(frozen=True, kw_only=True)
class Guidance(Group):
    """What pulls the picture towards it, or, with a negative weight, away from it."""

    KIND: ClassVar[str]  # what a person calls it
    HELD: ClassVar[str]  # the field that says what pulls
    EXAMPLE: ClassVar[str]

    weight: float = knob(1.0, "pull beside the sound's own; negative: away from it", minimum=-100, maximum=100)
    start: float | None = knob(None, "when in the track it begins to pull; none: at once", unit="s", minimum=0)
    end: float | None = knob(None, "when it ceases; none: at the track's end", unit="s", above=0)

    @property
    def content(self) -> str:
        """What pulls, as it was written: the words, or the picture's file."""
        return str(getattr(self, self.HELD))

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.content.strip():
            what = f"a {self.KIND} has no {'words' if self.HELD == 'text' else self.HELD}"
            raise SettingsError(what, hint=f'write it as "{self.EXAMPLE}" or "{self.EXAMPLE}:0.5"')
        if self.end is not None and self.end <= (self.start or 0):
            what = f"the {self.KIND} {self.content!r} ends at {self.end:g} s, before it begins"
            raise SettingsError(what, hint=f'write "0:12-0:30 {self.EXAMPLE}"')

    @classmethod
    def parse(cls: type[AnyPull], written: str) -> AnyPull:
        """Read `words`, `words:weight` or `0:12-0:30 words:weight`; either time may be left out.

        A colon that no number follows belongs to the words, and so does what only resembles two times. A picture's
        file stands where words would.
        """
        span = re.fullmatch(rf"(?s)\s*({TIME})?\s*-\s*({TIME})?\s+(.*)", written)
        start, end, words = (span[1], span[2], span[3]) if span and (span[1] or span[2]) else (None, None, written)
        match = re.fullmatch(r"(?s)(.*):\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)\s*", words)
        held, weight = (match[1], float(match[2])) if match else (words, 1.0)
        values: dict[str, Any] = {cls.HELD: held.strip(), "weight": weight}
        values |= {"start": parse_time(start) if start else None, "end": parse_time(end) if end else None}
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Prompt(Guidance):
    """Words that pull the picture towards them, or, with a negative weight, away from them."""

    KIND, HELD, EXAMPLE = "prompt", "text", "a stormy sea"

    text: str = knob("", "words")


@dataclass(frozen=True, kw_only=True)
class StyleImage(Guidance):
    """A picture that pulls as words do, by what the perceptor sees in it."""

    KIND, HELD, EXAMPLE = "style image", "file", "painting.jpg"

    file: str = knob("", "the picture's file")


def read_pull(kind: type[Guidance], section: str, item: Any) -> Guidance:
    """What is meant by an item of a list of prompts or style images, as configuration files hold them."""
    if isinstance(item, kind):
        return item
    if isinstance(item, str):
        return kind.parse(item)
    if isinstance(item, Mapping):
        held: dict[str, Any] = {kind.HELD: item.get(kind.HELD, "")}
        return merge_group(kind(**held), section, item)
    words = "words" if kind is Prompt else f"a {kind.HELD}"
    raise SettingsError(f"a {kind.KIND} is {words}, not {item!r}", hint=f'write `{section}: ["{kind.EXAMPLE}:0.5"]`')


DESTINATIONS: dict[str, tuple[type[Group], str]] = {  # what a sound can drive, and the knob of which it is
    **{name.replace("_", "-"): (View, name) for name in ("zoom", "pan_x", "pan_y", "rotate")},
    **{f"{name}-speed".replace("_", "-"): (MotionSettings, name) for name in ("zoom", "pan_x", "pan_y", "rotate")},
    "steps": (PaintingSettings, "steps"), "learning-rate": (PaintingSettings, "learning_rate"), "smoothing": (MotionSettings, "smoothing"),
    "prompt": (Prompt, "weight"), "brightness": (View, "brightness"), "saturation": (View, "saturation"),
}  # fmt: skip
PITCHES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
FEATURES = (  # of a sound, frame by frame, as `analyze` writes them
    "loudness", "loudness_a", "onset", "centroid", "low", "mid", "high", "onsets", "beats", *PITCHES,
)  # fmt: skip
MIX = "mix"  # the song itself, among its stems


@dataclass(frozen=True, kw_only=True)
class AudioMap(Group):
    """A feature of the song, or of a stem, that drives a setting: it adds `scale` times its value, and `offset`."""

    source: str = knob("", "a feature, or STEM.FEATURE")
    to: str = knob("", "what it drives")
    scale: float = knob(1.0, "how much is added where the feature is 1", minimum=-10_000, maximum=10_000)
    offset: float = knob(0.0, "how much is added at all times", minimum=-10_000, maximum=10_000)
    attack: float = knob(0.0, "half-life of a rise", unit="s", minimum=0, maximum=60)
    decay: float = knob(0.0, "half-life of a fall", unit="s", minimum=0, maximum=60)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.feature not in FEATURES:
            raise SettingsError(f"no feature is called {self.feature!r}", hint=_drive_hint(self.feature, FEATURES))
        if self.stem is not None and not self.stem:
            raise SettingsError(f"{self.source!r} names no stem", hint=DRIVE_EXAMPLE)
        if self.to not in DESTINATIONS and not re.fullmatch(r"prompt\.[1-9]\d*", self.to):
            known = [*DESTINATIONS, "prompt.1"]
            raise SettingsError(f"nothing that a sound drives is called {self.to!r}", hint=_drive_hint(self.to, known))

    @property
    def stem(self) -> str | None:
        """Whose feature it is; None for the whole song's."""
        name, dot, _ = self.source.rpartition(".")
        return name if dot and name != MIX else None

    @property
    def feature(self) -> str:
        """What is measured."""
        return self.source.rpartition(".")[2]

    @property
    def prompt(self) -> int | None:
        """Which prompt it drives, from 1; None for none, or for all."""
        return int(self.to.removeprefix("prompt.")) if self.to.startswith("prompt.") else None

    @property
    def pulls(self) -> bool:
        """Whether it gives prompts a weight, even those that have none by themselves."""
        return (self.to == "prompt" or self.prompt is not None) and (self.scale, self.offset) != (0, 0)

    @classmethod
    def parse(cls, written: str) -> AudioMap:
        """Read `[STEM.]FEATURE:DESTINATION=SCALE[,offset=X][,attack=SECONDS][,decay=SECONDS]`."""
        source, _, driven = written.partition(":")
        (to, scale), *others = (_named_number(part, written) for part in driven.split(","))
        values: dict[str, Any] = {}
        for name, value in others:
            if name in values or name == to:
                raise SettingsError(f"{written!r} says twice what {name} is", hint=DRIVE_EXAMPLE)
            if name not in ("offset", "attack", "decay"):
                hint = "one --map drives one thing; give another" if name in DESTINATIONS else DRIVE_EXAMPLE
                raise SettingsError(f"{written!r}: {name!r} is none of offset, attack and decay", hint=hint)
            values[name] = value
        return cls(source=source.strip(), to=to, scale=scale, **values)


DRIVE_EXAMPLE = "write drums.onset:zoom=0.04, or with ,offset=0.01,attack=0.02,decay=0.2 behind it"


def _drive_hint(name: str, known: Iterable[str]) -> str:
    return f"{suggestion(name, list(known))}; {DRIVE_EXAMPLE}"


def _named_number(part: str, written: str) -> tuple[str, float]:
    """Read `name=number`, a part of a map."""
    name, sign, number = (piece.strip() for piece in part.partition("="))
    if not sign or not name:
        raise SettingsError(f"{written!r} is no map", hint=DRIVE_EXAMPLE)
    try:
        return name, float(number)
    except ValueError:
        raise SettingsError(f"{written!r}: {number!r} is no number", hint=DRIVE_EXAMPLE) from None


def read_drive(item: Any) -> AudioMap:
    """What is meant by an item of a list of maps, as configuration files hold them."""
    if isinstance(item, AudioMap):
        return item
    if isinstance(item, str):
        return AudioMap.parse(item)
    if isinstance(item, Mapping) and "source" in item and "to" in item:
        return merge_group(AudioMap(source=item["source"], to=item["to"]), "maps", item)
    raise SettingsError(
        f"a map is a feature and what it drives, not {item!r}", hint='write `maps: ["onset:zoom=0.04"]`'
    )
