"""The lists of settings: prompts, style images, stems, and maps of audio features to other settings."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from wav2clip_gen.errors import SettingsError
from wav2clip_gen.fields import SettingsGroup, merge, setting, suggestion
from wav2clip_gen.groups import MotionSettings, PaintingSettings, View
from wav2clip_gen.units import TIME, parse_time

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

AnyItem = TypeVar("AnyItem", bound="ListItem")
AnyGuidance = TypeVar("AnyGuidance", bound="Guidance")

SPAN = re.compile(rf"(?s)\s*({TIME})?\s*[-–—]\s*({TIME})?\s+(.*)")  # TIME-TIME before the content
WEIGHT = re.compile(r"(?s)(.*):(\s*)([-+−]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)\s*")  # :WEIGHT after it
NUMBER = re.compile(r"(?<!\w)[\d.,:]*\d$")  # at the end of the content, as in 16:9
WEIGHT_LIMIT = 100
LONGEST_SHOWN = 70  # characters of a prompt in a message
SHOWN = 5  # prompts in a message


class PromptNote(UserWarning):
    """A prompt, or a line of a file of prompts, may be meant otherwise than it is read, or is left out."""


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
    weight: float = setting(1.0, "weight relative to the other stems", limits=(0, 100))


@dataclass(frozen=True, kw_only=True)
class Guidance(ListItem):
    """A prompt or an image that guides the picture towards it, or away from it if its weight is negative."""

    weight: float = setting(
        1.0, "weight relative to the audio; negative: away from it", limits=(-WEIGHT_LIMIT, WEIGHT_LIMIT)
    )
    start: float | None = setting(
        None,
        "time in the track at which its effect starts",
        unit="s",
        limits=(0, None),
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

    def frames(self, times: Floats, crossfade: float) -> slice:
        """The frames at which it has an effect, of those shown at `times` (F,), in seconds of the track."""
        start = times.searchsorted(self.start - crossfade / 2, "right" if crossfade else "left") if self.start else 0
        end = len(times) if self.end is None else times.searchsorted(self.end + crossfade / 2)
        return slice(int(start), max(int(start), int(end)))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.end is not None and self.end <= (self.start or 0):
            what = f"the {self.KIND} {self.content!r} ends at {self.end:g} s, before it starts"
            raise SettingsError(what, hint=f'write "0:12-0:30 {self.EXAMPLE}"')

    @classmethod
    def parse(cls: type[AnyGuidance], written: str) -> AnyGuidance:
        """Read an item as `interpret` does; its note is a `PromptNote`, a warning."""
        item, note = cls.interpret(written)
        if note:
            warnings.warn(note, PromptNote, stacklevel=2)
        return item

    @classmethod
    def interpret(cls: type[AnyGuidance], written: str) -> tuple[AnyGuidance, str]:
        """Read `CONTENT`, `CONTENT:WEIGHT` or `0:12-0:30 CONTENT:WEIGHT`; either time may be left out.

        What may be words is words: `3-5 people`, as times have a colon or a point; `16:9` and `Area: 51`, as a weight
        without sign and point follows a colon that follows a letter. The note has the way to write the other.
        """
        start, end, rest, about_times = _split_times(written)
        content, weight, about_weight = _split_weight(rest)
        values: dict[str, Any] = {cls.CONTENT: content.strip(), "weight": weight}
        values |= {"start": parse_time(start) if start else None, "end": parse_time(end) if end else None}
        return cls(**values), "; ".join(note for note in (about_times, about_weight) if note)


def _split_times(written: str) -> tuple[str | None, str | None, str, str]:
    """Start, end and the rest of a text, and how to write the times that it does not have but may mean."""
    span = SPAN.fullmatch(written)
    given = [time for time in span.groups()[:2] if time] if span else []
    if span and any(":" in time or "." in time for time in given):
        return span[1], span[2], span[3], ""
    if span and given:
        start, end = (f"{int(time) // 60}:{int(time) % 60:02d}" if time else "" for time in span.groups()[:2])
        return None, None, written, _words(written, f"for times write {shown(f'{start}-{end} {span[3]}')}")
    if clock := re.match(r"\s*(\d+:\d\d(?:\.\d+)?)\s+(?=\S)", written):
        return (
            None,
            None,
            written,
            _words(written, f"for a start write {shown(f'{clock[1]}- {written[clock.end() :]}')}"),
        )
    return None, None, written, ""


def _split_weight(written: str) -> tuple[str, float, str]:
    """Content and weight of a text, and how to write the weight that it does not have but may mean."""
    found = WEIGHT.fullmatch(written)
    if found:
        content, space, number = found.groups()
        whole = number.isdecimal()
        if whole and float(number) > WEIGHT_LIMIT:
            return written, 1.0, _words(written, f"a weight is at most {WEIGHT_LIMIT}")
        if whole and (space or NUMBER.search(content)):
            return written, 1.0, _words(written, f"for a weight write {shown(f'{content}:{float(number)}')}")
        return content, float(number.replace("−", "-")), ""
    if comma := re.fullmatch(r"(?s)(.*):\s*([-+]?\d+),(\d+)\s*", written):
        return written, 1.0, _words(written, f"for a weight write {shown(f'{comma[1]}:{comma[2]}.{comma[3]}')}")
    return written, 1.0, ""


def _words(text: str, other: str) -> str:
    return f"{shown(text)} is read as words; {other}"


def shown(text: str) -> str:
    """A text for a message: in quotes, on one line, and its middle left out if it is long."""
    line = " ".join(text.split())
    return f'"{line}"' if len(line) <= LONGEST_SHOWN else f'"{line[:40]}...{line[-20:]}"'


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
    scale: float = setting(1.0, "amount added where the feature is 1", limits=(-10_000, 10_000))
    offset: float = setting(0.0, "amount added at all times", limits=(-10_000, 10_000))
    attack: float = setting(0.0, "half-life of a rise", unit="s", limits=(0, 60))
    decay: float = setting(0.0, "half-life of a fall", unit="s", limits=(0, 60))

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


def notes_on_inactive(
    guidance: Sequence[Guidance], maps: Sequence[AudioMap], times: Floats, crossfade: float
) -> list[str]:
    """Lines about prompts and images that have no weight in any frame, as far as this is known without the audio.

    Args:
        guidance: Prompts, and then images.
        maps: May give a prompt a weight.
        times: Of the film's frames (F,), in seconds of the track.
        crossfade: Seconds.
    """
    numbers = {one.prompt for one in maps if one.modulates_prompts}  # None: of all prompts
    unweighted, outside = [], []
    for number, one in enumerate(guidance, 1):
        frames = one.frames(times, crossfade)
        if not one.weight and not (isinstance(one, Prompt) and numbers & {number, None}):
            unweighted.append(one)
        elif frames.start == frames.stop:
            outside.append(one)
    notes = [f"no effect, as the weight is 0: {shown_contents(unweighted)}"] if unweighted else []
    if outside:
        span = f"{times[0]:.4g} s to {times[-1]:.4g} s" if len(times) else "no frames"
        notes.append(f"no effect, as the times are not in the film ({span} of the track): {shown_contents(outside)}")
    return notes


def shown_contents(items: Sequence[Guidance]) -> str:
    """Prompts and images for a message: the first of them, and how many more."""
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(shown(one.content) for one in items[:SHOWN]) + more


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
