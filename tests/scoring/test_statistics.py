"""What effects say: means, bounds, rankings and weights, on numbers typed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from dps_local.scoring.head_effects import GAIN, PCS, HeadEffects, effects_of
from dps_local.scoring.statistics import (
    LARGEST,
    amplification,
    choose,
    lower_bound,
    mean_stderr,
    split_half_reliability,
)

NAN = math.nan
Array = NDArray[np.float64]


def test_effects_are_those_of_the_definition() -> None:
    """Two tokens, three words: everything from f and m themselves."""
    f = np.array([[2.0, 1.0, 0.0], [0.0, 0.5, 1.0]])
    m = np.array([[1.0, 1.5, 0.0], [0.0, 0.0, 2.0]])
    y = [0, 2]

    def softmax(x: Array) -> Array:
        e = np.exp(x)
        return np.asarray(e / e.sum(axis=1, keepdims=True))

    pf, pm = softmax(f), softmax(m)
    rows = np.arange(2)
    delta = f - m
    mean = (pf * delta).sum(axis=1)
    pcs = -np.log(pm[rows, y]) + np.log(pf[rows, y])
    gain = delta[rows, y] - mean
    kl = (pf * np.log(pf / pm)).sum(axis=1)
    variance = (pf * (delta - mean[:, None]) ** 2).sum(axis=1)
    # what Context.compare gives: p, and m - f at the target, its mean and its mean square
    p = np.array([pf[rows, y], pm[rows, y]])
    d = np.array([[0.0, 0.0], -delta[rows, y]])
    means = np.array([[0.0, 0.0], -mean])
    squares = np.array([[0.0, 0.0], (pf * delta**2).sum(axis=1)])
    effects = effects_of(p, d, means, squares)
    assert effects[0].tolist() == [0, 0, 0]
    assert effects[1] == pytest.approx([pcs.mean(), gain.mean(), variance.mean()], abs=1e-12)
    assert pcs == pytest.approx(gain + kl, abs=1e-12)


def test_a_probability_that_vanishes_counts_as_the_smallest_number() -> None:
    p = np.array([[0.5], [0.0]])
    effects = effects_of(p, np.zeros((2, 1)), np.zeros((2, 1)), np.zeros((2, 1)))
    assert effects[1, PCS] == pytest.approx(-math.log(1e-45) + math.log(0.5))


VALUES = np.array([[1.0, 0.0, 2.0, NAN], [3.0, 0.0, NAN, NAN], [5.0, 0.0, 4.0, NAN]])


def test_means_and_errors_are_over_the_examples_that_a_head_has() -> None:
    mean, stderr, n = mean_stderr(VALUES)
    assert n.tolist() == [3, 3, 2, 0]
    assert mean[:3].tolist() == [3, 0, 3]
    # sd 2 over three examples; sd sqrt(2) over two
    assert stderr[:3] == pytest.approx([2 / math.sqrt(3), 0, 1])
    assert math.isnan(mean[3])
    assert math.isnan(stderr[3])
    assert mean_stderr(VALUES[:1])[1].tolist() == pytest.approx([NAN] * 4, nan_ok=True)


def test_the_lower_bound_is_students() -> None:
    # one-sided 95 % quantiles of Student's t from a printed table: 2.920 for 2 degrees of freedom, 6.314 for 1
    bound = lower_bound(VALUES)
    assert bound[0] == pytest.approx(3 - 2.920 * 2 / math.sqrt(3), abs=1e-3)
    assert bound[1] == 0
    assert bound[2] == pytest.approx(3 - 6.314 * 1, abs=1e-3)
    assert bound[3] == -math.inf
    assert lower_bound(VALUES[:1]).tolist() == [-math.inf] * 4


def test_heads_enter_by_their_lower_bound_and_not_by_their_mean() -> None:
    sure, unsure = [0.9, 1.0, 1.1], [0.0, 2.0, 4.0]
    values = np.array([unsure, sure, [-1.0, -1.1, -1.2]]).T
    assert choose(values, 3) == [1]


def test_heads_without_every_example_are_not_chosen() -> None:
    values = np.array([[1.0, 1.0, NAN], [0.9, 1.0, 1.1]]).T
    assert choose(values, 2) == [1]


def test_noise_fills_the_choice_so_that_it_shows_nothing() -> None:
    """The 4 % of 270 heads, of a dozen examples, in which no head has any effect."""
    rng = np.random.default_rng(0)
    chosen = [len(choose(rng.standard_normal((12, 270)), 11)) for _ in range(50)]
    assert np.mean(chosen) > 9


def test_one_example_chooses_no_head() -> None:
    assert choose(np.array([[1.0, 2.0]]), 2) == []


@given(hnp.arrays(np.float64, (5, 7), elements=st.floats(-10, 10)), st.integers(0, 9))
def test_chosen_heads_have_the_highest_bounds_above_zero(values: Array, k: int) -> None:
    bound, chosen = lower_bound(values), choose(values, k)
    assert len(chosen) == min(k, int((bound > 0).sum()))
    assert [bound[i] for i in chosen] == sorted((bound[i] for i in chosen), reverse=True)
    left = [bound[i] for i in range(7) if i not in chosen and bound[i] > 0]
    assert not chosen or max(left, default=0) <= bound[chosen[-1]] or k == 0


def test_weights_are_slopes_shrunk_by_their_error() -> None:
    # means 2, -1 and 0.1; standard errors 1/sqrt(3), 0 and above the mean
    gains = np.array([[1.0, 2.0, 3.0], [-1.0, -1.0, -1.0], [-1.0, 0.1, 1.2]]).T
    variances = np.array([[3.0, 4.0, 5.0], [9.0, 9.0, 9.0], [100.0, 100.0, NAN]]).T
    slopes = np.array([2 * (1 - (1 / 3) / 4), -1, 0])
    weights = amplification(gains, variances, scale=0.0)
    assert weights == pytest.approx(slopes / np.sqrt(4 * slopes[0] ** 2 + 9))
    # an ablation scale of 0.9 measures a tenth of the slope, and a hundredth of the variance
    assert amplification(gains / 10, variances / 100, scale=0.9) == pytest.approx(weights)
    # above 1, a positive gain is one of less amplification
    assert amplification(gains, variances, scale=2.0) == pytest.approx(-weights)


def test_no_weight_is_above_the_largest_however_little_heads_do() -> None:
    gains = np.array([[0.02, -0.01]] * 3)
    assert amplification(gains, np.full((3, 2), 1e-9), 0.0).tolist() == [LARGEST, -LARGEST / 2]


@pytest.mark.parametrize("gains", [np.zeros((4, 3)), np.full((4, 3), NAN), np.ones((2, 3))])
def test_gains_that_say_nothing_weigh_nothing(gains: Array) -> None:
    assert amplification(gains, np.ones_like(gains), 0.0).tolist() == [0, 0, 0]


def head_effects(pcs: Array, gain: Array | None = None) -> HeadEffects:
    effects = HeadEffects.empty(*pcs.shape)
    effects.with_profile[..., PCS] = pcs
    effects.with_profile[..., GAIN] = 0 if gain is None else gain
    effects.without_profile[..., PCS], effects.rejected[..., PCS] = 0.25, 0.5
    return effects


def test_values_are_those_that_heads_are_ranked_by() -> None:
    effects = head_effects(np.array([[1.0, 2.0]]), np.array([[0.1, 0.2]]))
    assert effects.ranked_by("pcs").tolist() == [[1, 2]]
    assert effects.ranked_by("gain").tolist() == [[0.1, 0.2]]
    assert effects.ranked_by("contrast").tolist() == [[0.75, 1.75]]
    assert effects.pairwise.tolist() == [[0.5, 1.5]]
    assert effects.of([]).nll.tolist() == []


def test_a_gain_that_is_all_noise_is_left_out_of_what_a_head_promises() -> None:
    kl = np.array([[0.3, 0.2, 0.1], [0.3, 0.2, 0.1]])
    noise = np.array([[-0.5, 0.0, 0.5], [0.5, 0.0, -0.4]])
    assert head_effects(kl + noise, noise).promotion_scores("pcs") == pytest.approx([0.3, 0.2, 0.1])
    # one example alone says nothing about noise
    assert head_effects((kl + noise)[:1], noise[:1]).promotion_scores("pcs") == pytest.approx([0.3, 0.2, 0.1])
    real = np.array([[-0.5, 0.0, 0.5], [-0.5, 0.0, 0.5]])
    assert head_effects(kl + real, real).promotion_scores("pcs") == pytest.approx([-0.2, 0.2, 0.6])
    assert head_effects(kl, real).promotion_scores("gain") == pytest.approx([-0.5, 0.0, 0.5])


def test_halves_that_agree_are_stable_and_noise_is_not() -> None:
    rng = np.random.default_rng(0)
    strong = np.arange(20.0) + 0.01 * rng.standard_normal((10, 20))
    reliability = split_half_reliability(strong, 3, seed=0)
    assert reliability is not None
    assert reliability.spearman == pytest.approx(1)
    assert (reliability.jaccard, reliability.heads) == (1, 20)
    noise = split_half_reliability(rng.standard_normal((10, 400)), 20, seed=0)
    assert noise is not None
    assert abs(noise.spearman) < 0.2
    assert noise.jaccard < 0.15
    assert split_half_reliability(strong[:3], 3, 0) is None
    partial = strong.copy()
    partial[0, :5] = NAN
    compared = split_half_reliability(partial, 3, 0)
    assert compared is not None
    assert compared.heads == 15
