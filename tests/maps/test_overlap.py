from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dps_local.errors import HeadMapError
from dps_local.maps.head_map import HeadMap
from dps_local.maps.overlap import overlap, random_overlap, sparsity
from dps_local.maps.scored_heads import Scores

NAN, INF = math.nan, math.inf


def grid(*rows: Sequence[float]) -> Scores:
    return np.array(rows, np.float32)


def scored(pcs: Scores, **changes: Any) -> HeadMap:
    """A map with these PCS, each head evaluated on all 12 examples."""
    nothing = np.full_like(pcs, NAN)
    fields: dict[str, Any] = {
        "model": "Tiny",
        "architecture": "llama",
        "fingerprint": "0123456789abcdef" * 4,
        "scope": "generated",
        "ranking": "pcs",
        "ablation_scale": 0.0,
        "seed": 0,
        "examples": 12,
        "tokens": 384,
        "evaluations": 96,
        "nll": 2.5,
        "pcs": pcs,
        "pcs_stderr": nothing,
        "gain": -pcs,
        "gain_stderr": nothing,
        "variance": nothing,
        "contrast": nothing,
        "contrast_stderr": nothing,
        "pairwise": nothing,
        "pairwise_stderr": nothing,
        "counts": pcs * 0 + 12,
        "weights": nothing,
        "null_control": 0.0,
        "selected": (),
        "mode": "contrast",
        "gamma": 0.0,
    }
    return HeadMap(**(fields | changes))


# --- sparsity


@pytest.mark.parametrize(
    ("scores", "share", "gini", "k", "heads"),
    [
        (grid([1, 1], [1, 1]), 0.25, 0, 1, 4),
        (grid([0, 0], [0, 3]), 1, 0.75, 1, 4),
        (grid([1, 3], [-9, NAN]), 0.75, 0.5, 1, 3),
        (grid([1, 2], [3, 4]), 0.4, 0.25, 1, 4),
        (grid([5, -1, INF, NAN]), 1, 0.5, 1, 2),
        (grid([4]), 1, 0, 1, 1),
        (grid(*[[1.0] * 5] * 10), 0.04, 0, 2, 50),
        (grid(*[[0.0] * 5] * 9, [0, 0, 1, 2, 3]), 5 / 6, 286 / 300, 2, 50),
    ],
)
def test_the_share_of_the_best_heads_and_how_uneven_all_are(
    scores: Scores, share: float, gini: float, k: int, heads: int
) -> None:
    sparse = sparsity(scores)
    assert sparse
    assert (sparse.k, sparse.heads) == (k, heads)
    assert sparse.share == pytest.approx(share)
    assert sparse.gini == pytest.approx(gini)


@pytest.mark.parametrize("scores", [grid([0, -1]), grid([NAN, NAN]), np.empty((0, 0), np.float32)])
def test_without_a_positive_score_there_is_nothing_to_share(scores: Scores) -> None:
    assert sparsity(scores) is None


some_scores = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 6), st.integers(1, 12)), elements=st.floats(-8, 8, width=32) | st.just(NAN)
)


@given(some_scores, st.floats(0.0625, 16, width=32))
def test_sparsity_is_a_share_and_does_not_depend_on_the_unit(scores: Scores, unit: float) -> None:
    sparse, other = sparsity(scores), sparsity((scores * np.float32(unit)).astype(np.float32))
    if sparse is None or other is None:  # a score may be too small for another unit
        return
    assert 0 < sparse.share <= 1 + 1e-12
    assert 0 <= sparse.gini <= 1 - 1 / sparse.heads + 1e-12
    assert sparse.share >= sparse.k / sparse.heads - 1e-12
    assert other.share == pytest.approx(sparse.share, rel=1e-5)
    assert other.gini == pytest.approx(sparse.gini, abs=1e-5)


@given(st.lists(st.floats(0, 8, width=16), min_size=1, max_size=12).filter(any))
def test_gini_is_half_the_mean_difference_by_the_mean(values: list[float]) -> None:
    sparse = sparsity(grid(values))
    assert sparse
    n = len(values)
    differences = sum(abs(a - b) for a in values for b in values) / n**2
    assert sparse.gini == pytest.approx(differences / (2 * sum(values) / n), abs=1e-6)


# --- the best heads


def test_heads_that_were_dropped_on_the_way_are_not_among_the_best() -> None:
    head_map = scored(grid([9, 1, 2, NAN]), counts=grid([1, 12, 12, NAN]))
    np.testing.assert_array_equal(head_map.fully_evaluated_scores, grid([NAN, 1, 2, NAN]))
    other = scored(grid([9, 1, 2, NAN]), counts=grid([NAN, NAN, NAN, NAN]))  # not known
    np.testing.assert_array_equal(other.fully_evaluated_scores, grid([9, 1, 2, NAN]))


# --- overlap

FIRST = grid(*[[0.0] * 10] * 4, [9, 8, 0, 0, 0, 0, 0, 0, 0, 0])  # of 50 heads the best 2: 40 and 41


def test_the_overlap_of_two_maps_is_that_of_their_best_heads() -> None:
    second = FIRST.copy()
    second[4, 1], second[0, 7] = 0, 8
    overlaps = overlap({"ada": scored(FIRST), "bob": scored(second), "cy": scored(np.roll(FIRST, 5))})
    assert (overlaps.names, overlaps.k, overlaps.heads) == (("ada", "bob", "cy"), 2, 50)
    third = pytest.approx(1 / 3)
    assert overlaps.matrix.tolist() == [[1, third, 0], [third, 1, 0], [0, 0, 1]]
    assert overlaps.mean == pytest.approx(1 / 9)
    # of 1225 pairs 1 is the same, and 96 have one head in common
    assert overlaps.random == pytest.approx((1 + 96 / 3) / 1225)


def test_each_map_is_compared_by_what_it_is_ranked_by() -> None:
    upside_down = scored(-FIRST, ranking="gain")
    assert overlap({"a": scored(FIRST), "b": upside_down}).mean == 1


def test_an_overlap_is_json() -> None:
    printed = json.loads(json.dumps(overlap({"a": scored(FIRST), "b": scored(FIRST)}).as_json(), allow_nan=False))
    assert printed == {
        "names": ["a", "b"],
        "k": 2,
        "heads": 50,
        "matrix": [[1, 1], [1, 1]],
        "mean": 1,
        "random": pytest.approx(33 / 1225),
    }


def test_maps_of_different_models_are_not_compared() -> None:
    other = scored(FIRST, model="Other", fingerprint="f" * 64)
    with pytest.raises(
        HeadMapError,
        match=r"^ada is a map of 'Tiny' \(fingerprint 0123456789ab\), bob one of 'Other' \(ffffffffffff\): "
        r"heads can be compared within one model only$",
    ):
        overlap({"ada": scored(FIRST), "mid": scored(FIRST), "bob": other})
    with pytest.raises(HeadMapError, match="within one model only"):
        overlap({"ada": scored(FIRST), "bob": scored(FIRST[:3])})


def test_maps_with_nothing_measured_can_be_compared() -> None:
    hollow = scored(np.full((2, 2), NAN, np.float32))
    overlaps = overlap({"a": hollow, "b": hollow})
    assert (overlaps.k, overlaps.heads, overlaps.mean, overlaps.random) == (0, 0, 1, 1)
    overlaps = overlap({"a": hollow, "b": scored(grid([1, 2], [3, 4]))})
    assert (overlaps.k, overlaps.mean) == (1, 0)


@given(st.lists(hnp.arrays(np.float32, (3, 9), elements=st.floats(-8, 8, width=32)), min_size=2, max_size=5))
def test_an_overlap_is_symmetric_and_a_share(all_scores: list[Scores]) -> None:
    overlaps = overlap({str(i): scored(scores) for i, scores in enumerate(all_scores)})
    assert np.array_equal(overlaps.matrix, overlaps.matrix.T)
    assert (np.diag(overlaps.matrix) == 1).all()
    assert ((overlaps.matrix >= 0) & (overlaps.matrix <= 1)).all()
    assert 0 <= overlaps.mean <= 1
    backwards = overlap({str(i): scored(scores) for i, scores in enumerate(reversed(all_scores))})
    assert np.array_equal(backwards.matrix, overlaps.matrix[::-1, ::-1])


# --- chance


@pytest.mark.parametrize(
    ("heads", "k", "expected"),
    [(10, 10, 1), (10, 0, 1), (0, 0, 1), (10, 1, 0.1), (2, 1, 0.5), (4, 2, (1 + 4 / 3) / 6)],
)
def test_what_chance_would_give(heads: int, k: int, expected: float) -> None:
    assert random_overlap(heads, k) == pytest.approx(expected)


@pytest.mark.parametrize(("heads", "k"), [(5, 2), (6, 3), (7, 5)])
def test_chance_is_the_mean_over_all_choices(heads: int, k: int) -> None:
    choices = [set(choice) for choice in combinations(range(heads), k)]
    shares = [len(a & b) / len(a | b) for a in choices for b in choices]
    assert random_overlap(heads, k) == pytest.approx(sum(shares) / len(shares))


def test_chance_is_found_for_a_large_model() -> None:
    assert random_overlap(80 * 64, 205) == pytest.approx(0.0205, abs=2e-4)
