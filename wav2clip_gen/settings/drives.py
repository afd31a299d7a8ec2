"""What the features of a sound drive."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from wav2clip_gen.errors import SettingsError
from wav2clip_gen.settings.groups import Motion, Painting, View
from wav2clip_gen.settings.knobs import Group, knob, merge_group, suggestion
from wav2clip_gen.settings.pulls import Prompt

DESTINATIONS: dict[str, tuple[type[Group], str]] = {  # what a sound can drive, and the knob of which it is
    **{name.replace("_", "-"): (View, name) for name in ("zoom", "pan_x", "pan_y", "rotate")},
    **{f"{name}-speed".replace("_", "-"): (Motion, name) for name in ("zoom", "pan_x", "pan_y", "rotate")},
    "steps": (Painting, "steps"), "learning-rate": (Painting, "learning_rate"), "smoothing": (Motion, "smoothing"),
    "prompt": (Prompt, "weight"), "brightness": (View, "brightness"), "saturation": (View, "saturation"),
}  # fmt: skip
PITCHES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
FEATURES = (  # of a sound, frame by frame, as `analyze` writes them
    "loudness", "loudness_a", "onset", "centroid", "low", "mid", "high", "onsets", "beats", *PITCHES,
)  # fmt: skip
MIX = "mix"  # the song itself, among its stems


@dataclass(frozen=True, kw_only=True)
class Drive(Group):
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
    def parse(cls, written: str) -> Drive:
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


def read_drive(item: Any) -> Drive:
    """What is meant by an item of a list of maps, as configuration files hold them."""
    if isinstance(item, Drive):
        return item
    if isinstance(item, str):
        return Drive.parse(item)
    if isinstance(item, Mapping) and "source" in item and "to" in item:
        return merge_group(Drive(source=item["source"], to=item["to"]), "maps", item)
    raise SettingsError(
        f"a map is a feature and what it drives, not {item!r}", hint='write `maps: ["onset:zoom=0.04"]`'
    )
