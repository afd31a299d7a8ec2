"""Several processes that train one network, as `torchrun` starts them; one process is a group of one."""

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
class Group:
    """This process among those that train together. All of them must make the same calls."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and tells how it goes."""
        return self.rank == 0

    def gather(self, tensor: Tensor) -> Tensor:
        """Join the (B, ...) of all processes to (size * B, ...), in the order of their ranks; no gradient passes."""
        tensor = tensor.detach().contiguous()
        if self.size == 1:
            return tensor
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(parts, tensor)
        return torch.cat(parts)

    @torch.no_grad()
    def add(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over the processes, in one exchange."""
        mine = list(tensors)
        if self.size == 1 or not mine:
            return
        together = torch.cat([tensor.flatten() for tensor in mine])
        dist.all_reduce(together)
        for tensor, total in zip(mine, together.split([tensor.numel() for tensor in mine]), strict=True):
            tensor.copy_(total.view_as(tensor))

    @torch.no_grad()
    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its mean over the processes."""
        mine = list(tensors)
        self.add(mine)
        for tensor in mine:
            tensor.div_(self.size)

    def agree(self, values: dict[str, float]) -> dict[str, float]:
        """Give all processes what the first one has."""
        if self.size == 1:
            return values
        box = [values]
        dist.broadcast_object_list(box)
        return box[0]

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self.size > 1:
            dist.barrier()


ALONE = Group()


def started_by_torchrun() -> bool:
    """Whether this process is one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def own_device(device: torch.device) -> torch.device:
    """The GPU of this process, where there are several processes on a machine.

    Raises:
        TrainingError: The machine has fewer GPUs than processes.
    """
    if device.type != "cuda" or device.index is not None or not started_by_torchrun():
        return device
    index = int(os.environ.get("LOCAL_RANK", "0"))
    if index >= torch.cuda.device_count():
        raise TrainingError(
            f"there are {torch.cuda.device_count()} GPUs, and this is process {index + 1} of the machine",
            hint="give torchrun a smaller --nproc-per-node",
        )
    return torch.device("cuda", index)


@contextmanager
def joined(device: torch.device) -> Iterator[Group]:
    """The group that torchrun started this process in, for as long as the block lasts.

    Raises:
        TrainingError: The other processes cannot be reached.
    """
    if not started_by_torchrun():
        yield ALONE
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
        yield Group(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
