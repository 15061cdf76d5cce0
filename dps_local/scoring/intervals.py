"""Intervals of means over few items or users, for many candidates at once: Student's t, widened by a bootstrap."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from dps_local.maps.selection import student_t

CONFIDENCE = 0.95  # two-sided
FEWEST = 6  # items or users; fewer can look like anything
DRAWS = 4000


def probability_above_0(mean: float, deviation: float) -> float:
    """Return the probability that a normal number is above 0; one that is sure to be 0 is not."""
    return NormalDist().cdf(mean / deviation) if deviation else float(mean > 0)


def simultaneous_t(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return a, b so that mean - a·stderr to mean + b·stderr holds for all columns of values [n, k] at once.

    Bootstrap-t: rows are drawn again, and of each draw the largest and the smallest t of any column around the mean
    of `values` count. That sees skewed values, whose rare losses a few rows may lack. Neither is below Student's t for
    one column; infinite for one row. `tests/scoring/test_intervals.py` has what they cover.
    """
    n = len(values)
    if n == 1:
        return math.inf, math.inf
    away = values - values.mean(axis=0)
    draws = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), DRAWS) / n
    mean = draws @ away
    error = np.sqrt(np.maximum(draws @ away**2 - mean**2, 0) / (n - 1))
    spread = error > 1e-6 * away.std(axis=0) + 1e-12 * np.abs(values).max(axis=0)  # one value alone says nothing
    t = np.divide(mean, error, out=np.zeros_like(mean), where=spread)
    rank = (1 + CONFIDENCE) / 2
    above = float(np.quantile(t.max(axis=1), rank, method="higher"))
    below = -float(np.quantile(t.min(axis=1), 1 - rank, method="lower"))
    student = float(student_t(n - 1, rank))
    return max(above, student), max(below, student)
