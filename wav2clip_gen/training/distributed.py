"""Data-parallel training over the processes that `torchrun` starts; a single process is a world of one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from wav2clip_gen.errors import TrainingError


@dataclass(frozen=True)
class World:
    """This process among those that train together. All of them must make the same calls."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and reports progress."""
        return self.rank == 0

    def all_gather(self, own: Tensor) -> Tensor:
        """Concatenate the (B, ...) of all ranks to (size * B, ...); gradients flow to this rank's rows only."""
        if self.size == 1:
            return own
        gathered = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(gathered, own.detach().contiguous())
        gathered[self.rank] = own
        return torch.cat(gathered)

    @torch.no_grad()
    def all_reduce(self, tensors: Iterable[Tensor], *, mean: bool = False) -> None:
        """Replace each tensor by its sum or mean over the processes, in a single exchange."""
        own = list(tensors)
        if self.size == 1 or not own:
            return
        flat = torch.cat([tensor.flatten() for tensor in own])
        dist.all_reduce(flat)
        if mean:
            flat.div_(self.size)
        for tensor, total in zip(own, flat.split([tensor.numel() for tensor in own]), strict=True):
            tensor.copy_(total.view_as(tensor))

    def broadcast(self, values: dict[str, float]) -> dict[str, float]:
        """Give all processes the values of the main one."""
        if self.size == 1:
            return values
        box = [values]
        dist.broadcast_object_list(box)
        return box[0]

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()


SINGLE = World()


def under_torchrun() -> bool:
    """Whether this process is one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def local_device(device: torch.device) -> torch.device:
    """The GPU of this process, if there are several processes on a machine.

    Raises:
        TrainingError: The machine has fewer GPUs than processes.
    """
    if device.type != "cuda" or device.index is not None or not under_torchrun():
        return device
    index = int(os.environ.get("LOCAL_RANK", "0"))
    if index >= torch.cuda.device_count():
        raise TrainingError(
            f"there are {torch.cuda.device_count()} GPUs, and this is process {index + 1} of the machine",
            hint="give torchrun a smaller --nproc-per-node",
        )
    return torch.device("cuda", index)


@contextmanager
def process_group(device: torch.device) -> Iterator[World]:
    """Join the processes that torchrun started, for the duration of the block.

    Raises:
        TrainingError: The other processes cannot be reached.
    """
    if not under_torchrun():
        yield SINGLE
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            f"the other processes cannot be reached: {error}", hint="start all of them with torchrun"
        ) from error
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
