from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from dps_local.errors import ModelError
from dps_local.maps import fisher as fisher_module
from dps_local.maps.fisher import Fisher, shrinkage, shrunk

Array = NDArray[np.float64]


def exact(matrix: Array | list[list[float]]) -> Fisher:
    """The Fisher matrix with these numbers."""
    given_ = np.array(matrix, np.float64)
    return Fisher(np.zeros(len(given_), np.float32), np.linalg.cholesky(given_).T.astype(np.float32), 1e-9)


def test_a_matrix_is_its_diagonal_and_its_factor() -> None:
    fisher = Fisher(np.array([1, 2], np.float32), np.array([[1, 3]], np.float32), 0.5)
    assert fisher.matrix.tolist() == [[2, 3], [3, 11]]
    assert fisher.ridged.tolist() == [[2.5, 3], [3, 11.5]]
    assert fisher.inverse @ fisher.ridged == pytest.approx(np.eye(2))


def test_a_dead_head_leaves_the_matrix_invertible() -> None:
    fisher = Fisher(np.array([0, 2], np.float32), np.zeros((1, 2), np.float32), 0.5)
    assert np.isfinite(fisher.inverse).all()
    assert (fisher.inverse @ [0.0, 2.0]).tolist() == pytest.approx([0, 2 / 2.5])


def test_a_ridge_is_a_share_of_the_mean_of_the_diagonal_and_all_of_it_is_scaled() -> None:
    scores, tokens = np.array([[1.0, -2.0], [3.0, 0.0]]), np.array([1, 1])
    fisher = Fisher.from_scores(scores, tokens, ridge=0.5, scale=3.0)
    assert np.diag(fisher.matrix) == pytest.approx([15, 6])
    assert fisher.ridge == pytest.approx(0.5 * 10.5)
    assert fisher.matrix == pytest.approx(3 * Fisher.from_scores(scores, tokens, 0.1).matrix)


def test_a_length_is_the_root_of_twice_the_kl() -> None:
    fisher = exact([[4, 0], [0, 1]])
    assert fisher.length(np.array([1.0, 0.0])) == pytest.approx(2)
    assert fisher.scaled_to(np.array([3.0, 0.0]), 0.4).tolist() == pytest.approx([0.2, 0])
    assert fisher.scaled_to(np.zeros(2), 0.4).tolist() == [0, 0]


def test_a_length_is_that_of_a_softmax_whose_logits_move() -> None:
    """Three words, two heads that add to the logits: F = Jᵀ(diag p - ppᵀ)J, and the KL itself."""
    jacobian = np.array([[0.5, -1.0], [0.25, 0.5], [-1.0, 0.125]])
    logits = np.array([0.5, 0.0, -1.0])

    def log_p(delta: Array) -> Array:
        moved = logits + jacobian @ delta
        return np.asarray(moved - np.log(np.exp(moved).sum()))

    p = np.exp(log_p(np.zeros(2)))
    fisher = exact(jacobian.T @ (np.diag(p) - np.outer(p, p)) @ jacobian)
    delta = np.array([2e-3, -1e-3])
    kl = float(p @ (log_p(np.zeros(2)) - log_p(delta)))
    assert fisher.length(delta) == pytest.approx(math.sqrt(2 * kl), rel=1e-2)


# --- from samples


def test_many_texts_give_the_matrix_that_they_were_drawn_from() -> None:
    rng = np.random.default_rng(0)
    truth = np.array([[2.0, 0.9, 0.0], [0.9, 1.0, 0.3], [0.0, 0.3, 0.5]])
    tokens = rng.integers(4, 40, 40_000)
    scores = rng.standard_normal((40_000, 3)) @ np.linalg.cholesky(truth).T * np.sqrt(tokens)[:, None]
    assert Fisher.from_scores(scores, tokens, 0.1).matrix == pytest.approx(truth, abs=0.05)


scores_of = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 7), st.integers(1, 5)), elements=st.floats(-8, 8, width=16)
).filter(lambda scores: bool(scores.any()))


@given(scores_of, st.integers(1, 9))
def test_a_matrix_from_samples_keeps_their_diagonal_and_shrinks_the_rest(scores: Array, each: int) -> None:
    tokens = np.full(len(scores), each)
    fisher = Fisher.from_scores(scores, tokens, 0.1)
    mean = scores.astype(np.float64).T @ scores / tokens.sum()
    kept = 1 - shrinkage(scores, tokens)
    expected = kept * mean + (1 - kept) * np.diag(np.diag(mean))
    assert fisher.matrix == pytest.approx(expected, abs=1e-4 * float(np.abs(mean).max()))
    assert shrunk(scores, tokens) == pytest.approx(expected, abs=1e-9 * float(np.abs(mean).max()))
    assert np.linalg.eigvalsh(fisher.ridged).min() > 0
    assert len(fisher.factor) == min(scores.shape)


def test_of_a_large_model_the_largest_directions_and_the_diagonal_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    scores = rng.standard_normal((4000, 2)) @ rng.standard_normal((2, 6)) + 0.05 * rng.standard_normal((4000, 6))
    tokens = np.ones(4000, np.int64)
    whole = Fisher.from_scores(scores, tokens, 0.1)
    monkeypatch.setattr(fisher_module, "LARGEST_RANK", 2)
    few = Fisher.from_scores(scores, tokens, 0.1)
    assert few.factor.shape == (2, 6)
    assert np.diag(few.matrix) == pytest.approx(np.diag(whole.matrix), rel=1e-5)
    assert few.matrix == pytest.approx(whole.matrix, abs=0.01)


def test_shrinkage_is_the_variance_of_the_off_diagonal_by_its_square() -> None:
    """Two heads, four texts of a token: the products are 2, -1, 4 and 3, with mean 2."""
    scores = np.array([[1.0, 2.0], [1.0, -1.0], [2.0, 2.0], [3.0, 1.0]])
    products = np.array([2.0, -1.0, 4.0, 3.0])
    variance = np.var(products, ddof=1) / 4
    assert shrinkage(scores, np.ones(4, np.int64)) == pytest.approx(variance / 2.0**2)


def test_one_text_tells_nothing_of_how_heads_go_together() -> None:
    fisher = Fisher.from_scores(np.array([[1.0, -2.0]]), np.array([2]), 0.1)
    assert fisher.matrix == pytest.approx(np.diag([0.5, 2.0]))


def test_a_model_whose_heads_do_nothing_is_refused() -> None:
    with pytest.raises(ModelError, match=r"^no head of this model moves its words: choose another model$"):
        Fisher.from_scores(np.zeros((3, 2)), np.ones(3), 0.1)


@pytest.mark.parametrize(
    ("diagonal", "factor", "ridge"),
    [
        ([1, -1], [[0, 0]], 1),
        ([1, math.nan], [[0, 0]], 1),
        ([1, 1], [[math.inf, 0]], 1),
        ([1, 1], [[0, 0, 0]], 1),
        ([0, 0], [[0, 0]], 1),
        ([1, 1], [[0, 0]], 0),
        ([1, 1], [[0, 0]], math.nan),
    ],
    ids=str,
)
def test_what_is_no_fisher_matrix_is_refused(diagonal: list[float], factor: list[list[float]], ridge: float) -> None:
    with pytest.raises(ValueError, match="the Fisher matrix"):
        Fisher(np.array(diagonal, np.float32), np.array(factor, np.float32), ridge)
