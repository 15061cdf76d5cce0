"""A person's phrases in the logits, against numbers typed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dps_local.evaluation.ngram_cache import NgramCache, NgramModel

UNIFORM = np.full(4, 0.25)
TOKENS = st.lists(st.integers(0, 3), max_size=6)


def test_a_context_keeps_a_part_of_what_the_shorter_one_predicts() -> None:
    """Witten and Bell: of 4 tokens, 3 are distinct, so 3/7 stay; the first is always 1, so a third stays."""
    model = NgramModel([[1, 2], [1, 3]])
    anywhere = np.array([0.75, 0.75 + 2, 0.75 + 1, 0.75 + 1]) / 7
    first = anywhere / 3 + np.array([0, 2, 0, 0]) / 3
    np.testing.assert_allclose(model.predict([], UNIFORM), first)
    second = np.array([0, 0, 1, 1]) / 4 + (np.array([0, 0, 1, 1]) / 4 + anywhere / 2) / 2  # after 1; after START, 1
    np.testing.assert_allclose(model.predict([1], UNIFORM), second)
    np.testing.assert_allclose(model.predict([3], UNIFORM), anywhere)  # nothing ever followed


@given(st.lists(TOKENS, max_size=4), TOKENS)
def test_predictions_are_probabilities(texts: list[list[int]], answer: list[int]) -> None:
    p = NgramModel(texts).predict(answer, UNIFORM)
    assert p.sum() == pytest.approx(1)
    assert (p > 0).all()


def test_nothing_written_moves_nothing() -> None:
    assert not NgramCache(NgramModel([]), NgramModel([[1, 2]]), 4, 1.0).bias([1]).any()


def test_a_person_s_phrase_is_likelier_and_what_everyone_writes_stays() -> None:
    own, others = [[0, 1, 2]] * 3, [[0, 1, 3]] * 3
    cache = NgramCache(NgramModel(own), NgramModel(others), 5, 1.0)
    after = cache.bias([0, 1])
    assert after[2] > after[4] > after[3] - 1e-6
    assert after[2] > 5
    assert cache.bias([0])[1] == pytest.approx(0, abs=0.1)
    np.testing.assert_allclose(NgramCache(cache.own, cache.background, 5, 0.5).bias([0, 1]), after / 2, rtol=1e-6)
    np.testing.assert_allclose(cache.biases([0, 1, 2]), [cache.bias([]), cache.bias([0]), after])
