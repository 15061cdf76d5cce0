"""What intervals of few values cover, by simulation: of 95 % that are promised, on values like the gains of items."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from dps_local.maps.calibration import NO_STEERING, Candidate
from dps_local.scoring.calibrate import TEMPERATURES, calibrate
from dps_local.scoring.intervals import simultaneous_t

Array = NDArray[np.float64]
RUNS = 400  # a share of 0.95 has a standard error of 0.011
TRIED = [NO_STEERING, Candidate("contrast", 1, 0.25), Candidate("amplify", None, 0.2), Candidate("amplify", None, 0.4)]
# from standard normal numbers to values of mean 0 and deviation 1; of an exponential one, the skewness is 2
SHAPES: dict[str, Callable[[Array], Array]] = {
    "normal": lambda z: z,
    "seldom a large loss": lambda z: 1 + norm.logcdf(z),
    "seldom a large gain": lambda z: -1 - norm.logcdf(-z),
}


def gains(shape: str, rng: np.random.Generator, n: int = 12, k: int = 3) -> Array:
    """Values [n, k] around 0; those of a row, an item's under k candidates, correlate by 0.6 before they are shaped."""
    z = math.sqrt(0.6) * rng.standard_normal((n, 1)) + math.sqrt(0.4) * rng.standard_normal((n, k))
    return np.asarray(SHAPES[shape](z))


@pytest.mark.parametrize("n", [6, 12])
@pytest.mark.parametrize("shape", SHAPES)
def test_intervals_of_three_candidates_hold_for_all_of_them_at_once(shape: str, n: int) -> None:
    rng, held, effect = np.random.default_rng(n), 0, 3.0
    for _ in range(RUNS):
        x = gains(shape, rng, n) + effect
        mean, stderr = x.mean(axis=0), x.std(axis=0, ddof=1) / math.sqrt(n)
        below, above = simultaneous_t(x)
        held += bool(((mean - below * stderr <= effect) & (effect <= mean + above * stderr)).all())
    assert held >= 0.92 * RUNS


@pytest.mark.parametrize(("shape", "most"), [("normal", 0.04), ("seldom a large loss", 0.06)])
def test_candidates_that_do_nothing_are_seldom_taken_for_help(shape: str, most: float) -> None:
    """2.5 % are promised; skewed gains of a dozen items reach 4 %, as the loss that they lack is not to be seen."""
    rng, helped = np.random.default_rng(0), 0
    for _ in range(RUNS):
        losses = np.hstack([np.zeros((12, 1)), -gains(shape, rng)])
        helped += calibrate(losses[:, :, None] + 1e-6 * np.arange(len(TEMPERATURES)), TRIED).helps
    assert helped <= most * RUNS


@pytest.mark.parametrize("temperature", [0.7, 0.85, 1.0, 1.3])
def test_what_only_sharpens_is_no_help_however_confident_the_model_is(temperature: float) -> None:
    """The user's tokens follow softmax(f / temperature), and steering multiplies f."""
    rng, helped, runs = np.random.default_rng(0), 0, 40
    for _ in range(runs):
        f = 2 * rng.standard_normal((12, 32, 100))
        y = (f / temperature + rng.gumbel(size=f.shape)).argmax(axis=-1)

        def losses(factor: float, f: Array = f, y: NDArray[np.intp] = y) -> Array:
            of_y = np.take_along_axis(f, y[..., None], -1)[..., 0]
            return np.asarray((np.log(np.exp(factor * f).sum(axis=-1)) - factor * of_y).mean(axis=1))

        tried = [[losses(sharpened / t) for t in TEMPERATURES] for sharpened in (1.0, 1.05, 1.12, 1.25)]
        helped += calibrate(np.moveaxis(np.array(tried), -1, 0), TRIED).helps
    assert helped <= 0.1 * runs


def test_bounds_are_students_for_many_values_and_wider_for_many_columns() -> None:
    x = np.random.default_rng(0).standard_normal((400, 40))
    # two-sided 95 % quantiles of a normal variable, and of the largest of forty
    assert simultaneous_t(x[:, :1]) == pytest.approx((1.96, 1.96), abs=0.1)
    assert simultaneous_t(x) == pytest.approx((3.22, 3.22), abs=0.2)
    assert simultaneous_t(x[:, [0] * 40]) == pytest.approx(simultaneous_t(x[:, :1]))
    assert simultaneous_t(x[:12]) > simultaneous_t(x[:12, :1])


def test_bounds_are_never_below_students() -> None:
    # from a printed table, for 1 and 3 degrees of freedom
    assert simultaneous_t(np.array([[0.0], [1.0]])) == pytest.approx((12.706, 12.706), abs=1e-3)
    assert min(simultaneous_t(np.array([[0.0], [0.0], [0.0], [1.0]]))) == pytest.approx(3.182, abs=1e-3)
    assert simultaneous_t(np.ones((4, 2))) == pytest.approx((3.182, 3.182), abs=1e-3)
    assert simultaneous_t(np.ones((1, 2))) == (math.inf, math.inf)
    assert calibrate(np.zeros((2, 2, len(TEMPERATURES))), TRIED[:2]).low == 0


def test_bounds_of_values_that_are_seldom_large_lie_far_on_that_side() -> None:
    x = np.array([[-3.0], *[[1.0 + i / 100] for i in range(11)]])
    below, above = simultaneous_t(x)
    assert below > 2 * above
    assert simultaneous_t(-x) == pytest.approx((above, below), rel=0.1)
