"""All settings of a video, merged from presets, YAML files, `key=value` assignments and options."""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from wav2clip_gen.errors import SettingsError
from wav2clip_gen.fields import (
    SEPARATORS,
    Group,
    MotionSettings,
    PaintingSettings,
    PictureSettings,
    RunSettings,
    SoundSettings,
    View,
    describe_range,
    knobs,
    merge_group,
    parse_time,
    suggestion,
)
from wav2clip_gen.guidance import (
    DESTINATIONS,
    FEATURES,
    MIX,
    PITCHES,
    AudioMap,
    Guidance,
    Prompt,
    StemWeight,
    StyleImage,
    read_drive,
    read_pull,
)

PRESETS = Path(__file__).with_name("presets")

__all__ = [
    "DESTINATIONS", "FEATURES", "MIX", "PITCHES", "SECTIONS", "SEPARATORS", "AudioMap", "Group", "Guidance",
    "MotionSettings", "PaintingSettings", "PictureSettings", "Prompt", "RunSettings", "Settings", "SoundSettings",
    "StemWeight", "StyleImage", "View", "describe_range", "knobs", "parse_time", "suggestion",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that decides a film, beside the track and the weights."""

    sound: SoundSettings = field(default_factory=SoundSettings)
    picture: PictureSettings = field(default_factory=PictureSettings)
    painting: PaintingSettings = field(default_factory=PaintingSettings)
    motion: MotionSettings = field(default_factory=MotionSettings)
    run: RunSettings = field(default_factory=RunSettings)
    prompts: tuple[Prompt, ...] = ()
    style_images: tuple[StyleImage, ...] = ()
    stems: tuple[StemWeight, ...] = ()  # none: the whole song steers
    stem_files: tuple[str, ...] = ()  # each NAME=FILE, a folder of stems or a .stem.mp4
    maps: tuple[AudioMap, ...] = ()  # what the sound's features drive

    def __post_init__(self) -> None:
        names = [stem.name for stem in self.stems]
        twice = [name for place, name in enumerate(names) if name in names[:place]]
        if twice:
            raise SettingsError(f"the stem {twice[0]} is named twice", hint="name each stem once")

    @property
    def required_stems(self) -> tuple[str, ...]:
        """The stems that are needed, each once, whether they steer or not."""
        heard = (drive.stem for drive in self.maps)
        return tuple(dict.fromkeys([*(stem.name for stem in self.stems), *(name for name in heard if name)]))

    @property
    def guidance(self) -> tuple[Guidance, ...]:
        """Words and pictures that pull beside the sound."""
        return (*self.prompts, *self.style_images)

    @property
    def image_files(self) -> tuple[str, ...]:
        """All pictures that take part, each once."""
        files = (self.painting.init_image, *(image.file for image in self.style_images))
        return tuple(dict.fromkeys(file for file in files if file is not None))

    def with_image_files(self, place: Callable[[str], str]) -> Settings:
        """The same, with the pictures where `place` says."""
        first = self.painting.init_image
        return replace(
            self,
            painting=replace(self.painting, init_image=None if first is None else place(first)),
            style_images=tuple(replace(image, file=place(image.file)) for image in self.style_images),
        )

    def require_guidance(self) -> None:
        """Make sure that something steers the picture: the sound or some of its stems, words or a style image.

        Raises:
            SettingsError: Nothing does, or what was chosen cannot.
        """
        if self.stems and self.sound.weight == 0:
            raise SettingsError(
                "the sound's weight is 0, so no stem steers", hint="give sound.weight more, or no stems"
            )
        if self.picture.layout != "single" and not self.stems:
            raise SettingsError(
                f"a layout {self.picture.layout} is made of stems, and none is named", hint="add --stems vocals,drums"
            )
        if self.stem_files and not self.required_stems:
            raise SettingsError("files of stems are given, but no stem is named", hint="add --stems vocals,drums")
        weighed = [stem.name for stem in self.stems if stem.weight != 1]
        if self.picture.layout != "single" and weighed:
            raise SettingsError(
                f"a layout {self.picture.layout} shows each stem by itself, so the weight of {weighed[0]} says nothing",
                hint="leave --stem-weight out, or --layout",
            )
        heard = self.sound.weight > 0 and (not self.stems or any(stem.weight for stem in self.stems))
        pulled = any(pull.weight for pull in self.guidance) or any(drive.pulls for drive in self.maps)
        if not heard and not pulled:
            raise SettingsError(
                "nothing steers the picture", hint="give sound.weight, a stem or a prompt a weight above 0"
            )

    def require_prompts(self) -> None:
        """Make sure that the prompts are there whose weights the sound drives.

        Raises:
            SettingsError: One is not.
        """
        for drive in self.maps:
            if (drive.prompt or (drive.to == "prompt")) > len(self.prompts):
                count = f"{len(self.prompts)} prompts are" if len(self.prompts) != 1 else "1 prompt is"
                what = f"{drive.source}:{drive.to} drives a prompt that is not there; {count} given"
                raise SettingsError(what, hint='add one, as in -p "a stormy sea"')

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as the run record and presets hold them."""
        plain = asdict(self)
        return plain | {name: list(plain[name]) for name in LISTS}

    def with_stem_weights(self, weights: Mapping[str, float]) -> Settings:
        """These settings with other weights of some stems.

        Raises:
            SettingsError: A name is none of the stems', or a weight is out of range.
        """
        names = [stem.name for stem in self.stems]
        for name in weights:
            if name not in names:
                hint = suggestion(name, names) if names else "add --stems vocals,drums"
                raise SettingsError(f"no stem {name!r} steers, so it has no weight", hint=hint)
        stems = tuple(replace(stem, weight=weights.get(stem.name, stem.weight)) for stem in self.stems)
        return replace(self, stems=stems)

    def merged(self, changes: Mapping[str, Any]) -> Settings:
        """These settings with `changes` ({group: {name: value}} and whole lists, such as `prompts`) laid over them.

        Raises:
            SettingsError: A name is unknown or a value is out of range.
        """
        updates: dict[str, Any] = {}
        for name, value in changes.items():
            if name in LISTS:
                updates[name] = tuple(LISTS[name](item) for item in _sequence(value))
            elif name in SECTIONS:
                updates[name] = merge_group(getattr(self, name), name, value)
            else:
                raise SettingsError(f"no settings are called {name!r}", hint=suggestion(str(name), [*SECTIONS, *LISTS]))
        return replace(self, **updates)


SECTIONS: dict[str, type[Group]] = {
    "sound": SoundSettings, "picture": PictureSettings, "painting": PaintingSettings, "motion": MotionSettings,
    "run": RunSettings,
}  # fmt: skip


def _stem(item: Any) -> StemWeight:
    if isinstance(item, StemWeight):
        return item
    if isinstance(item, str):
        return StemWeight(name=item.strip())
    if isinstance(item, Mapping) and "name" in item:
        return merge_group(StemWeight(name="unnamed"), "stems", item)
    raise SettingsError(f"a stem is a name, not {item!r}", hint="write `stems: [vocals, {name: drums, weight: 2}]`")


def _stem_file(item: Any) -> str:
    if isinstance(item, str) and item.strip():
        return item
    raise SettingsError(f"a file of a stem is NAME=FILE, not {item!r}", hint='write `stem_files: ["drums=d.wav"]`')


LISTS: dict[str, Callable[[Any], Any]] = {
    "prompts": partial(read_pull, Prompt, "prompts"),
    "style_images": partial(read_pull, StyleImage, "style_images"),
    "stems": _stem,
    "stem_files": _stem_file,
    "maps": read_drive,
}


def _sequence(value: Any) -> list[Any] | tuple[Any, ...]:
    return value if isinstance(value, (list, tuple)) else [value]


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
