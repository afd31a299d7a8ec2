"""Scores and their level of chance, against exhaustive enumeration."""

from __future__ import annotations

from itertools import combinations
from statistics import median

import pytest
import torch

from wav2clip_gen.evaluation import film, measures


def test_the_best_right_candidate_counts() -> None:
    scores = torch.tensor([[0.9, 0.5, 0.7, 0.1], [0.1, 0.2, 0.3, 0.4]])
    right = torch.tensor([[False, True, True, False], [True, False, False, False]])
    assert measures.first_right(scores, right).tolist() == [2, 4]
    found = measures.rank(scores, right, within=(1, 2, 4))
    assert found.hits == {1: 0, 2: 1, 4: 2}
    assert (found.questions, found.candidates) == (2, 4)


def test_constant_scores_find_nothing() -> None:
    right = torch.eye(6, dtype=torch.bool)
    assert measures.first_right(torch.ones(6, 6), right).tolist() == [6] * 6


@pytest.mark.parametrize(("right", "among", "k"), [(1, 6, 1), (2, 6, 3), (4, 6, 3), (6, 6, 1), (1, 3, 5)])
def test_the_chance_of_a_hit_is_that_of_all_orders(right: int, among: int, k: int) -> None:
    places = list(combinations(range(among), right))  # where the right ones stand
    hits = sum(min(these) < k for these in places)
    assert measures.chance_within(right, among, k) == pytest.approx(hits / len(places))


@pytest.mark.parametrize("counts", [[1], [2], [1, 4], [3, 3, 1]])
def test_the_chance_median_is_that_of_all_orders(counts: list[int]) -> None:
    shares = [[min(these) + 1 for these in combinations(range(7), count)] for count in counts]
    # as many copies of each question's orders as makes all questions weigh the same
    pooled = [rank for these in shares for rank in these for _ in range(35 * 21 * 7 // len(these))]
    assert measures.chance_median(counts, 7) == pytest.approx(median(pooled), abs=0.5)


def test_random_scores_are_at_chance() -> None:
    rng = torch.Generator().manual_seed(0)
    right = torch.rand(4000, 30, generator=rng) < 0.1
    right[:, 0] |= ~right.any(dim=1)
    found = measures.rank(torch.rand(4000, 30, generator=rng), right)
    for k in (1, 5):
        assert found.hits[k] / found.questions == pytest.approx(found.chances[k], abs=0.03)
    assert found.median == pytest.approx(found.chance_median, abs=1)


def test_perfect_classification_is_significant() -> None:
    found = film.classify(torch.eye(20), torch.arange(20), generator=torch.Generator().manual_seed(0))
    assert (found.right, found.films, found.top5) == (20, 20, 20)
    assert found.shuffled == pytest.approx(1 / 20)
    assert found.p_value < 0.001


def test_constant_classification_is_as_good_on_shuffled_classes() -> None:
    scores = torch.zeros(10, 20)
    scores[:, 0] = 1
    truth = torch.tensor([0] * 4 + [7] * 6)
    found = film.classify(scores, truth, generator=torch.Generator().manual_seed(0))
    assert found.right == 4
    assert found.shuffled == pytest.approx(0.4)
    assert found.p_value == 1.0
