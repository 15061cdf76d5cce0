"""What a `Steering` makes of scales and logits, on numbers typed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dps_local.steering.mixing import Gamma
from dps_local.steering.steering import Steering, amplified

SCALES = np.array([[1.0, 0.0], [1.5, 1.0]], np.float32)
ONES = np.ones_like(SCALES)
FULL, OWN = np.array([1.0, 2.0], np.float32), np.array([0.5, 3.0], np.float32)


def test_amplified_scales_are_one_plus_gamma_times_weight() -> None:
    scales = amplified(np.array([[1.0, -0.5, math.nan]], np.float32), 0.2)
    assert scales == pytest.approx(np.array([[1.2, 0.9, 1.0]], np.float32))


def test_the_own_stream_has_the_scales_of_a_contrast_and_those_of_an_amplification_by_gamma() -> None:
    assert np.array_equal(Steering(SCALES, Gamma(0.5)).own_scales, SCALES)
    assert Steering(SCALES, Gamma(0.5), mode="amplify").own_scales.tolist() == [[1, 0.5], [1.25, 1]]
    assert np.array_equal(Steering(ONES, Gamma(0.5), mode="cad").own_scales, ONES)


def test_a_contrast_moves_away_from_its_own_stream_and_an_amplification_is_it() -> None:
    assert Steering(SCALES, Gamma(2.0)).mix(FULL, OWN).tolist() == [2, 0]
    assert Steering(ONES, Gamma(2.0), mode="cad").mix(FULL, OWN).tolist() == [2, 0]
    assert Steering(SCALES, Gamma(2.0), mode="amplify").mix(FULL, OWN) is OWN
    # of a part of the vocabulary, γ is that of the whole
    assert Steering(SCALES, Gamma(entropy=True)).mix(FULL, OWN, gamma=2.0).tolist() == [2, 0]


def test_steering_is_off_without_strength_or_without_heads() -> None:
    assert Steering(SCALES, Gamma(0.0)).off
    assert Steering(ONES, Gamma(1.0)).off
    assert not Steering(SCALES, Gamma(1.0)).off
    assert not Steering(ONES, Gamma(1.0), mode="cad").off
    assert Steering(SCALES, Gamma(1.0)).heads == [(0, 1), (1, 0)]
