"""Whether a picture fits into memory, known from its size before anything is loaded. Imports torch only if it may not.

What is refused needs more by a low estimate, what is proposed fits by a high one. Measured on a CPU (one step in
float32; 8 cutouts, 4 of `full`): `mini` takes 0.45 GiB at 256x256, 1.5 GiB at 512x512 and 6.5 GiB at 1024x1024, `full`
1.6 GiB and 5.7 GiB at the first two.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wav2clip_gen.config import Settings
from wav2clip_gen.devices import choose_device, is_out_of_memory
from wav2clip_gen.errors import OutOfMemoryError, W2CError
from wav2clip_gen.models.registry import ModelSelection, config_of
from wav2clip_gen.models.store import read_header
from wav2clip_gen.units import describe_bytes

if TYPE_CHECKING:
    import torch

TENSORS = 10  # that a residual block of the decoder keeps for the backward pass, of the size of its output
IN_HALF = 0.55  # share of the memory that is left where most of it is bfloat16
ATTENTION = 1.3  # matrices of all pairs of latent cells that are held at a time
CUTOUT = 40  # bytes per pixel of the picture, for each cutout
FITS = 0.75  # of the available memory, for a size that is proposed
CELL, SMALLEST = 32, 32  # pixels; sizes that are proposed are multiples of the first


def step_bytes(size: tuple[int, int], cuts: int, vqgan: dict[str, Any], *, half: bool) -> float:
    """Bytes that an optimiser step takes at least, besides the networks.

    Args:
        size: Width and height in pixels.
        cuts: Cutouts.
        vqgan: Fields of `VQGANConfig`.
        half: The networks may compute in bfloat16.
    """
    pixels, levels = prod(size), vqgan["ch_mult"]
    channels = sum(vqgan["ch"] * factor / 4**level for level, factor in enumerate(levels))
    cells = pixels / 4 ** (len(levels) - 1)
    network = 4 * (TENSORS * channels * (vqgan["num_res_blocks"] + 1) * pixels + ATTENTION * cells**2)
    return network * (IN_HALF if half else 1) + CUTOUT * cuts * pixels


def check_memory(settings: Settings, selection: ModelSelection, device: torch.device | None = None) -> None:
    """Refuse a picture that is too large for the memory of its device, or of this machine if that is not chosen yet.

    Raises:
        OutOfMemoryError: It is.
    """
    needed, available = _needed(settings, selection), _available(device)
    if needed is None or available is None or needed <= available:
        return
    if device is None:  # now it is worth importing torch: a GPU may have more memory
        check_memory(settings, selection, choose_device(settings.run.device))
        return
    raise _shortage(
        settings, selection, f": it needs {describe_bytes(needed)}, and {describe_bytes(available)} are free", available
    )


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
        needed = _needed(settings, selection, high=True) or 0
        raise _shortage(settings, selection, "", min(needed / 2, available_ram() or needed)) from error


def _needed(
    settings: Settings, selection: ModelSelection, size: tuple[int, int] | None = None, *, high: bool = False
) -> float | None:
    """Bytes of a step, by a low or a high estimate; None where the VQGAN is not known yet."""
    component, picture = selection.components["vqgan"], settings.picture
    half = settings.run.precision == "bf16" or (settings.run.precision == "auto" and not high)
    try:
        config = config_of(component.path) if component.is_checkpoint else read_header(component.path).config
        return step_bytes(size or (picture.width, picture.height), settings.painting.cuts, config, half=half)
    except (W2CError, KeyError, OSError):  # it is not fetched, or damaged, which is reported elsewhere
        return None


def _shortage(settings: Settings, selection: ModelSelection, how: str, budget: float) -> OutOfMemoryError:
    width, height = settings.picture.width, settings.picture.height
    what = f"out of memory: a picture of {width}x{height} with {settings.painting.cuts} cuts is too large{how}"
    for share in range(95, 0, -1):
        size = (int(width * share / 100 / CELL) * CELL, int(height * share / 100 / CELL) * CELL)
        needed = _needed(settings, selection, size, high=True)
        if min(size) >= SMALLEST and needed is not None and needed < FITS * budget:
            hint = f"--size {size[0]}x{size[1]} fits, and --upscale enlarges finished pictures; or lower --cuts"
            return OutOfMemoryError(what, hint=hint)
    return OutOfMemoryError(what, hint="lower --size or --cuts, or close other programs")


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
    """The largest memory so far: of a GPU that is used, else of this process and of an ffmpeg that it ran."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_reserved(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(peaks) * (1 if os.uname().sysname == "Darwin" else 1024)
