"""Where the first right answer stands when everything is ordered by likeness, and where chance would put it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """How questions were answered out of one set of candidates."""

    questions: int
    candidates: int
    hits: dict[int, int]  # k -> questions with a right answer among their first k
    chances: dict[int, float]  # k -> share of hits that random orders would give
    median: float  # rank of the first right answer, from 1
    chance_median: float  # the same in random orders

    def share(self, k: int) -> float:
        """Share of the questions with a right answer among their first `k` (recall@k, or top-k)."""
        return self.hits[k] / self.questions


def rank(scores: Tensor, right: Tensor, *, within: tuple[int, ...] = (1, 5)) -> Ranking:
    """Order candidates by score and look for the first right one.

    Args:
        scores: (Q, N), the higher the better.
        right: (Q, N) bool; each question has a right candidate.
        within: Of which k a hit is told.
    """
    ranks = first_right(scores, right)
    counts, among = right.sum(dim=1).tolist(), scores.shape[1]
    return Ranking(
        questions=len(ranks),
        candidates=among,
        hits={k: int((ranks <= k).sum()) for k in within},
        chances={k: sum(chance_within(count, among, k) for count in counts) / len(counts) for k in within},
        median=float(torch.quantile(ranks.double(), 0.5)),
        chance_median=float(chance_median(counts, among)),
    )


def first_right(scores: Tensor, right: Tensor) -> Tensor:
    """Rank (Q,), from 1, of each question's best right candidate.

    Equal scores go to the wrong ones, so that a network that says the same of everything gets nothing for it.
    """
    best = scores.masked_fill(~right, -math.inf).amax(dim=1, keepdim=True)
    return 1 + ((scores >= best) & ~right).sum(dim=1)


def chance_within(right: int, among: int, k: int) -> float:
    """Chance that one of `right` candidates is among the first `k` of a random order of `among`."""
    return 1 - math.comb(among - right, k) / math.comb(among, k) if k <= among else 1.0


def chance_median(right: list[int], among: int) -> int:
    """The median rank, over all questions and random orders, of the first of each question's right candidates."""
    later = [1.0] * len(right)  # chance that a question's first right candidate comes after the ranks seen so far
    for seen in range(among):
        wrong = [max(among - count - seen, 0) for count in right]  # candidates that are left, out of among - seen
        later = [share * left / (among - seen) for share, left in zip(later, wrong, strict=True)]
        if sum(later) <= len(later) / 2:
            return seen + 1
    return among
