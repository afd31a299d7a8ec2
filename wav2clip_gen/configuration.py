"""Settings from presets, files and `key=value` assignments, read with OmegaConf. Knows no torch."""

from __future__ import annotations

import re
import typing
from pathlib import Path
from typing import Any

from wav2clip_gen.errors import SettingsError
from wav2clip_gen.settings import Settings, suggestion

PRESETS = Path(__file__).with_name("presets")


def preset_names() -> list[str]:
    """Names of the presets that ship with the package."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def family_settings(family: str) -> Settings:
    """What suits a family of networks: the defaults are made for `mini`, published ones have a preset of their name."""
    path = PRESETS / f"{family}.yaml"
    return Settings().merged(read_yaml(path)) if path.is_file() else Settings()


def settings_from(
    base: Settings | None = None,
    *,
    preset: str | None = None,
    config: Path | None = None,
    assignments: tuple[str, ...] = (),
) -> Settings:
    """`base` or the defaults, then a preset, a config file and `key=value` assignments, each over the one before.

    Raises:
        SettingsError: A file cannot be read, or a name or value is not allowed.
    """
    settings = base or Settings()
    if preset is not None:
        if preset not in preset_names():
            raise SettingsError(f"no preset is called {preset!r}", hint=suggestion(preset, preset_names()))
        settings = settings.merged(read_yaml(PRESETS / f"{preset}.yaml"))
    if config is not None:
        settings = settings.merged(read_yaml(config))
    if assignments:
        settings = settings.merged(_parse_assignments(assignments))
    return settings


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a settings file with OmegaConf (so `${...}` works).

    Raises:
        SettingsError: It is missing or is no YAML mapping.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror})", hint="give a YAML file to --config") from None
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise SettingsError(f"{path}: holds no settings", hint="write `painting: {steps: 8}`")
    return typing.cast("dict[str, Any]", content)


def _parse_assignments(assignments: tuple[str, ...]) -> dict[str, Any]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    for assignment in assignments:
        if not re.fullmatch(r"(?s)[a-z_]+\.[a-z_]+=.+", assignment):
            raise SettingsError(f"--set {assignment}: not a setting", hint="write --set painting.steps=8")
    try:
        content = OmegaConf.to_container(OmegaConf.from_dotlist(list(assignments)), resolve=True)
    except (OmegaConfBaseException, YAMLError) as error:
        raise SettingsError(f"--set: {' '.join(str(error).split())}") from None
    return typing.cast("dict[str, Any]", content)
