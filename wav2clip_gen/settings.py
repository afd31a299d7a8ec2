"""Every knob once: its name, meaning, unit, default and range. Knows no torch."""

from __future__ import annotations

import difflib
import math
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, is_dataclass, replace
from functools import partial
from typing import Any, ClassVar, TypeVar

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
    """Base of the groups below: checks every value against its knob when made."""

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


@dataclass(frozen=True, kw_only=True)
class Stem(Group):
    """A part of the song that steers the picture by itself."""

    name: str = knob("", "vocals, drums, bass, other, or a name that was given to a file")
    weight: float = knob(1.0, "its pull beside the other stems'", minimum=0, maximum=100)


@dataclass(frozen=True, kw_only=True)
class Sound(Group):
    """What is heard, and how finely."""

    start: float = knob(0.0, "where in the track the film begins", unit="s", minimum=0)
    duration: float | None = knob(None, "how much of the track to film", unit="s", above=0)
    window: float = knob(1.0, "how much sound one embedding hears", unit="s", minimum=0.1, maximum=30)
    hop: float = knob(0.1, "time between two embeddings", unit="s", minimum=0.01, maximum=10)
    weight: float = knob(1.0, "the sound's pull beside the prompts'", minimum=0, maximum=100)
    separator: str = knob("auto", "what takes stems out of the song", choices=("auto", "demucs", "dsp"))


@dataclass(frozen=True, kw_only=True)
class Picture(Group):
    """The shape of the film."""

    width: int = knob(128, "painted width", unit="px", minimum=32, maximum=4096)
    height: int = knob(128, "painted height", unit="px", minimum=32, maximum=4096)
    fps: float = knob(12.0, "frames painted and shown per second", unit="1/s", minimum=1, maximum=120)
    upscale: int = knob(1, "enlarge for display (Lanczos)", choices=(1, 2, 4))
    layout: str = knob(
        "single", "one picture, one of the mix and of each stem side by side, or a film of each stem",
        choices=("single", "grid", "separate"),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Painting(Group):
    """How each frame is optimised (VQGAN-CLIP, arXiv 2204.08583)."""

    first_steps: int = knob(40, "steps for the first frame", minimum=0, maximum=10_000)
    steps: int = knob(4, "steps for each further frame", minimum=0, maximum=10_000)
    cuts: int = knob(8, "random views of the picture that the perceptor sees at each step", minimum=1, maximum=1024)
    cut_batch: int = knob(0, "views the perceptor sees at a time, to save memory; 0: all", minimum=0, maximum=1024)
    total_variation: float = knob(5.0, "weight of the loss that calms the picture", minimum=0, maximum=1000)
    learning_rate: float = knob(0.2, "Adam's step on the latent", above=0, maximum=10)
    recognition: float = knob(
        10.0, "pull towards a picture that is read as the target is; only where the family has a prior", minimum=0,
        maximum=100,
    )  # fmt: skip
    layout: float = knob(3.0, "pull towards the colours that the prior expects; also the start", minimum=0, maximum=100)
    init_image: str | None = knob(None, "a picture's file, which the first frame starts from, cut to the film's shape")
    init_weight: float = knob(0.0, "pull towards that picture in every frame", minimum=0, maximum=100)


@dataclass(frozen=True, kw_only=True)
class Motion(Group):
    """How fast the picture may follow the sound, and how it moves by itself."""

    smoothing: float = knob(
        0.15, "half-life of the targets' zero-phase smoothing; 0: none", unit="s", minimum=0, maximum=60
    )
    inertia: float = knob(0.05, "pull towards the frame before", minimum=0, maximum=100)
    crossfade: float = knob(1.0, "over how long words that begin or cease come and go", unit="s", minimum=0, maximum=60)
    blend: float = knob(0.1, "half-life of the latents shown; 0: each frame by itself", unit="s", minimum=0, maximum=10)
    scenes: str = knob(
        "moments", "what the targets follow: each moment, or whole sections, crossed over as words are",
        choices=("moments", "sections"),
    )  # fmt: skip
    zoom: float = knob(0.0, "how much nearer the picture comes; 0.1: 10 %", unit="1/s", minimum=-0.9, maximum=9)
    pan_x: float = knob(0.0, "how far it goes to the right, in widths", unit="1/s", minimum=-10, maximum=10)
    pan_y: float = knob(0.0, "how far it goes down, in heights", unit="1/s", minimum=-10, maximum=10)
    rotate: float = knob(0.0, "how far it turns clockwise", unit="degrees/s", minimum=-3600, maximum=3600)
    border: str = knob(
        "reflect", "what comes in over an edge: its mirror, or the other side", choices=("reflect", "wrap")
    )


@dataclass(frozen=True, kw_only=True)
class View(Group):
    """How a picture is seen while it is shown; only the sound moves it, see `Drive`."""

    zoom: float = knob(1.0, "how near the picture stands", minimum=0.1, maximum=10)
    pan_x: float = knob(0.0, "how far to the right it stands, in widths", minimum=-10, maximum=10)
    pan_y: float = knob(0.0, "how far down it stands, in heights", minimum=-10, maximum=10)
    rotate: float = knob(0.0, "how far it is turned clockwise", unit="degrees", minimum=-36_000, maximum=36_000)
    brightness: float = knob(1.0, "factor of the light", minimum=0, maximum=10)
    saturation: float = knob(1.0, "factor of the colours' distance from grey", minimum=0, maximum=10)


@dataclass(frozen=True, kw_only=True)
class Run(Group):
    """With what the film is made."""

    models: str = knob("auto", "family of networks", choices=("auto", "full", "mini"))
    perceptor: str | None = knob(None, "another CLIP: a part's name, ARCHITECTURE/TAG of open_clip, or a weights file")
    vqgan: str | None = knob(None, "another VQGAN: a part's name, a weights file, or a .ckpt with its .yaml beside it")
    seed: int | None = knob(None, "decides everything that is drawn", minimum=0, maximum=2**63 - 1)
    device: str = knob("auto", "where the networks run: auto, cpu, cuda, cuda:1, mps")
    precision: str = knob("auto", "arithmetic of the networks", choices=("auto", "fp32", "bf16"))


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


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that decides a film, beside the track and the weights."""

    sound: Sound = field(default_factory=Sound)
    picture: Picture = field(default_factory=Picture)
    painting: Painting = field(default_factory=Painting)
    motion: Motion = field(default_factory=Motion)
    run: Run = field(default_factory=Run)
    prompts: tuple[Prompt, ...] = ()
    style_images: tuple[StyleImage, ...] = ()
    stems: tuple[Stem, ...] = ()  # none: the whole song steers
    stem_files: tuple[str, ...] = ()  # each NAME=FILE, a folder of stems or a .stem.mp4
    maps: tuple[Drive, ...] = ()  # what the sound's features drive

    def __post_init__(self) -> None:
        names = [stem.name for stem in self.stems]
        twice = [name for place, name in enumerate(names) if name in names[:place]]
        if twice:
            raise SettingsError(f"the stem {twice[0]} is named twice", hint="name each stem once")

    @property
    def stem_names(self) -> tuple[str, ...]:
        """The stems that are needed, each once, whether they steer or not."""
        heard = (drive.stem for drive in self.maps)
        return tuple(dict.fromkeys([*(stem.name for stem in self.stems), *(name for name in heard if name)]))

    @property
    def pulls(self) -> tuple[Pull, ...]:
        """Words and pictures that pull beside the sound."""
        return (*self.prompts, *self.style_images)

    @property
    def picture_files(self) -> tuple[str, ...]:
        """All pictures that take part, each once."""
        files = (self.painting.init_image, *(image.file for image in self.style_images))
        return tuple(dict.fromkeys(file for file in files if file is not None))

    def with_picture_files(self, place: Callable[[str], str]) -> Settings:
        """The same, with the pictures where `place` says."""
        first = self.painting.init_image
        return replace(
            self,
            painting=replace(self.painting, init_image=None if first is None else place(first)),
            style_images=tuple(replace(image, file=place(image.file)) for image in self.style_images),
        )

    def require_steering(self) -> None:
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
        if self.stem_files and not self.stem_names:
            raise SettingsError("files of stems are given, but no stem is named", hint="add --stems vocals,drums")
        weighed = [stem.name for stem in self.stems if stem.weight != 1]
        if self.picture.layout != "single" and weighed:
            raise SettingsError(
                f"a layout {self.picture.layout} shows each stem by itself, so the weight of {weighed[0]} says nothing",
                hint="leave --stem-weight out, or --layout",
            )
        heard = self.sound.weight > 0 and (not self.stems or any(stem.weight for stem in self.stems))
        pulled = any(pull.weight for pull in self.pulls) or any(drive.pulls for drive in self.maps)
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
                updates[name] = _merge_group(getattr(self, name), name, value)
            else:
                raise SettingsError(f"no settings are called {name!r}", hint=suggestion(str(name), [*SECTIONS, *LISTS]))
        return replace(self, **updates)


SECTIONS: dict[str, type[Group]] = {
    "sound": Sound, "picture": Picture, "painting": Painting, "motion": Motion, "run": Run,
}  # fmt: skip


AnyGroup = TypeVar("AnyGroup", bound=Group)


def _merge_group(group: AnyGroup, section: str, changes: Any) -> AnyGroup:
    if not isinstance(changes, Mapping):
        raise SettingsError(f"{section} is a group of settings, not {changes!r}", hint=f"write `{section}: {{...}}`")
    known = [item.name for item in fields(group)]
    for name in changes:
        if name not in known:
            raise SettingsError(f"no setting is called {section}.{name}", hint=suggestion(str(name), known))
    return replace(group, **changes)


def _pull(kind: type[Pull], section: str, item: Any) -> Pull:
    if isinstance(item, kind):
        return item
    if isinstance(item, str):
        return kind.parse(item)
    if isinstance(item, Mapping):
        held: dict[str, Any] = {kind.HELD: item.get(kind.HELD, "")}
        return _merge_group(kind(**held), section, item)
    words = "words" if kind is Prompt else f"a {kind.HELD}"
    raise SettingsError(f"a {kind.KIND} is {words}, not {item!r}", hint=f'write `{section}: ["{kind.EXAMPLE}:0.5"]`')


def _stem(item: Any) -> Stem:
    if isinstance(item, Stem):
        return item
    if isinstance(item, str):
        return Stem(name=item.strip())
    if isinstance(item, Mapping) and "name" in item:
        return _merge_group(Stem(name="unnamed"), "stems", item)
    raise SettingsError(f"a stem is a name, not {item!r}", hint="write `stems: [vocals, {name: drums, weight: 2}]`")


def _stem_file(item: Any) -> str:
    if isinstance(item, str) and item.strip():
        return item
    raise SettingsError(f"a file of a stem is NAME=FILE, not {item!r}", hint='write `stem_files: ["drums=d.wav"]`')


def _drive(item: Any) -> Drive:
    if isinstance(item, Drive):
        return item
    if isinstance(item, str):
        return Drive.parse(item)
    if isinstance(item, Mapping) and "source" in item and "to" in item:
        return _merge_group(Drive(source=item["source"], to=item["to"]), "maps", item)
    raise SettingsError(
        f"a map is a feature and what it drives, not {item!r}", hint='write `maps: ["onset:zoom=0.04"]`'
    )


LISTS: dict[str, Callable[[Any], Any]] = {
    "prompts": partial(_pull, Prompt, "prompts"),
    "style_images": partial(_pull, StyleImage, "style_images"),
    "stems": _stem,
    "stem_files": _stem_file,
    "maps": _drive,
}


def _sequence(value: Any) -> list[Any] | tuple[Any, ...]:
    return value if isinstance(value, (list, tuple)) else [value]


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
