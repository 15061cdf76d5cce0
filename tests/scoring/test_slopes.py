from __future__ import annotations

import numpy as np
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
    by_hand = Fisher.from_scores(np.array([[1, 2], [3, -1], [2, 2], [0, 4]], np.float32), np.array([2, 2, 6, 6]))
    assert np.array_equal(own.fisher.matrix, by_hand.matrix)
    assert np.diag(own.fisher.matrix).tolist() == [14 / 16, 25 / 16]


def test_texts_of_several_people_are_joined_in_order() -> None:
    both = joined([texts([[1, 2]], [3]), texts([[3, 4], [5, 6]], [1, 2])])
    assert both.slopes.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert both.tokens.tolist() == [3, 1, 2]
    assert (both.nll.shape, both.samples.shape) == ((3,), (3, 0, 2))
