"""Retrieval and classification scores, with the level of chance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from wav2clip_gen.evaluation.tables import Row, format_share, percent

SHUFFLES = 10_000


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Ranks of the first right candidate, over a number of queries."""

    questions: int
    candidates: int
    hits: dict[int, int]  # k -> queries with a right candidate among the first k: recall@k, or top-k accuracy
    chances: dict[int, float]  # k -> expected share of hits in random orders
    median: float  # rank of the first right candidate, from 1
    chance_median: float  # the same in random orders

    def rows(self, name: str, *, metric: str = "top-{}") -> tuple[Row, ...]:
        """A row of a table for each k."""
        return tuple(
            (f"{name}: {metric.format(k)}", format_share(hits, self.questions), percent(self.chances[k]))
            for k, hits in self.hits.items()
        )


def rank(scores: Tensor, right: Tensor, *, within: tuple[int, ...] = (1, 5)) -> Ranking:
    """Order candidates by score, and find the first right one.

    Args:
        scores: (Q, N), higher is better.
        right: (Q, N) bool; each query has a right candidate.
        within: The k of the hits.
    """
    ranks = first_right(scores, right)
    counts, candidates = right.sum(dim=1).tolist(), scores.shape[1]
    return Ranking(
        questions=len(ranks),
        candidates=candidates,
        hits={k: int((ranks <= k).sum()) for k in within},
        chances={k: sum(chance_within(count, candidates, k) for count in counts) / len(counts) for k in within},
        median=float(torch.quantile(ranks.double(), 0.5)),
        chance_median=float(chance_median(counts, candidates)),
    )


def first_right(scores: Tensor, right: Tensor) -> Tensor:
    """Rank (Q,), from 1, of each query's best right candidate.

    Ties count for the wrong candidates, so that a network with constant output scores nothing.
    """
    best = scores.masked_fill(~right, -math.inf).amax(dim=1, keepdim=True)
    return 1 + ((scores >= best) & ~right).sum(dim=1)


def chance_within(right: int, candidates: int, k: int) -> float:
    """Probability that one of `right` candidates is among the first `k` in a random order."""
    return 1 - math.comb(candidates - right, k) / math.comb(candidates, k) if k <= candidates else 1.0


def chance_median(right: list[int], candidates: int) -> int:
    """Median over queries and random orders of the rank of the first of each query's right candidates."""
    later = [1.0] * len(right)  # probability that a query's first right candidate comes after the ranks seen so far
    for seen in range(candidates):
        left = candidates - seen
        later = [share * max(left - count, 0) / left for share, count in zip(later, right, strict=True)]
        if sum(later) <= len(later) / 2:
            return seen + 1
    return candidates


@dataclass(frozen=True, kw_only=True)
class Classification:
    """Accuracy over a number of films, with a permutation test."""

    films: int
    right: int
    top5: int
    shuffled: float  # expected accuracy if films and classes are paired at random
    p_value: float  # share of random pairings that are right at least as often


def classify(scores: Tensor, truth: Tensor, *, generator: torch.Generator) -> Classification:
    """Compare the classes of the highest scores (films, classes) with the true ones (films,)."""
    choice = scores.argmax(dim=1)
    right = int((choice == truth).sum())
    count, classes = scores.shape
    chosen, true = (torch.bincount(these, minlength=classes).double() / count for these in (choice, truth))
    orders = torch.stack([torch.randperm(count, generator=generator) for _ in range(SHUFFLES)])
    as_good = ((choice == truth[orders]).sum(dim=1) >= right).sum().item()
    best = scores.topk(min(5, classes), dim=1).indices
    return Classification(
        films=count,
        right=right,
        top5=int((best == truth[:, None]).any(dim=1).sum()),
        shuffled=(chosen @ true).item(),
        p_value=(as_good + 1) / (SHUFFLES + 1),  # the measured pairing is one of them
    )
