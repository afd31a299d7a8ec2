"""One of several processes that train together: writes the gradient of its first step to a file."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

from wav2clip_gen.training.distill import DistillTask
from wav2clip_gen.training.distributed import process_group
from wav2clip_gen.training.schedule import step_generator
from wav2clip_gen.training.settings import DistillSettings
from wav2clip_gen.training.videos import VideoDataset


def gradients(task: DistillTask, *, frozen_norms: bool = False) -> dict[str, torch.Tensor]:
    """The gradient of the first step, by parameter, and the loss."""
    if frozen_norms:
        for module in task.network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    terms = task.losses(0, 0.0, step_generator(task.seed, 0))
    task.backward(torch.stack(list(terms.values())).sum())
    task.after_step()
    found = {name: parameter.grad for name, parameter in task.network.named_parameters()}
    assert all(gradient is not None for gradient in found.values())
    return {**found, **{name: value.detach() for name, value in terms.items()}}  # type: ignore[dict-item]


def small(*, micro_batches: int = 1, batch: int = 4, width: int = 2) -> DistillSettings:
    return DistillSettings(batch=batch, micro_batches=micro_batches, width=width, seconds=1.0)


def main() -> None:
    folder, clip, cache, out = (Path(argument) for argument in sys.argv[1:])
    with process_group(torch.device("cpu")) as world:
        videos = VideoDataset(folder, clip, cache, world=world)
        prepared = list(videos.prepare(torch.device("cpu")))
        found = gradients(DistillTask(videos, small()))
        report = {"gradients": found, "embedded": prepared[-1].step if prepared else 0, "size": world.size}
        torch.save(report, out / f"{world.rank}.pt")


if __name__ == "__main__":
    main()
