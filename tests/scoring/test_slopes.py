from __future__ import annotations

import numpy as np
import pytest
from people import texts

from dps_local.maps.fisher import Fisher
from dps_local.scoring.slopes import Slopes, joined


def test_long_texts_count_for_more() -> None:
    own = texts([[3, 1], [5, 3]], [3, 1])
    assert own.n_tokens == 4
    assert own.mean.tolist() == [2, 1]
    assert own.deviations.tolist() == [[-3, -2], [3, 2]]


def test_every_sample_of_a_text_has_its_tokens() -> None:
    samples = np.array([[[1, 2], [3, -1]], [[2, 2], [0, 4]]], np.float32)
    own = Slopes(np.zeros((2, 2), np.float32), np.array([2, 6]), np.zeros(2), samples)
    by_hand = Fisher.from_scores(np.array([[1, 2], [3, -1], [2, 2], [0, 4]], np.float32), np.array([2, 2, 6, 6]), 0.1)
    found = Fisher.from_scores(*own.scores, 0.1)
    assert np.array_equal(found.matrix, by_hand.matrix)
    assert np.diag(found.matrix).tolist() == [14 / 16, 25 / 16]


def test_a_squared_length_is_that_of_the_samples_matrix_a_token() -> None:
    samples = np.array([[[1, 2], [3, -1]], [[2, 2], [0, 4]]], np.float32)
    own = Slopes(np.zeros((2, 2), np.float32), np.array([2, 6]), np.zeros(2), samples)
    # 1·1 + 2·3 = 7, 3·1 - 1·3 = 0, 8, 12: squares, halved for two samples, by 8 tokens
    assert own.squared_length(np.array([1.0, 3.0])) == pytest.approx((49 + 0 + 64 + 144) / 2 / 8)


def test_some_texts_are_theirs_in_the_order_asked_for() -> None:
    own = texts([[1, 2], [3, 4], [5, 6]], [1, 2, 3])
    assert own.those([2, 0]).slopes.tolist() == [[5, 6], [1, 2]]
    assert own.those([2, 0]).tokens.tolist() == [3, 1]
    assert own.one(1).slopes.tolist() == [[3, 4]]


def test_texts_of_several_people_are_joined_in_order() -> None:
    both = joined([texts([[1, 2]], [3]), texts([[3, 4], [5, 6]], [1, 2])])
    assert both.slopes.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert both.tokens.tolist() == [3, 1, 2]
    assert (both.nll.shape, both.samples.shape) == ((3,), (3, 0, 2))
