"""How far to go along a step, and what that promises, by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from dps_local.maps.fisher import Fisher
from dps_local.maps.quadratic_error import QuadraticError
from dps_local.scoring.posterior import Posterior
from dps_local.scoring.promised_step import LONGEST, PromisedStep

# F = 4: a step of ½ is 1 long; the best step is ½ ± ¼, so along it γ gains γ·(1 ± ½) - γ²/2
FISHER = Fisher(np.full(1, 4, np.float32), np.zeros((1, 1), np.float32), 1e-9)
BEST = Posterior(np.array([0.5]), np.array([[0.0625]]), FISHER)
NOTHING_ELSE = (1.0, 0.0)


def errors(mean: float, deviation: float) -> QuadraticError:
    """At γ = 0.8, and half of it at half of that."""
    return QuadraticError(*(np.array([part], np.float32) for part in (0.8, mean, deviation)))


def test_what_nobody_tried_is_the_quadratic_model_of_a_short_step() -> None:
    step = PromisedStep(BEST, BEST.step, (), ())
    assert step.gamma == LONGEST
    assert step.expected(0.4) == pytest.approx((0.4 - 0.08, 0.2))


def test_the_error_of_the_model_is_added_to_what_it_promises() -> None:
    step = PromisedStep(BEST, BEST.step, NOTHING_ELSE, (errors(-0.1, 0.12),))
    assert step.expected(0.8) == pytest.approx((0.8 - 0.32 - 0.1, math.hypot(0.4, 0.12)))
    assert step.expected(0.4) == pytest.approx((0.4 - 0.08 - 0.05, math.hypot(0.2, 0.06)))


def test_errors_of_several_kinds_are_mixed_by_their_shares() -> None:
    """A quarter each of kinds that err by 0 and by -0.2, and half something else, which errs as they do on average."""
    step = PromisedStep(BEST, BEST.step, (0.25, 0.25, 0.5), (errors(0.0, 0.0), errors(-0.2, 0.0)))
    mean, deviation = step.expected(0.8)
    assert mean == pytest.approx(0.48 - 0.1)
    assert deviation == pytest.approx(math.hypot(0.4, 0.1))


def test_the_length_is_that_of_the_highest_lower_bound() -> None:
    """γ·(1 - 0.5·1.2816) - γ²/2 is highest at γ = 0.359; an error that harms makes it shorter."""
    quadratic = PromisedStep(BEST, BEST.step, NOTHING_ELSE, (errors(0.0, 0.0),))
    assert quadratic.gamma == pytest.approx(1 - 0.5 * NormalDist().inv_cdf(0.9), abs=0.011)
    harmful = replace(quadratic, errors=(errors(-0.16, 0.0),))
    assert harmful.gamma == pytest.approx(1 - 0.5 * NormalDist().inv_cdf(0.9) - 0.2, abs=0.011)


def test_no_step_promises_nothing() -> None:
    step = PromisedStep(BEST, np.zeros(1), NOTHING_ELSE, (errors(0.3, 0.1),))
    assert step.expected(0.4) == (0, 0)
