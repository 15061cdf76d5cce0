"""`PromisedStep`: a step, how far it is best to go along it, and what that is expected to be worth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dps_local.maps.fisher import Vector
from dps_local.maps.quadratic_error import QuadraticError
from dps_local.maps.step_evidence import BOUND
from dps_local.scoring.intervals import probability_above_0
from dps_local.scoring.posterior import Posterior

LONGEST = 0.2  # of γ where nothing says how far the loss is from quadratic
GRID = 40  # lengths among which γ is chosen


@dataclass(frozen=True, eq=False)
class PromisedStep:
    """A step δ, by which heads are scaled to 1 + δ, and the posterior of the one that suits the person best.

    shares: the probability of each kind of writing that others' priors are of and, last, of something else. errors: of
    the quadratic model, for each of these kinds; none where nobody tried.
    """

    posterior: Posterior
    step: Vector
    shares: tuple[float, ...]
    errors: tuple[QuadraticError, ...]

    @property
    def direction(self) -> Vector:
        """The step at length 1; 0 where nothing is known."""
        return self.posterior.fisher.scaled_to(self.step, 1.0)

    @cached_property
    def gamma(self) -> float:
        """The length whose gain has the highest lower bound; where nobody tried, that of the step, or LONGEST."""
        if not self.errors:
            return min(self.posterior.fisher.length(self.step), LONGEST)
        lengths = np.linspace(0, min(error.longest for error in self.errors), GRID + 1)[1:].round(6)  # as people write
        bounds = [gain - BOUND * deviation for gain, deviation in map(self.expected, lengths)]
        return float(lengths[int(np.argmax(bounds))])

    def helps(self, gamma: float) -> float:
        """Return the probability that it gains anything at a strength; 0 for none at all."""
        return probability_above_0(*self.expected(gamma))

    def expected(self, gamma: float) -> tuple[float, float]:
        """Return the expected gain at a strength in nats a token, and its standard deviation."""
        gain, deviation = self.posterior.gain(gamma * self.direction)
        if not self.errors or not self.step.any():
            return gain, deviation
        # something else is taken to be as far from quadratic as the kinds on average
        means, deviations = np.array([error.at(gamma) for error in self.errors]).T
        shares = np.array(self.shares[:-1]) + self.shares[-1] / len(means)
        error = float(shares @ means)
        return gain + error, math.sqrt(deviation**2 + float(shares @ (deviations**2 + (means - error) ** 2)))
