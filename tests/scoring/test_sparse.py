"""Steps of few heads against every choice that there is, and step lengths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dps_local.maps.fisher import Fisher
from dps_local.scoring.sparse import sparse

Array = NDArray[np.float64]


def random_fisher(seed: int, n: int) -> tuple[Fisher, Array]:
    rng = np.random.default_rng(seed)
    factor = rng.standard_normal((n + 2, n)).astype(np.float32)
    return Fisher(np.zeros(n, np.float32), factor, 0.1), rng.standard_normal(n)


def worth(heads: list[int], step: Array, fisher: Fisher) -> float:
    """Half bᵀF⁻¹b of these heads alone."""
    slopes = (fisher.ridged @ step)[heads]
    return float(slopes @ np.linalg.solve(fisher.ridged[np.ix_(heads, heads)], slopes)) / 2


@given(st.integers(0, 10_000), st.integers(1, 8))
def test_each_next_head_is_the_one_that_adds_most(seed: int, n: int) -> None:
    fisher, step = random_fisher(seed, n)
    chosen, few = sparse(step, fisher, n)
    for i in range(n):
        before = chosen[:i].tolist()
        others = [head for head in range(n) if head not in before]
        values = {head: worth([*before, head], step, fisher) for head in others}
        assert values[int(chosen[i])] == pytest.approx(max(values.values()), rel=1e-6)
    assert few == pytest.approx(step, abs=1e-5)


@given(st.integers(0, 10_000), st.integers(1, 6))
def test_few_heads_make_the_best_step_that_they_can(seed: int, k: int) -> None:
    fisher, step = random_fisher(seed, 7)
    chosen, few = sparse(step, fisher, k)
    assert sorted(np.flatnonzero(few).tolist()) == sorted(chosen.tolist())
    slopes = fisher.ridged @ step
    gain = few @ slopes - few @ fisher.ridged @ few / 2
    assert gain == pytest.approx(worth(chosen.tolist(), step, fisher), rel=1e-6)


def test_heads_that_do_the_same_are_not_both_chosen() -> None:
    """Heads 0 and 1 are nearly one; 2 is less useful than either, and tells what they do not."""
    factor = np.array([[1, 1, 0], [0, 0.01, 0], [0, 0, 1]], np.float32)
    fisher = Fisher(np.zeros(3, np.float32), factor, 0.01)
    step = np.linalg.solve(fisher.ridged, np.array([1.0, 0.99, 0.5]))
    chosen, few = sparse(step, fisher, 2)
    assert chosen.tolist() == [0, 2]
    assert few == pytest.approx([1 / 1.01, 0, 0.5 / 1.01], abs=1e-4)


def test_no_more_heads_are_chosen_than_there_are() -> None:
    fisher, step = random_fisher(0, 3)
    assert sorted(sparse(step, fisher, 9)[0].tolist()) == [0, 1, 2]
    chosen, few = sparse(step, fisher, 0)
    assert (chosen.size, few.tolist()) == (0, [0, 0, 0])
