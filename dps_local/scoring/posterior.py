"""`Posterior`: a person's step δ, and how sure it is, from what is known of others and from the person's own text."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dps_local.maps.fisher import Fisher, Matrix, Vector
from dps_local.maps.population import Population
from dps_local.scoring.people import dispersion_of, fisher_of
from dps_local.scoring.slopes import Slopes


@dataclass(frozen=True, eq=False)
class Posterior:
    """The step that suits the person best is normal, with mean `step` and `covariance`.

    To second order, scaling the heads by 1 + δ gains δᵀF·best - δᵀFδ/2 nats a token on the person's text; where F is
    inverted, and so in its product with a step, it has its ridge.
    """

    step: Vector
    covariance: Matrix
    fisher: Fisher

    def gain(self, delta: Vector) -> tuple[float, float]:
        """Return the expected gain of a step in nats a token, and its standard deviation."""
        slope = self.fisher.ridged @ delta
        variance = float(slope @ self.covariance @ slope)
        return float(slope @ self.step) - self.fisher.length(delta) ** 2 / 2, math.sqrt(max(variance, 0.0))


def posterior(population: Population, own: Slopes | None = None) -> Posterior:
    """Return δ = (N·F + Λ)⁻¹(N·g + Λ·prior): slopes g of N own tokens, added to what others tell.

    Λ is the inverse of the people's covariance, times the dispersion by which N real tokens tell less than N that the
    model draws. Own text of no length leaves the prior as it is, and much of it leaves nothing of the prior.
    """
    fisher, prior, covariance = population.fisher, population.step, population.covariance
    if own is None or not own.n_tokens:
        return Posterior(prior, covariance, fisher)
    noise = population.dispersion / own.n_tokens
    # the same, without the inverse of a covariance that may be 0 in some directions
    gain = np.linalg.solve(covariance @ fisher.ridged + noise * np.eye(len(prior)), covariance)
    return Posterior(prior + gain @ (own.mean - fisher.ridged @ prior), np.asarray(noise * gain), fisher)


def own_alone(own: Slopes) -> Posterior:
    """Return the posterior of a person of whose kind of writing nothing is known.

    F is the one that holds for texts held out. Steps are as long, in every direction, as the slopes exceed their noise:
    the shrinkage of James and Stein.
    """
    fisher, n_heads = fisher_of([own.one(i) for i in range(len(own.tokens))]), own.slopes.shape[1]
    dispersion = dispersion_of([own], fisher)
    noise = dispersion * fisher.ridged_heads / own.n_tokens
    spread = max(float(own.mean @ fisher.inverse @ own.mean) - noise, 0.0) / n_heads
    none = np.empty((0, n_heads), np.float32)
    anyone = Population(np.zeros(n_heads, np.float32), fisher, dispersion, spread, none, none[:, 0])
    return posterior(anyone, own)
