"""What a setting is: its meaning, unit, range, default and command-line option; how it is checked and merged."""

from __future__ import annotations

import difflib
import math
import typing
import warnings
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from wav2clip_gen.errors import SettingsError
from wav2clip_gen.units import parse_time

if TYPE_CHECKING:
    from omegaconf import DictConfig


class DeprecatedNameWarning(FutureWarning):
    """A setting was given under a name that has been replaced."""


def setting(
    default: Any,
    meaning: str,
    *,
    unit: str = "",
    limits: tuple[float | None, float | None] = (None, None),
    above: float | None = None,
    choices: tuple[Any, ...] = (),
    default_text: str = "",
    deprecated: str = "",
    panel: str = "",
    everyday: bool = False,
    flags: tuple[str, ...] | None = None,
    metavar: str | None = None,
) -> Any:
    """A dataclass field for one setting.

    Args:
        default: The default value.
        meaning: What it sets, for help and documentation.
        unit: Unit of the value.
        limits: Smallest and largest value allowed.
        above: Largest value that is too small.
        choices: All values allowed, if they are few.
        default_text: The default in words, where the value is not clear by itself.
        deprecated: An earlier name, which is still accepted.
        panel: Panel of the help in which the option is shown.
        everyday: Whether `--help` shows the option, or only `--help-all`.
        flags: Names of the option; by default the setting's own. Empty: it has no option.
        metavar: What the help shows for the value; TIME also accepts minutes, as in 1:15.
    """
    about = {name: value for name, value in locals().items() if name not in ("default", "limits")}
    return field(default=default, metadata=about | {"minimum": limits[0], "maximum": limits[1]})


@dataclass(frozen=True, kw_only=True)
class SettingsGroup:
    """Base of all groups of settings; checks the type and range of every value."""

    PANEL: ClassVar[str] = ""  # of the help, where a setting names no other

    def __post_init__(self) -> None:
        kinds = typing.get_type_hints(type(self))
        for item in fields(self):
            _check(item, kinds[item.name], getattr(self, item.name))


def _check(item: Field[Any], kind: Any, value: Any) -> None:
    """Raise a SettingsError unless `value` is a `kind` (an int is a float too) within the setting's range."""
    whole_number = type(value) is int and isinstance(0.0, kind)
    if (isinstance(value, bool) and kind is not bool) or not (isinstance(value, kind) or whole_number):
        raise wrong_type(item, kind, value)
    if value is None:
        return
    allowed, unit = item.metadata, f" {item.metadata['unit']}" if item.metadata["unit"] else ""
    if allowed["choices"] and value not in allowed["choices"]:
        hint = f"choose from: {', '.join(map(str, allowed['choices']))}"
        raise SettingsError(f"{_label(item)} cannot be {value}", hint=hint)
    if isinstance(value, (int, float)) and not _within(value, allowed):
        hint = f"{allowed['meaning']}; {describe_range(item)}"
        shown = f"{value:g}" if isinstance(value, float) else value
        raise SettingsError(f"{_label(item)} cannot be {shown}{unit}", hint=hint)


def wrong_type(item: Field[Any], kind: Any, value: Any) -> SettingsError:
    """The error for a value of another type than `kind`."""
    names = " or ".join("empty" if one is type(None) else one.__name__ for one in typing.get_args(kind) or (kind,))
    return SettingsError(f"{_label(item)} must be {names}, not {value!r}", hint=item.metadata["meaning"])


def _label(item: Field[Any]) -> str:
    return item.name.replace("_", " ")


def _within(value: float, allowed: Mapping[str, Any]) -> bool:
    return (
        (isinstance(value, int) or math.isfinite(value))
        and (allowed["minimum"] is None or value >= allowed["minimum"])
        and (allowed["maximum"] is None or value <= allowed["maximum"])
        and (allowed["above"] is None or value > allowed["above"])
    )


def describe_range(item: Field[Any]) -> str:
    """The range of a setting in words, such as "from 1 to 120 1/s"."""
    allowed = item.metadata
    if allowed["choices"]:
        return ", ".join(map(str, allowed["choices"]))
    low = f"above {allowed['above']:g}" if allowed["above"] is not None else ""
    low = f"from {allowed['minimum']:g}" if allowed["minimum"] is not None else low
    high = f"to {allowed['maximum']:g}" if allowed["maximum"] is not None and allowed["maximum"] < 2**62 else ""
    return " ".join(part for part in (low, high, allowed["unit"]) if part)


AnyGroup = TypeVar("AnyGroup", bound=SettingsGroup)


def merge(base: AnyGroup | type[AnyGroup], section: str, changes: Any) -> AnyGroup:
    """Merge `changes` ({name: value}) into a group of settings, or into the defaults of its class, with OmegaConf.

    Args:
        base: The group or its class.
        section: Its key in a settings file, for messages.
        changes: The new values.

    Raises:
        SettingsError: A name is unknown, or a value has the wrong type or is out of range.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import ValidationError

    if not isinstance(changes, Mapping):
        raise SettingsError(f"{section} is a group of settings, not {changes!r}", hint=f"write `{section}: {{...}}`")
    known = {item.name: item for item in fields(base)}
    changes = _current_names(known, section, changes)
    for name in changes:
        if name not in known:
            raise SettingsError(f"no setting is called {section}.{name}", hint=_suggest_setting(str(name), known))
    for name, value in changes.items():
        if known[name].metadata["metavar"] == "TIME" and isinstance(value, str):
            changes[name] = parse_time(value)
    group: type[SettingsGroup] = base if isinstance(base, type) else type(base)
    # A text that OmegaConf would read as an interpolation or as a missing value is kept as it is.
    literal = {name: value for name, value in changes.items() if isinstance(value, str) and _is_special(value)}
    values = {name: value for name, value in changes.items() if name not in literal}
    try:
        merged = typing.cast("DictConfig", OmegaConf.merge(OmegaConf.structured(group), values))
    except ValidationError as error:
        name = str(error.key)
        raise wrong_type(known[name], typing.get_type_hints(group)[name], changes[name]) from None
    converted = {name: merged[name] for name in values} | literal
    return base(**converted) if isinstance(base, type) else replace(base, **converted)


def _is_special(value: str) -> bool:
    return "${" in value or value == "???"


def _suggest_setting(name: str, known: Mapping[str, Field[Any]]) -> str:
    """A hint for an unknown setting; one that is near to a deprecated name means the current one."""
    current = {item.metadata["deprecated"]: current for current, item in known.items() if item.metadata["deprecated"]}
    close = difflib.get_close_matches(name, [*known, *current], n=1)
    return f"did you mean {current.get(close[0], close[0])}?" if close else suggestion(name, list(known))


def _current_names(known: Mapping[str, Field[Any]], section: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Replace deprecated names in `changes`, each with a warning."""
    current = {item.metadata["deprecated"]: name for name, item in known.items() if item.metadata["deprecated"]}
    renamed = {}
    for name, value in changes.items():
        if name in current:
            message = f"{section}.{name} is deprecated; use {section}.{current[name]}"
            warnings.warn(message, DeprecatedNameWarning, stacklevel=3)
        if name not in current or current[name] not in changes:  # the current name wins
            renamed[current.get(name, name)] = value
    return renamed


def suggestion(name: str, known: list[str]) -> str:
    """A hint for a name that is not among `known`."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"choose from: {', '.join(known)}"
