"""Which heads are the best, on scores typed by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from dps_local.maps.scored_heads import Scores
from dps_local.maps.selection import jaccard, top_heads, top_k

NAN, INF = math.nan, math.inf


def grid(*rows: Sequence[float]) -> Scores:
    return np.array(rows, np.float32)


@pytest.mark.parametrize(("n_heads", "k"), [(1, 1), (12, 1), (72, 3), (270, 11), (1024, 41)])
def test_about_four_percent_of_the_heads_are_chosen_and_at_least_one(n_heads: int, k: int) -> None:
    assert top_k(n_heads) == k


@pytest.mark.parametrize(("heads", "k"), [(1, 1), (9, 1), (12, 1), (72, 3), (270, 11), (336, 13), (1024, 41)])
def test_about_four_in_a_hundred_heads_are_kept(heads: int, k: int) -> None:
    assert top_k(heads) == k


def test_another_fraction_of_heads_can_be_kept() -> None:
    assert top_k(1024, 0.5) == 512
    assert top_k(1024, 0.0) == 1


@pytest.mark.parametrize(
    ("scores", "k", "best"),
    [
        (grid([0.1, 0.3], [0.2, 0.4]), 2, {1, 3}),
        (grid([0.1, 0.3], [0.2, 0.4]), 9, {0, 1, 2, 3}),
        (grid([0.1, 0.3], [0.2, 0.4]), 0, set()),
        (grid([5, 5, 5]), 2, {0, 1}),  # ties: layer by layer
        (grid([NAN, -1.0], [NAN, -2.0]), 3, {1, 3}),
        (grid([INF, 1.0, -INF]), 2, {1}),
    ],
)
def test_the_best_heads_are_the_highest_scores(scores: Scores, k: int, best: set[int]) -> None:
    assert set(top_heads(scores, k)) == best


def test_the_best_come_first_and_none_is_at_or_below_the_bound() -> None:
    assert top_heads(grid([0.1, 0.3, 0.0], [NAN, 0.2, -1.0]), 9, above=0) == [1, 4, 0]
    assert top_heads(np.array([0.5, 0.5, 0.7]), 2, above=0.5) == [2]


def test_overlap_is_the_shared_part_of_both() -> None:
    assert jaccard({1, 2, 3}, {2, 3, 4}) == 0.5
    assert jaccard(set(), set()) == 1
    assert jaccard({1}, set()) == 0
