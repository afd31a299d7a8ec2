"""What pulls the picture beside the sound: words and pictures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from wav2clip_gen.errors import SettingsError
from wav2clip_gen.settings.knobs import TIME, Group, knob, merge_group, parse_time

AnyPull = TypeVar("AnyPull", bound="Pull")


@dataclass(frozen=True, kw_only=True)
class Pull(Group):
    """What pulls the picture towards it, or, with a negative weight, away from it."""

    KIND: ClassVar[str]  # what a person calls it
    HELD: ClassVar[str]  # the field that says what pulls
    EXAMPLE: ClassVar[str]

    weight: float = knob(1.0, "pull beside the sound's own; negative: away from it", minimum=-100, maximum=100)
    start: float | None = knob(None, "when in the track it begins to pull; none: at once", unit="s", minimum=0)
    end: float | None = knob(None, "when it ceases; none: at the track's end", unit="s", above=0)

    @property
    def held(self) -> str:
        """What pulls, as it was written: the words, or the picture's file."""
        return str(getattr(self, self.HELD))

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.held.strip():
            what = f"a {self.KIND} has no {'words' if self.HELD == 'text' else self.HELD}"
            raise SettingsError(what, hint=f'write it as "{self.EXAMPLE}" or "{self.EXAMPLE}:0.5"')
        if self.end is not None and self.end <= (self.start or 0):
            what = f"the {self.KIND} {self.held!r} ends at {self.end:g} s, before it begins"
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
class Prompt(Pull):
    """Words that pull the picture towards them, or, with a negative weight, away from them."""

    KIND, HELD, EXAMPLE = "prompt", "text", "a stormy sea"

    text: str = knob("", "words")


@dataclass(frozen=True, kw_only=True)
class StyleImage(Pull):
    """A picture that pulls as words do, by what the perceptor sees in it."""

    KIND, HELD, EXAMPLE = "style image", "file", "painting.jpg"

    file: str = knob("", "the picture's file")


def read_pull(kind: type[Pull], section: str, item: Any) -> Pull:
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
