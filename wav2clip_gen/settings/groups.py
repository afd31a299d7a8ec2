"""The groups of settings: what is heard, the picture, how it is painted, how it moves, and with what."""

from __future__ import annotations

from dataclasses import dataclass

from wav2clip_gen.settings.knobs import Group, knob

SEPARATORS = ("auto", "demucs", "dsp")  # what can be asked for


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
    separator: str = knob("auto", "what takes stems out of the song", choices=SEPARATORS)


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
