"""The device that runs the networks. Imports torch only to use it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from wav2clip_gen.errors import SettingsError

if TYPE_CHECKING:
    import torch

DEVICE_ERRORS = (RuntimeError, AssertionError, NotImplementedError, TypeError)  # of PyTorch, if a device does not work
FULL_MEMORY = re.compile(  # in messages of PyTorch, CUDA, numpy and the system; the last one is of oneDNN, on a CPU
    r"(can't|cannot|unable to|failed to) allocate|not enough memory|out of memory|alloc_failed|bad_alloc"
    r"|could not create a (primitive|memory object)$",
    re.IGNORECASE,
)
Result = TypeVar("Result")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed; on a CPU, PyTorch says so in the message of a RuntimeError."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError | OSError) and FULL_MEMORY.search(str(error)) is not None


def halve_on_shortage(work: Callable[[int], Result], batch: int) -> tuple[Result, int]:
    """Do some work in batches, of half the size wherever memory runs out; return its result and the size at the end.

    Raises:
        Exception: The failed allocation, where batches of 1 are too large.
    """
    while True:
        try:
            return work(batch), batch
        except Exception as error:
            if batch == 1 or not is_out_of_memory(error):
                raise
        batch = (batch + 1) // 2  # here the error is gone, and with it the tensors of the failed attempt
        release_cache()


def release_cache() -> None:
    """Give memory back that PyTorch holds of a GPU without using it."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def choose_device(name: str = "auto", *, on_note: Callable[[str], None] = lambda note: None) -> torch.device:
    """The device called `name`, after trying it; "auto" is a GPU that works, else the CPU.

    Args:
        name: "auto", "cpu", "cuda", "cuda:1", "mps".
        on_note: Called with the reason where "auto" passes over a GPU.

    Raises:
        SettingsError: There is no such device on this machine, or it does not work.
    """
    import torch

    if name != "auto":
        try:
            return _try_device(name)
        except DEVICE_ERRORS as error:
            raise SettingsError(
                f"there is no device {name!r} here that works: {_reason(error)}",
                hint="use --device cpu; `w2c-gen doctor` shows what there is",
            ) from error
    with warnings.catch_warnings(record=True) as caught:  # the driver may be too old
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    reasons = [_reason(warning.message) for warning in caught]
    if available:
        try:
            return _try_device("cuda")
        except DEVICE_ERRORS as error:
            reasons = [_reason(error)]
    if reasons:
        on_note(f"note: the GPU does not work, so the CPU is used: {reasons[0]}")
    return torch.device("cpu")


def _try_device(name: str) -> torch.device:
    """Compute something small on a device: a GPU may be listed that its driver, PyTorch or other programs rule out."""
    import torch

    picture = torch.ones(1, 1, 8, 8, device=name)
    convolved = torch.nn.functional.conv2d(picture, picture[..., :3, :3])
    float((convolved[0, 0] @ convolved[0, 0]).sum())  # waits for the result
    return picture.device  # with its number: "cuda" is cuda:0


def _reason(error: Exception | Warning | str) -> str:
    """The first line of a message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
