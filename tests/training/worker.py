"""One of several processes that train together: leaves the gradient of its first step in a file."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

from wav2clip_gen.training.distributed import joined
from wav2clip_gen.training.loop import step_generator
from wav2clip_gen.training.videos import Videos
from wav2clip_gen.training.watched import WatchedRecipe, WatchedTraining


def gradients(recipe: WatchedRecipe, *, frozen_norms: bool = False) -> dict[str, torch.Tensor]:
    """The gradient of the first step, by parameter, and the loss."""
    if frozen_norms:
        for module in recipe.network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    terms = recipe.losses(0, 0.0, step_generator(recipe.seed, 0))
    recipe.backward(torch.stack(list(terms.values())).sum())
    recipe.after_step(None)
    found = {name: parameter.grad for name, parameter in recipe.network.named_parameters()}
    assert all(gradient is not None for gradient in found.values())
    return {**found, **{name: value.detach() for name, value in terms.items()}}  # type: ignore[dict-item]


def small(*, parts: int = 1, batch: int = 4, width: int = 2) -> WatchedTraining:
    return WatchedTraining(batch=batch, parts=parts, width=width, seconds=1.0)


def main() -> None:
    folder, clip, cache, out = (Path(argument) for argument in sys.argv[1:])
    with joined(torch.device("cpu")) as group:
        videos = Videos(folder, clip, cache, group=group)
        prepared = list(videos.prepare(torch.device("cpu")))
        recipe = WatchedRecipe(videos, small())
        found = gradients(recipe)
        told = {"gradients": found, "embedded": prepared[-1].done if prepared else 0, "size": group.size}
        torch.save(told, out / f"{group.rank}.pt")


if __name__ == "__main__":
    main()
