"""Whether a picture fits into memory, known from its size before anything is loaded. Imports torch only if it may not.

What is refused needs more by a low estimate, what is proposed fits by a high one. Measured on a CPU (one step in
float32; 8 cutouts, 4 of `full`): `mini` takes 0.45 GiB at 256x256, 1.5 GiB at 512x512 and 6.5 GiB at 1024x1024, `full`
1.6 GiB and 5.7 GiB at the first two. Besides, CLIP's activations of a cutout take 2.4 MiB with `mini`, 38 MiB with
ViT-B/32, of as many cutouts as are taken at a time.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wav2clip_gen.config import Settings
from wav2clip_gen.devices import choose_device, is_out_of_memory
from wav2clip_gen.errors import OutOfMemoryError, W2CError
from wav2clip_gen.models.registry import ModelSelection, computes_in_bf16, config_of
from wav2clip_gen.models.store import read_header
from wav2clip_gen.units import describe_bytes, parse_bytes

if TYPE_CHECKING:
    import torch

TENSORS = 10  # that a residual block of the decoder keeps for the backward pass, of the size of its output
IN_HALF = 0.55  # share of the memory that is left where most of it is bfloat16
RECOMPUTED = 0.65  # of a decoder's memory, where its blocks compute activations again
ATTENTION = 1.3  # matrices of all pairs of latent cells that are held at a time
CUTOUT = 40  # bytes per pixel of the picture, for each cutout
FITS = 0.75  # of the available memory, for a size that is proposed
USUAL = 0.85  # the estimate of a step, relative to what it usually takes
PROGRAM = 0.5 * 2**30  # bytes besides networks and steps: of the driver and its libraries on a GPU, ...
LIBRARIES = 1.0 * 2**30  # ... and of Python with all libraries, 40 % of it shared by processes
ENCODER, ENCODED = 40 * 2**20, 245  # bytes of ffmpeg, and for each pixel of the film
VIT = 22  # values that a vision transformer keeps for the backward pass, per token, channel and layer
OTHER = 0.15  # bytes that another perceptor keeps for a cutout, per byte of its weights
CELL, SMALLEST = 32, 32  # pixels; sizes that are proposed are multiples of the first


def step_bytes(
    size: tuple[int, int], cuts: int, vqgan: dict[str, Any], *, half: bool, recompute: bool = False
) -> float:
    """Bytes that an optimiser step takes at least, besides the networks.

    Args:
        size: Width and height in pixels.
        cuts: Cutouts.
        vqgan: Fields of `VQGANConfig`.
        half: The networks may compute in bfloat16.
        recompute: The decoder computes activations again.
    """
    pixels, levels = prod(size), vqgan["ch_mult"]
    channels = sum(vqgan["ch"] * factor / 4**level for level, factor in enumerate(levels))
    cells = pixels / 4 ** (len(levels) - 1)
    blocks = TENSORS * channels * (vqgan["num_res_blocks"] + 1) * pixels
    network = 4 * ((RECOMPUTED if recompute else 1) * blocks + ATTENTION * cells**2)
    return network * (IN_HALF if half else 1) + CUTOUT * cuts * pixels


def check_memory(settings: Settings, selection: ModelSelection, device: torch.device | None = None) -> None:
    """Refuse a picture that is too large for the memory of its device, or of this machine if that is not chosen yet.

    Raises:
        OutOfMemoryError: It is.
    """
    if short := _lacking(settings, selection, device):
        needed, available = short
        how = f": it needs {describe_bytes(needed)}, and {describe_bytes(available)} are free"
        raise _shortage(settings, selection, how, available)


def _lacking(
    settings: Settings, selection: ModelSelection, device: torch.device | None = None
) -> tuple[float, float] | None:
    """Bytes that a picture needs by a low estimate, and those that there are, where these are too few."""
    if device is None and _may_be_gpu(settings.run.device):  # now it is worth importing torch: it may have less memory
        device = choose_device(settings.run.device)
    needed = _needed(settings, selection, half=settings.run.precision != "fp32")
    available = _available(device)
    if needed is None or available is None or needed <= available:
        return None
    if device is None:  # as above: a GPU may have more
        return _lacking(settings, selection, choose_device(settings.run.device))
    return needed, available


def _may_be_gpu(name: str) -> bool:
    """Whether a device is a GPU by NVIDIA, as far as is known without PyTorch."""
    return name.startswith("cuda") or (name == "auto" and shutil.which("nvidia-smi") is not None)


def _available(device: torch.device | None) -> int | None:
    if device is None or device.type != "cuda":
        return available_ram()
    import torch

    return torch.cuda.mem_get_info(device)[0]


@contextmanager
def shortage_explained(settings: Settings, selection: ModelSelection) -> Iterator[None]:
    """Turn a failed allocation into an OutOfMemoryError that proposes a smaller size."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        needed = _needed(settings, selection, half=settings.run.precision == "bf16") or 0
        raise _shortage(settings, selection, "", min(needed / 2, available_ram() or needed)) from error


def _needed(settings: Settings, selection: ModelSelection, *, half: bool) -> float | None:
    """Bytes of a step, without CLIP's activations; None where the VQGAN is not known yet."""
    component, picture = selection.components["vqgan"], settings.picture
    try:
        config = config_of(component.path) if component.is_checkpoint else read_header(component.path).config
        size, recompute = (picture.width, picture.height), settings.run.recompute
        return step_bytes(size, settings.painting.cuts, config, half=half, recompute=recompute)
    except (
        W2CError,
        KeyError,
        OSError,
        MemoryError,
    ):  # not fetched or damaged, which is reported elsewhere; or too late
        return None


def _shortage(settings: Settings, selection: ModelSelection, how: str, budget: float) -> OutOfMemoryError:
    width, height = settings.picture.width, settings.picture.height
    what = f"out of memory: a picture of {width}x{height} with {settings.painting.cuts} cuts is too large{how}"
    half = settings.run.precision == "bf16"
    for size in _smaller_sizes(settings):
        needed = _needed(_with_size(settings, size), selection, half=half)
        if needed is not None and needed < FITS * budget:
            hint = f"--size {size[0]}x{size[1]} fits, and --upscale enlarges finished pictures; or lower --cuts"
            return OutOfMemoryError(what, hint=hint)
    return OutOfMemoryError(what, hint="lower --size or --cuts, or close other programs")


def fit(settings: Settings, selection: ModelSelection) -> tuple[Settings, str | None]:
    """Lower the batches of cutouts, then recompute, then lower the size, until a film fits into its memory.

    That is what the settings allow. Where they say nothing, what would be refused is recomputed, if that helps.

    Returns:
        The settings that are used, and a note of what was lowered.

    Raises:
        OutOfMemoryError: No size fits.
    """
    if settings.run.max_memory is None:
        again = _recomputed(settings)
        if again == settings or not _lacking(settings, selection) or _lacking(again, selection):
            return settings, None
        return again, "to fit into the memory that is free: --recompute, which takes longer"
    if _fits(settings, selection):
        return settings, None
    device = choose_device(settings.run.device)  # now it is worth importing torch: bfloat16 needs less
    sizes = [(settings.picture.width, settings.picture.height), *_smaller_sizes(settings)]
    candidates = (one for size in sizes for one in _cheaper(_with_size(settings, size)))
    fitting = next((one for one in candidates if _fits(one, selection, device)), None)
    if fitting is None:
        least = _run_bytes(_cheaper(_with_size(settings, (SMALLEST, SMALLEST)))[-1], selection, device)
        raise OutOfMemoryError(
            f"no picture fits into {settings.run.max_memory}: even the smallest needs {describe_bytes(least or 0)}",
            hint="raise --max-memory; the libraries and the networks take most of that",
        )
    if fitting == settings:
        return settings, None
    return fitting, f"to fit into {settings.run.max_memory}: {_what_differs(settings, fitting)}"


def _what_differs(asked: Settings, used: Settings) -> str:
    lowered = []
    if used.picture != asked.picture:
        sizes = [f"{one.picture.width}x{one.picture.height}" for one in (used, asked)]
        lowered.append("--size {} instead of {} (--upscale enlarges finished pictures)".format(*sizes))
    if used.run.recompute != asked.run.recompute:
        lowered.append("--recompute")
    if used.painting != asked.painting:
        lowered.append(f"--cut-batch {used.painting.cut_batch}")
    return " and ".join(lowered)


def _recomputed(settings: Settings) -> Settings:
    return replace(settings, run=replace(settings.run, recompute=True))


def _cheaper(settings: Settings) -> list[Settings]:
    """The settings, then with batches of half as many cutouts, and so on to single ones; then the same recomputed."""
    cuts = settings.painting.cuts
    found, size = [settings], min(settings.painting.cut_batch or cuts, cuts)
    while size > 1:
        size = (size + 1) // 2
        found.append(replace(settings, painting=replace(settings.painting, cut_batch=size)))
    return found if settings.run.recompute else [*found, *map(_recomputed, found)]


def _with_size(settings: Settings, size: tuple[int, int]) -> Settings:
    return replace(settings, picture=replace(settings.picture, width=size[0], height=size[1]))


def _smaller_sizes(settings: Settings) -> Iterator[tuple[int, int]]:
    """Sizes below that of the settings, of nearly the same shape, the largest first."""
    width, height = settings.picture.width, settings.picture.height
    shares = (share / 100 / CELL for share in range(99, 0, -1))
    sizes = ((int(width * share) * CELL, int(height * share) * CELL) for share in shares)
    return (size for size in dict.fromkeys(sizes) if min(size) >= SMALLEST)


def _fits(settings: Settings, selection: ModelSelection, device: torch.device | None = None) -> bool:
    """Whether a film fits into the memory that its settings allow, by a high estimate; so does what is not known."""
    assert settings.run.max_memory
    needed = _run_bytes(settings, selection, device, share=FITS)
    return needed is None or needed <= parse_bytes(settings.run.max_memory)


def usual_bytes(settings: Settings, selection: ModelSelection, device: torch.device) -> float | None:
    """Bytes that a film usually takes on a device, networks and libraries included; None where that is not known."""
    return _run_bytes(settings, selection, device, share=USUAL)


def _run_bytes(
    settings: Settings, selection: ModelSelection, device: torch.device | None, *, share: float = 1.0
) -> float | None:
    """Bytes of a whole run; the estimate of a step is that `share` of what it is reckoned to take.

    Without a device, by a high estimate: in float32, on a CPU.
    """
    precision = settings.run.precision
    half = precision == "bf16" or (precision == "auto" and device is not None and computes_in_bf16(device))
    step = _needed(settings, selection, half=half)
    if step is None:
        return None
    cuts = settings.painting.cuts
    batch = min(settings.painting.cut_batch or cuts, cuts)
    step += batch * _cutout_bytes(selection.components["clip"].path) * (IN_HALF if half else 1)
    networks = sum(path.stat().st_size for path in selection.files.values() if path.is_file())
    if device and device.type == "cuda":
        held = 3 if half else 2  # for each byte of a file in half precision: in float32, and for steps in bfloat16 too
        return PROGRAM + held * networks + step / share
    return LIBRARIES + encoder_bytes(settings) + networks + step / share


@cache
def _cutout_bytes(weights: Path) -> float:
    """Bytes of activations that a perceptor keeps for a cutout, in float32; those of ViT-B/32 where it is unknown."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="np") as file:
            names = list(file.keys())
            places = [name for name in names if name.endswith("visual.positional_embedding")]
            if not places:
                return OTHER * weights.stat().st_size
            tokens, width = file.get_slice(places[0]).get_shape()
            layers = len(
                {found[0] for name in names if (found := re.search(r"visual\.transformer\.resblocks\.\d+", name))}
            )
    except (SafetensorError, OSError):
        tokens, width, layers = 50, 768, 12
    return 4.0 * VIT * tokens * width * layers


def available_ram() -> int | None:
    """Bytes that this process can still allocate; None where the system does not tell."""
    limits = []
    with suppress(OSError, ValueError):
        found = dict(re.findall(r"(\w+): +(\d+) kB", Path("/proc/meminfo").read_text()))
        limits.append(1024 * (int(found["MemAvailable"]) + int(found["SwapFree"])))
    with suppress(OSError, ValueError, AttributeError):  # macOS
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for limit in ("memory.max", "memory/memory.limit_in_bytes"):  # of a container
        with suppress(OSError, ValueError):
            limits.append(int(Path("/sys/fs/cgroup", limit).read_text()))
    with suppress(ImportError, OSError):
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        limits += [soft] if soft != resource.RLIM_INFINITY else []
    return min(limits, default=None)


def peak_bytes(device: torch.device) -> int | None:
    """The largest memory of this process so far: of a GPU that is used, else of this machine.

    What the system tells of children cannot be used: on Linux their peak begins with that of the process they are of.
    """
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_reserved(device)
    with suppress(OSError, TypeError):
        return 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])  # type: ignore[index]
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if os.uname().sysname == "Darwin" else 1024)


def encoder_bytes(settings: Settings) -> float:
    """Bytes that ffmpeg takes while it writes a film; measured from 128x128 to 2048x2048."""
    picture = settings.picture
    pictures = 1 + len(settings.stems) if picture.layout == "grid" else 1
    return ENCODER + ENCODED * pictures * picture.width * picture.height * picture.upscale**2
