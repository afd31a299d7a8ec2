"""A knob: one setting with its name, meaning, unit, default and range."""

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
    for name in changes:
        if name not in known:
            raise SettingsError(f"no setting is called {section}.{name}", hint=suggestion(str(name), known))
    return replace(group, **changes)


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
