"""All settings of a video, and their sources: presets, YAML files, `key=value` assignments and run records."""

from __future__ import annotations

import re
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import Field, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from wav2clip_gen.errors import SettingsError
from wav2clip_gen.fields import DeprecatedNameWarning, SettingsGroup, describe_range, merge, suggestion
from wav2clip_gen.groups import (
    SEPARATORS,
    MotionSettings,
    PaintingSettings,
    PictureSettings,
    RunSettings,
    SoundSettings,
    View,
)
from wav2clip_gen.guidance import (
    CURVES,
    DESTINATIONS,
    FEATURES,
    MIX,
    PITCHES,
    AudioMap,
    Guidance,
    Prompt,
    PromptNote,
    StemWeight,
    StyleImage,
)
from wav2clip_gen.units import parse_time

__all__ = [
    "CURVES", "DESTINATIONS", "FEATURES", "LISTS", "MIX", "PITCHES", "PRESETS", "SECTIONS", "SEPARATORS", "AudioMap",
    "DeprecatedNameWarning", "Guidance", "MotionSettings", "PaintingSettings", "PictureSettings", "Prompt",
    "PromptNote", "RunSettings", "Settings", "SettingsGroup", "SoundSettings", "StemWeight", "StyleImage", "View",
    "all_settings", "describe_range", "family_settings", "parse_time", "preset_names", "read_yaml", "settings_from",
    "suggestion",
]  # fmt: skip

PRESETS = Path(__file__).with_name("presets")
SECTIONS: dict[str, type[SettingsGroup]] = {
    "sound": SoundSettings,
    "picture": PictureSettings,
    "painting": PaintingSettings,
    "motion": MotionSettings,
    "run": RunSettings,
}
DEFAULT_MAPS = (  # onsets and bass move the view a little, and loudness the colours; docs/motion.md has the figures
    "onset:zoom=0.08,decay=0.1",
    "onset:brightness=0.08,decay=0.1",
    "low:zoom=0.02,attack=0.02,decay=0.2",
    "loudness:brightness=0.15,offset=-0.15,attack=0.1,decay=0.3",
    "loudness:saturation=0.3,offset=-0.1,attack=0.1,decay=0.3",
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings that decide how a video looks, except the track and the weights."""

    sound: SoundSettings = field(default_factory=SoundSettings)
    picture: PictureSettings = field(default_factory=PictureSettings)
    painting: PaintingSettings = field(default_factory=PaintingSettings)
    motion: MotionSettings = field(default_factory=MotionSettings)
    run: RunSettings = field(default_factory=RunSettings)
    prompts: tuple[Prompt, ...] = ()
    style_images: tuple[StyleImage, ...] = ()
    stems: tuple[StemWeight, ...] = ()  # empty: the whole song guides the picture
    stem_files: tuple[str, ...] = ()  # each NAME=FILE, a folder of stems or a .stem.mp4
    maps: tuple[AudioMap, ...] = tuple(map(AudioMap.parse, DEFAULT_MAPS))

    def __post_init__(self) -> None:
        names = [stem.name for stem in self.stems]
        twice = [name for place, name in enumerate(names) if name in names[:place]]
        if twice:
            raise SettingsError(f"the stem {twice[0]} is named twice", hint="name each stem once")

    @property
    def required_stems(self) -> tuple[str, ...]:
        """All stems that guide the picture or that a map refers to, each once."""
        mapped = (one.stem for one in self.maps)
        return tuple(dict.fromkeys([*(stem.name for stem in self.stems), *(name for name in mapped if name)]))

    @property
    def guidance(self) -> tuple[Guidance, ...]:
        """Prompts and style images."""
        return (*self.prompts, *self.style_images)

    @property
    def image_files(self) -> tuple[str, ...]:
        """All image files, each once."""
        files = (self.painting.init_image, *(image.file for image in self.style_images))
        return tuple(dict.fromkeys(file for file in files if file is not None))

    def with_image_files(self, move: Callable[[str], str]) -> Settings:
        """These settings with the path of every image file changed by `move`."""
        first = self.painting.init_image
        return replace(
            self,
            painting=replace(self.painting, init_image=None if first is None else move(first)),
            style_images=tuple(replace(image, file=move(image.file)) for image in self.style_images),
        )

    def with_needed_stem_files(self) -> Settings:
        """These settings without the files of stems that are not required."""
        needed = self.required_stems
        files = tuple(file for file in self.stem_files if "=" not in file or file.partition("=")[0] in needed)
        return replace(self, stem_files=files)

    def with_stem_weights(self, weights: Mapping[str, float]) -> Settings:
        """These settings with other weights for some stems.

        Raises:
            SettingsError: A name is not among the stems, or a weight is out of range.
        """
        names = [stem.name for stem in self.stems]
        for name in weights:
            if name not in names:
                hint = suggestion(name, names) if names else "add --stems vocals,drums"
                raise SettingsError(f"{name!r} is not among the stems, so it has no weight", hint=hint)
        stems = tuple(replace(stem, weight=weights.get(stem.name, stem.weight)) for stem in self.stems)
        return replace(self, stems=stems)

    def require_guidance(self) -> None:
        """Check that something guides the picture: the audio or some of its stems, prompts or a style image.

        Raises:
            SettingsError: Nothing does, or settings contradict each other.
        """
        if self.stems and self.sound.weight == 0:
            hint = "raise --audio-weight (sound.weight), or leave --stems out"
            raise SettingsError("the audio weight is 0, so the stems have no effect", hint=hint)
        if self.picture.layout != "single" and not self.stems:
            what = f"the layout {self.picture.layout} needs stems, but none are named"
            raise SettingsError(what, hint="add --stems vocals,drums")
        if self.stem_files and not self.required_stems:
            raise SettingsError("stem files are given, but no stem is named", hint="add --stems vocals,drums")
        weighted = [stem.name for stem in self.stems if stem.weight != 1]
        if self.picture.layout != "single" and weighted:
            what = (
                f"the layout {self.picture.layout} shows each stem alone, so the weight of {weighted[0]} has no effect"
            )
            raise SettingsError(what, hint="leave out --stem-weight or --layout")
        audio = self.sound.weight > 0 and (not self.stems or any(stem.weight for stem in self.stems))
        other = any(one.weight for one in self.guidance) or any(one.modulates_prompts for one in self.maps)
        if not audio and not other:
            hint = "give the audio, a stem, a prompt or a style image a weight above 0"
            raise SettingsError("nothing guides the picture", hint=hint)

    def require_prompts(self) -> None:
        """Check that every prompt exists whose weight a map modulates.

        Raises:
            SettingsError: One does not.
        """
        for one in self.maps:
            if (one.prompt or (one.to == "prompt")) > len(self.prompts):
                count = f"{len(self.prompts)} prompts are" if len(self.prompts) != 1 else "1 prompt is"
                what = f"{one.source}:{one.to} modulates a prompt that does not exist; {count} given"
                raise SettingsError(what, hint='add one, as in -p "a stormy sea"')

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as run records and settings files hold them."""
        plain = asdict(self)
        return plain | {name: list(plain[name]) for name in LISTS}

    @classmethod
    def from_record(cls, values: Mapping[str, Any]) -> Settings:
        """The settings in a run record, which may be of an earlier version; deprecated names cause no warning."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecatedNameWarning)
            earlier = settings_from(preset="still")  # what a record of an earlier version does not name
            fps = values.get("picture", {}).get("fps", earlier.picture.fps)
            return earlier.merged({"picture": {"painted_fps": fps}}).merged(values)  # every frame was optimized

    def merged(self, changes: Mapping[str, Any]) -> Settings:
        """Merge `changes` into these settings: {group: {name: value}}, and whole lists, such as `prompts`.

        Raises:
            SettingsError: A name is unknown, or a value has the wrong type or is out of range.
        """
        updates: dict[str, Any] = {}
        for name, value in changes.items():
            if name in LISTS:
                items = value if isinstance(value, (list, tuple)) else [value]
                updates[name] = tuple(LISTS[name](item) for item in items)
            elif name in SECTIONS:
                updates[name] = merge(getattr(self, name), name, value)
            else:
                hint = suggestion(str(name), [*SECTIONS, *LISTS])
                raise SettingsError(f"no group of settings is called {name!r}", hint=hint)
        return replace(self, **updates)


def _stem_file(item: Any) -> str:
    if isinstance(item, str) and item.strip():
        return item
    raise SettingsError(f"a stem file is NAME=FILE, not {item!r}", hint='write `stem_files: ["drums=d.wav"]`')


LISTS: dict[str, Callable[[Any], Any]] = {
    "prompts": Prompt.read,
    "style_images": StyleImage.read,
    "stems": StemWeight.read,
    "stem_files": _stem_file,
    "maps": AudioMap.read,
}


def all_settings() -> dict[str, Field[Any]]:
    """Every single setting by its full name, such as `picture.fps`."""
    return {f"{section}.{item.name}": item for section, group in SECTIONS.items() for item in fields(group)}


def preset_names() -> list[str]:
    """Names of the presets that are part of the package."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def family_settings(family: str) -> Settings:
    """The defaults of a family of models: those of `mini`, with the preset named after the family, if there is one."""
    path = PRESETS / f"{family}.yaml"
    return Settings().merged(read_yaml(path)) if path.is_file() else Settings()


def settings_from(
    base: Settings | None = None,
    *,
    preset: str | None = None,
    config: Path | None = None,
    assignments: tuple[str, ...] = (),
) -> Settings:
    """Merge a preset, a settings file and `key=value` assignments, in this order, into `base` or the defaults.

    Raises:
        SettingsError: A file cannot be read, or a name or value is not allowed; the message names the source.
    """
    settings = base or Settings()
    if preset is not None:
        if preset not in preset_names():
            raise SettingsError(f"no preset is called {preset!r}", hint=suggestion(preset, preset_names()))
        settings = settings.merged(read_yaml(PRESETS / f"{preset}.yaml"))
    if config is not None:
        values = read_yaml(config)
        with _source_named(str(config)):
            settings = settings.merged(values)
    for assignment in assignments:
        with _source_named(f"--set {assignment}"):
            settings = settings.merged(_parse_assignment(assignment))
    return settings


@contextmanager
def _source_named(source: str) -> Iterator[None]:
    """Put the name of a source of settings before the errors in it."""
    try:
        yield
    except SettingsError as error:
        raise SettingsError(f"{source}: {error.what}", hint=error.hint) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file of settings with OmegaConf, which resolves `${...}`.

    Raises:
        SettingsError: It is missing, or not a YAML mapping.
    """
    from omegaconf import OmegaConf

    with _source_named(str(path)):
        try:
            with _syntax_errors_translated():
                content = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
        except OSError as error:
            raise SettingsError(f"cannot be read ({error.strerror})", hint="check the name of the file") from None
        if not isinstance(content, dict):
            raise SettingsError("contains no settings", hint="write `painting: {steps: 8}`")
    return typing.cast("dict[str, Any]", content)


def _parse_assignment(assignment: str) -> dict[str, Any]:
    """Read `group.name=value`."""
    from omegaconf import OmegaConf

    if not re.fullmatch(r"(?s)[a-z_]+\.[a-z_]+=.+", assignment):
        raise SettingsError("not a setting", hint="write --set painting.steps=8")
    with _syntax_errors_translated():
        content = OmegaConf.to_container(OmegaConf.from_dotlist([assignment]), resolve=True)
    return typing.cast("dict[str, Any]", content)


@contextmanager
def _syntax_errors_translated() -> Iterator[None]:
    """Turn the errors of YAML and OmegaConf into a SettingsError of one line."""
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        yield
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise SettingsError(f"not valid YAML: {' '.join(str(error).split())}") from None
