"""`Population` from the slopes of several people's texts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dps_local.errors import DataError
from dps_local.maps.fisher import Fisher, Matrix, Vector
from dps_local.maps.population import Population
from dps_local.scoring.slopes import Slopes, joined

FEWEST = 3  # people, so that how they differ has two directions
DIRECTIONS = 8


def check_enough(people: int) -> None:
    """Raise DataError for fewer than 3 people."""
    if people < FEWEST:
        raise DataError(f"a prior needs texts of {FEWEST} people or more, and there are {people}: give more files")


def population_of(people: Sequence[Slopes], fisher: Fisher | None = None) -> Population:
    """Return what people have in common and how they differ, each of them counting alike.

    Their mean is shrunk by its own error (James and Stein), so that the gain it promises is what a new person may
    expect. The covariance between people, less the noise of their texts, has many dimensions, and there are few
    people: it is shrunk towards the same variance in every direction, as under an inverse Wishart prior with n_heads
    degrees of freedom, and of what stands out the largest directions are kept. How far people go along the mean step
    itself is measured by itself: most of what a new person gains depends on it.
    fisher: F, where it is not to come from the samples. Raises DataError for fewer than 3 people.
    """
    people = [person for person in people if person.n_tokens]
    check_enough(len(people))
    fisher = fisher or joined(people).fisher
    means = np.array([person.mean for person in people])
    (n, n_heads), mu = means.shape, means.mean(axis=0)
    away = means - mu
    # the covariance of people's steps, where F is the unit of length, has the same eigenvalues
    values, vectors = np.linalg.eigh(away @ fisher.inverse @ away.T / (n - 1))
    values, vectors = np.maximum(values[:0:-1], 0), vectors[:, :0:-1]  # the last is 0, as the mean is taken off
    total, length = float(values.sum()), float(mu @ fisher.inverse @ mu)
    mu *= max(1 - total / n / length, 0.0) if length else 0.0
    dispersion = dispersion_of(people, fisher)
    noise = dispersion * float(np.mean([1 / person.n_tokens for person in people]))
    between = max(total - noise * fisher.ridged_heads, 0.0)
    of_people = n / (n + n_heads)
    spread = (1 - of_people) * between / n_heads
    units = np.sqrt((n - 1) * np.maximum(values, np.finfo(np.float32).tiny))[:, None]
    directions = (vectors.T @ away @ fisher.inverse / units)[:DIRECTIONS]
    lambdas = of_people * (between / total if between else 0.0) * values[:DIRECTIONS]
    along, more = _along_the_step(fisher.inverse @ mu, away, noise, fisher)
    more -= spread + float(lambdas @ (directions @ fisher.ridged @ along) ** 2)
    return Population(
        mu=mu.astype(np.float32),
        fisher=fisher,
        dispersion=dispersion,
        spread=spread,
        directions=np.array([along, *directions], np.float32),
        lambdas=np.array([max(more, 0.0), *lambdas], np.float32),
    )


def _along_the_step(step: Vector, away: Matrix, noise: float, fisher: Fisher) -> tuple[Vector, float]:
    """Return the direction of a step, and the variance of how far people go along it, less that of their texts."""
    along = step / (math.sqrt(float(step @ fisher.ridged @ step)) or 1.0)
    return along, float(np.var(away @ along, ddof=1)) - noise * fisher.length(along) ** 2


def dispersion_of(people: Sequence[Slopes], fisher: Fisher) -> float:
    """Return how much more slopes vary from text to text of a person than F says; 1 where nobody has two texts."""
    squares, freedom = 0.0, 0
    for person in people:
        lengths = np.einsum("ni,ij,nj->n", person.deviations, fisher.inverse, person.deviations, optimize=True)
        squares += float((lengths / np.maximum(person.tokens, 1)).sum())
        freedom += int((person.tokens > 0).sum()) - 1
    return squares / (freedom * fisher.ridged_heads) if squares and freedom else 1.0
