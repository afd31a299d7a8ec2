"""How the judge's choices are counted, against chance and luck, and how good a judge it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from wav2clip_gen.evaluation.held_out import HeldOut
from wav2clip_gen.evaluation.judge import Judge
from wav2clip_gen.evaluation.tables import counted, percent
from wav2clip_gen.models.families import Family
from wav2clip_gen.training.data import ImageDataset
from wav2clip_gen.training.schedule import step_generator

SHUFFLES = 10_000
LABELS = 1000  # of ImageNet
MOST = 400  # pictures of a kind that the judge is tried on
BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Choices:
    """One way of choosing a class for each film."""

    films: int
    right: int
    top5: int  # films whose class is among the five first
    shuffled: float  # share right, on average, when the sounds are in another order
    luck: float  # share of random orders that are right at least as often


def weigh(scores: Tensor, truth: Tensor, *, seed: int) -> Choices:
    """Count how often the class of the highest score (films, classes) is the true one (films,)."""
    choice = scores.argmax(dim=1)
    right = int((choice == truth).sum())
    count, classes = scores.shape
    shares = [torch.bincount(these, minlength=classes).double() / count for these in (choice, truth)]
    generator = step_generator(seed, -6)
    orders = torch.stack([torch.randperm(count, generator=generator) for _ in range(SHUFFLES)])
    lucky = ((choice == truth[orders]).sum(dim=1) >= right).sum().item()
    best = scores.topk(min(5, classes), dim=1).indices
    return Choices(
        films=count,
        right=right,
        top5=int((best == truth[:, None]).any(dim=1).sum()),
        shuffled=(shares[0] @ shares[1]).item(),
        luck=(lucky + 1) / (SHUFFLES + 1),  # the order that was measured is one of them
    )


@dataclass(frozen=True, kw_only=True)
class JudgeFigures:
    """How often the judge finds the ImageNet label of pictures that have one: right, of how many."""

    photographs: tuple[int, int]
    painted: tuple[int, int]  # the same photographs, drawn again by the VQGAN
    tiny: tuple[int, int]

    def rows(self) -> list[tuple[str, str, str]]:
        """Rows of a table."""
        tried = (
            ("the judge itself, top-1 on validation photographs of ImageNet's classes", self.photographs),
            ("the judge on the same photographs drawn again by the VQGAN", self.painted),
            ("the judge on Tiny-ImageNet's validation pictures, 64 px", self.tiny),
        )
        return [(what, counted(*figure), percent(1 / LABELS)) for what, figure in tried if figure[1]]


@torch.no_grad()
def judge_pictures(judge: Judge, family: Family, held_out: HeldOut) -> JudgeFigures:
    """Try the judge on the validation pictures whose label is one of ImageNet's."""

    def painted(pictures: Tensor) -> Tensor:
        return family.vqgan.decode(family.vqgan.quantise(family.vqgan.encode(pictures))).clamp(0, 1)

    photographs, tiny = (_labelled(held_out, kind) for kind in ("natural", "tiny"))
    return JudgeFigures(
        photographs=_right(judge, photographs, family.device, lambda pictures: pictures),
        painted=_right(judge, photographs, family.device, painted),
        tiny=_right(judge, tiny, family.device, lambda pictures: pictures),
    )


def _labelled(held_out: HeldOut, kind: str) -> ImageDataset:
    """Validation pictures of a kind whose label is one of ImageNet's, some of them."""
    pictures, rows = held_out.all_pictures(kind), label_rows()
    known = [at for at, described in enumerate(pictures.info) if described.label in rows]
    chosen = [known[at] for at in held_out.choose(len(known))][:MOST]
    return pictures.subset(chosen)


def _right(
    judge: Judge, pictures: ImageDataset, device: torch.device, change: Callable[[Tensor], Tensor]
) -> tuple[int, int]:
    """How many of the pictures the judge gives their ImageNet label, and how many there are."""
    rows, right = label_rows(), 0
    truth = torch.tensor([rows[described.label] for described in pictures.info])
    for start in range(0, len(pictures), BATCH):
        shown = change(pictures[start : start + BATCH].to(device).float() / 255)
        right += int((judge(shown).argmax(dim=1).cpu() == truth[start : start + BATCH]).sum())
    return right, len(pictures)


def label_rows() -> dict[str, int]:
    """ImageNet's labels, as WordNet ids, and their indices."""
    from timm.data.imagenet_info import ImageNetInfo

    names: list[str] = ImageNetInfo().label_names()  # type: ignore[no-untyped-call]
    return {name: row for row, name in enumerate(names)}
