"""The settings, in groups: each is written once, here; see `fields.setting`."""

from __future__ import annotations

from dataclasses import dataclass

from wav2clip_gen.fields import SettingsGroup, setting
from wav2clip_gen.units import parse_bytes, parse_segments

SEPARATORS = ("auto", "demucs", "dsp")


@dataclass(frozen=True, kw_only=True)
class SoundSettings(SettingsGroup):
    """Which part of the track is used, and how it is embedded."""

    PANEL = "Audio"

    start: float = setting(
        0.0, "start of the video in the track", unit="s", limits=(0, None), everyday=True, metavar="TIME"
    )
    duration: float | None = setting(
        None,
        "duration of the video",
        unit="s",
        above=0,
        default_text="to the end of the track",
        everyday=True,
        metavar="TIME",
    )
    window: float = setting(1.0, "length of the audio window of one embedding", unit="s", limits=(0.1, 30))
    hop: float = setting(0.1, "time between two embeddings", unit="s", limits=(0.01, 10))
    weight: float = setting(
        1.0,
        "weight of the audio, relative to prompts and style images",
        limits=(0, 100),
        panel="Prompts and images",
        everyday=True,
        flags=("--audio-weight",),
    )
    codec: str = setting(
        "auto",
        "audio codec of the video",
        choices=("auto", "copy", "aac", "alac"),
        default_text="auto: copy if mp4 holds the codec of the track and all of it is used, else aac, else lossless",
        panel="Video",
        flags=("--audio-codec",),
    )
    separator: str = setting(
        "auto",
        "method that separates stems",
        choices=SEPARATORS,
        panel="Stems",
        default_text="auto: demucs if it and its weights are installed, else dsp",
    )


@dataclass(frozen=True, kw_only=True)
class PictureSettings(SettingsGroup):
    """Size and frame rate of the video."""

    PANEL = "Video"

    width: int = setting(128, "width of the generated frames", unit="px", limits=(32, 4096), flags=())
    height: int = setting(128, "height of the generated frames", unit="px", limits=(32, 4096), flags=())
    fps: float = setting(24.0, "frames per second", limits=(1, 120), everyday=True)
    painted_fps: float = setting(
        6.0,
        "frames per second that are optimized, at most all; those between are interpolated, and move with the music",
        above=0,
        limits=(None, 120),
    )
    upscale: int = setting(
        1, "factor by which finished frames are enlarged (Lanczos)", choices=(1, 2, 4), everyday=True
    )
    layout: str = setting(
        "single",
        "one picture; a grid with a picture of the mix and of each stem; or a separate video for each stem",
        choices=("single", "grid", "separate"),
        panel="Stems",
    )

    @property
    def optimized_fps(self) -> float:
        """Frames per second that are optimized."""
        return min(self.fps, self.painted_fps)


@dataclass(frozen=True, kw_only=True)
class PaintingSettings(SettingsGroup):
    """How each frame is optimized (VQGAN-CLIP, arXiv 2204.08583)."""

    PANEL = "Optimization"

    first_steps: int = setting(40, "optimization steps for the first frame", limits=(0, 10_000))
    steps: int = setting(3, "optimization steps for each later frame", limits=(0, 10_000), everyday=True)
    cuts: int = setting(8, "random cutouts that CLIP sees at each step", limits=(1, 1024), everyday=True)
    cut_batch: int = setting(0, "cutouts in one CLIP batch, to save memory; 0: all", limits=(0, 1024))
    tv_weight: float = setting(
        5.0,
        "weight of the total variation loss, which smooths the picture",
        limits=(0, 1000),
        deprecated="total_variation",
    )
    learning_rate: float = setting(0.4, "learning rate of Adam", above=0, limits=(None, 10))
    concept_weight: float = setting(
        10.0, "weight of the concept loss, for models with a concept prior", limits=(0, 100), deprecated="recognition"
    )
    layout_weight: float = setting(
        3.0,
        "weight of the loss towards the color layout that the concept prior expects; above 0, the first frame "
        "also starts from it",
        limits=(0, 100),
        deprecated="layout",
    )
    init_image: str | None = setting(
        None,
        "image that the first frame starts from, cropped to the aspect ratio of the video",
        metavar="FILE",
        default_text="none",
        panel="Prompts and images",
        everyday=True,
    )
    init_weight: float = setting(
        0.0, "weight of the loss towards the init image, in every frame", limits=(0, 100), panel="Prompts and images"
    )


@dataclass(frozen=True, kw_only=True)
class MotionSettings(SettingsGroup):
    """How fast the picture changes, and how the camera moves."""

    PANEL = "Motion"

    smoothing: float = setting(
        0.15, "half-life of the zero-phase smoothing of the targets; 0: none", unit="s", limits=(0, 60), everyday=True
    )
    temporal_weight: float = setting(
        0.05, "weight of the loss towards the latent of the previous frame", limits=(0, 100), deprecated="inertia"
    )
    crossfade: float = setting(
        1.0,
        "duration of the crossfade between prompts, images or scenes",
        unit="s",
        limits=(0, 60),
        panel="Prompts and images",
    )
    ema_half_life: float = setting(
        0.1,
        "half-life of the moving average of the latents that are shown; 0: no average",
        unit="s",
        limits=(0, 10),
        deprecated="blend",
    )
    scenes: str = setting(
        "moments",
        "what the targets follow: each moment, or the mean of each section of the song, with crossfades",
        choices=("moments", "sections"),
        everyday=True,
    )
    zoom: float = setting(0.04, "zoom speed; 0.1: 10 % per second", unit="1/s", limits=(-0.9, 9), everyday=True)
    pan_x: float = setting(
        0.0, "horizontal pan speed, in frame widths, positive: to the right", unit="1/s", limits=(-10, 10)
    )
    pan_y: float = setting(0.0, "vertical pan speed, in frame heights, positive: down", unit="1/s", limits=(-10, 10))
    rotate: float = setting(0.0, "rotation speed, positive: clockwise", unit="degrees/s", limits=(-3600, 3600))
    border: str = setting(
        "reflect",
        "what fills the border when the camera moves: the mirrored picture, or its opposite side",
        choices=("reflect", "wrap"),
    )


@dataclass(frozen=True, kw_only=True)
class View(SettingsGroup):
    """Camera and color of a shown frame, which only audio maps change; see `AudioMap`."""

    zoom: float = setting(1.0, "zoom factor", limits=(0.1, 10))
    pan_x: float = setting(0.0, "offset to the right, in frame widths", limits=(-10, 10))
    pan_y: float = setting(0.0, "offset down, in frame heights", limits=(-10, 10))
    rotate: float = setting(0.0, "clockwise rotation", unit="degrees", limits=(-36_000, 36_000))
    brightness: float = setting(1.0, "brightness factor", limits=(0, 10))
    saturation: float = setting(1.0, "saturation factor", limits=(0, 10))


@dataclass(frozen=True, kw_only=True)
class RunSettings(SettingsGroup):
    """Models, seed, device, and how the work is divided."""

    PANEL = "Run"

    models: str = setting(
        "auto",
        "family of models; auto: full if its weights are installed, else mini",
        panel="Models",
        everyday=True,
        choices=("auto", "full", "mini"),
    )
    encoder: str | None = setting(
        None,
        "another sound encoder: audioclip, which comes with the perceptor rn50, or a weights file",
        default_text="the one of the family",
        panel="Models",
        metavar="MODEL",
    )
    perceptor: str | None = setting(
        None,
        "another CLIP model: the name of a published part, ARCHITECTURE/TAG of open_clip, or a weights file",
        default_text="the one of the family",
        panel="Models",
        metavar="MODEL",
    )
    vqgan: str | None = setting(
        None,
        "another VQGAN: the name of a published part, a weights file, or a .ckpt with its .yaml in the same folder",
        default_text="the one of the family",
        panel="Models",
        metavar="MODEL",
    )
    seed: int | None = setting(
        None, "seed of all random numbers", limits=(0, 2**63 - 1), default_text="random, and reported", everyday=True
    )
    device: str = setting("auto", "device that runs the models: auto, cpu, cuda, cuda:1, mps", everyday=True)
    precision: str = setting("auto", "floating-point precision of the models", choices=("auto", "fp32", "bf16"))
    graph: bool = setting(True, "replay optimization steps from a CUDA graph, on NVIDIA GPUs", default_text="on")
    recompute: bool = setting(
        False,
        "gradient checkpointing: recompute the decoder's activations in the backward pass, which takes a third less of "
        "its memory and a quarter more time",
        default_text="off, unless memory would not suffice",
    )
    max_memory: str | None = setting(
        None,
        "most memory that may be used, of the GPU or of this machine: where more would be needed, --cut-batch is "
        "lowered, then --recompute is set, then --size is lowered",
        metavar="SIZE",
        default_text="what is free, and nothing is lowered",
        flags=("--max-memory", "--max-vram"),
    )
    segments: str = setting(
        "auto",
        "length of the segments of the song that are painted independently of each other, and joined by crossfades",
        metavar="auto|none|TIME",
        default_text="auto: about 30 s in films longer than a minute, else none",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_segments(self.segments)
        if self.max_memory is not None:
            parse_bytes(self.max_memory)
