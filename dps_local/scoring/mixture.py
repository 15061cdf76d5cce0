"""`Mixture`: which of several kinds of writing a person's text is, and the posterior over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dps_local.maps.fisher import Fisher, Vector
from dps_local.maps.population import Population
from dps_local.scoring.posterior import Posterior, posterior
from dps_local.scoring.slopes import Slopes


@dataclass(frozen=True, eq=False)
class Mixture:
    """probabilities: F64 [n_kinds + 1], of each kind and, last, of none of them; posterior: over all of these."""

    probabilities: Vector
    posterior: Posterior


def mixture(kinds: Sequence[Population], own: Slopes | None = None) -> Mixture:
    """Weigh kinds by how likely each one's step makes the person's own text, and mix their posteriors in these shares.

    None of the kinds is at first as likely as each of them, and it is the plain model; so without own text the step is
    short, and where no kind fits, there is none.
    """
    shares = _softmax(np.array([*(log_likelihood(kind, own) for kind in kinds), 0.0]))
    return Mixture(shares, mixed(kinds, shares, own))


def mixed(kinds: Sequence[Population], shares: Vector, own: Slopes | None) -> Posterior:
    """Return the posterior over kinds of these probabilities, the last of which is that of none of them."""
    found = [posterior(kind, own) for kind in kinds]
    steps = np.array([*(one.step for one in found), np.zeros_like(found[0].step)])
    step = shares @ steps
    apart = steps - step
    within = sum(share * one.covariance for share, one in zip(shares[:-1], found, strict=True))
    between = (apart.T * shares) @ apart
    of_kinds = shares[:-1] / shares[:-1].sum() if shares[:-1].any() else np.full(len(kinds), 1 / len(kinds))
    return Posterior(step, within + between, _mean_fisher([kind.fisher for kind in kinds], of_kinds))


def log_likelihood(kind: Population, own: Slopes | None) -> float:
    """Return how much likelier a kind's step makes a person's text, in nats of independent tokens, to second order."""
    if own is None or not own.n_tokens:
        return 0.0
    gain = own.mean @ kind.step - kind.fisher.length(kind.step) ** 2 / 2
    return float(own.n_tokens / kind.dispersion * gain)


def _softmax(values: Vector) -> Vector:
    likely = np.exp(values - values.max())
    return np.asarray(likely / likely.sum())


def _mean_fisher(fishers: Sequence[Fisher], shares: Vector) -> Fisher:
    diagonal = sum(share * fisher.diagonal for share, fisher in zip(shares, fishers, strict=True))
    factors = [np.sqrt(share) * fisher.factor for share, fisher in zip(shares, fishers, strict=True)]
    return Fisher(np.asarray(diagonal, np.float32), np.concatenate(factors, dtype=np.float32))
