"""Ranks and their chance level, against counting it out."""

from __future__ import annotations

from itertools import combinations
from statistics import median

import pytest
import torch

from wav2clip_gen.evaluation import ranks


def test_the_best_right_candidate_counts() -> None:
    scores = torch.tensor([[0.9, 0.5, 0.7, 0.1], [0.1, 0.2, 0.3, 0.4]])
    right = torch.tensor([[False, True, True, False], [True, False, False, False]])
    assert ranks.first_right(scores, right).tolist() == [2, 4]
    found = ranks.rank(scores, right, within=(1, 2, 4))
    assert found.hits == {1: 0, 2: 1, 4: 2}
    assert (found.questions, found.candidates, found.share(4)) == (2, 4, 1.0)


def test_saying_the_same_of_everything_finds_nothing() -> None:
    right = torch.eye(6, dtype=torch.bool)
    assert ranks.first_right(torch.ones(6, 6), right).tolist() == [6] * 6


@pytest.mark.parametrize(("right", "among", "k"), [(1, 6, 1), (2, 6, 3), (4, 6, 3), (6, 6, 1), (1, 3, 5)])
def test_chance_of_a_hit_is_that_of_all_orders(right: int, among: int, k: int) -> None:
    places = list(combinations(range(among), right))  # where the right ones stand
    hits = sum(min(these) < k for these in places)
    assert ranks.chance_within(right, among, k) == pytest.approx(hits / len(places))


@pytest.mark.parametrize("counts", [[1], [2], [1, 4], [3, 3, 1]])
def test_chance_median_is_that_of_all_orders(counts: list[int]) -> None:
    shares = [[min(these) + 1 for these in combinations(range(7), count)] for count in counts]
    # as many copies of each question's orders as makes all questions weigh the same
    pooled = [rank for these in shares for rank in these for _ in range(35 * 21 * 7 // len(these))]
    assert ranks.chance_median(counts, 7) == pytest.approx(median(pooled), abs=0.5)


def test_random_answers_come_out_at_chance() -> None:
    rng = torch.Generator().manual_seed(0)
    right = torch.rand(4000, 30, generator=rng) < 0.1
    right[:, 0] |= ~right.any(dim=1)
    found = ranks.rank(torch.rand(4000, 30, generator=rng), right)
    for k in (1, 5):
        assert found.share(k) == pytest.approx(found.chances[k], abs=0.03)
    assert found.median == pytest.approx(found.chance_median, abs=1)
