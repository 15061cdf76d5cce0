"""`Mixture`: which of several kinds of writing a person's text is, and the posterior over all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dps_local.maps.fisher import Fisher, Vector
from dps_local.maps.population import Population
from dps_local.scoring.posterior import Posterior, posterior
from dps_local.scoring.slopes import Slopes


@dataclass(frozen=True, eq=False)
class Mixture:
    """probabilities: F64 [n_kinds + 1], of each kind and, last, of something else; posterior: over all of these."""

    probabilities: Vector
    posterior: Posterior


def mixture(kinds: Sequence[Population], own: Slopes | None = None) -> Mixture:
    """Weigh kinds, and something else, by how likely each makes the slopes of own text, and mix their posteriors.

    Each is at first as likely; so without own text the step is short.
    """
    steps, everything = [kind.step for kind in kinds], with_something_else(kinds)
    shares = _softmax(np.array([log_density(one, steps, own) for one in everything]))
    return Mixture(shares, mixed(everything, shares, own))


def with_something_else(kinds: Sequence[Population]) -> list[Population]:
    return [*kinds, something_else(kinds)]


def mixed(everything: Sequence[Population], shares: Vector, own: Slopes | None) -> Posterior:
    """Return the posterior over kinds and, last, something else, of these probabilities."""
    kinds = everything[:-1]
    found = [posterior(one, own) for one in everything]
    steps = np.array([one.step for one in found])
    step = shares @ steps
    apart = steps - step
    within = sum(share * one.covariance for share, one in zip(shares, found, strict=True))
    of_kinds = shares[:-1] / shares[:-1].sum() if shares[:-1].any() else np.full(len(kinds), 1 / len(kinds))
    fisher = _mean_fisher([kind.fisher for kind in kinds], of_kinds)
    return Posterior(step, within + (apart.T * shares) @ apart, fisher)


def something_else(kinds: Sequence[Population]) -> Population:
    """Return writing that is none of the kinds, but may have some of each, or as much of its opposite.

    Its mean is no step at all; people of it go along each kind's step by a standard deviation of that step's length,
    and scatter in every direction as people of the kinds do.
    """
    fisher = _mean_fisher([kind.fisher for kind in kinds], np.full(len(kinds), 1 / len(kinds)))
    lengths = np.array([fisher.length(kind.step) for kind in kinds])
    return Population(
        mu=np.zeros_like(kinds[0].mu),
        fisher=fisher,
        dispersion=float(np.mean([kind.dispersion for kind in kinds])),
        spread=float(np.mean([kind.spread for kind in kinds])),
        directions=np.array([fisher.scaled_to(kind.step, 1.0) for kind in kinds], np.float32),
        lambdas=(lengths**2).astype(np.float32),
    )


def log_density(population: Population, steps: Sequence[Vector], own: Slopes | None) -> float:
    """Return the log density of how steep own text is along some steps, for a person of a population.

    What a person gains along the kinds' steps is normal among people of a population, and own text shows it with the
    noise of its length. In a few directions this holds; in all of them, each small error of F would decide.
    """
    if own is None or not own.n_tokens:
        return 0.0
    along = np.array(steps)
    slopes, noise = along @ population.fisher.ridged, population.dispersion / own.n_tokens
    covariance = slopes @ population.covariance @ slopes.T + noise * along @ population.fisher.matrix @ along.T
    covariance += np.eye(len(along)) * (1e-6 * np.trace(covariance) or 1.0)  # two kinds may have one step, or none
    root = np.linalg.cholesky(covariance)
    away = np.linalg.solve(root, along @ (own.mean - population.mu))
    return float(-away @ away / 2 - np.log(np.diag(root)).sum() - len(along) / 2 * math.log(2 * math.pi))


def _softmax(values: Vector) -> Vector:
    likely = np.exp(values - values.max())
    return np.asarray(likely / likely.sum())


def _mean_fisher(fishers: Sequence[Fisher], shares: Vector) -> Fisher:
    diagonal = sum(share * fisher.diagonal for share, fisher in zip(shares, fishers, strict=True))
    ridge = sum(share * fisher.ridge for share, fisher in zip(shares, fishers, strict=True))
    factors = [np.sqrt(share) * fisher.factor for share, fisher in zip(shares, fishers, strict=True)]
    return Fisher(np.asarray(diagonal, np.float32), np.concatenate(factors, dtype=np.float32), float(ridge))
