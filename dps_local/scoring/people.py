"""`Population` from the slopes of several people's texts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dps_local.errors import DataError
from dps_local.maps.fisher import Fisher, Matrix, Vector, shrunk
from dps_local.maps.population import Population
from dps_local.scoring.slopes import Slopes, joined

FEWEST = 3  # people, so that how they differ has two directions
DIRECTIONS = 8
RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
FOLDS = 10


def check_enough(people: int, fewest: int = FEWEST) -> None:
    """Raise DataError for too few people."""
    if people < fewest:
        raise DataError(f"a prior needs texts of {fewest} people or more, and there are {people}: give more files")


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
    fisher = fisher or fisher_of(people)
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


def fisher_of(people: Sequence[Slopes]) -> Fisher:
    """Return F with the ridge and the scale that hold for people, or texts of one, who had no part in it.

    A step F⁻¹μ goes where F is too small by chance; there, too, its length is too small. So people are held out, in
    turn: the ridge is the one whose steps gain them most on the quadratic model, and F is scaled until it gives these
    steps the length that the held-out samples do.
    """
    slopes, lengths, sampled = np.array([_tried_on(people, held_out) for held_out in _folds(len(people))]).sum(axis=0)
    gains = np.where(slopes > 0, slopes, 0) ** 2 / np.maximum(sampled, np.finfo(np.float64).tiny)
    best = int(np.argmax(gains)) if gains.any() else len(RIDGES) - 1
    scale = sampled[best] / lengths[best] if lengths[best] and sampled[best] else 1.0
    return Fisher.from_scores(*joined(list(people)).scores, RIDGES[best], float(scale))


def _folds(n: int) -> list[NDArray[np.int64]]:
    return np.array_split(np.random.default_rng(0).permutation(n), min(FOLDS, n))


def _tried_on(people: Sequence[Slopes], held_out: NDArray[np.int64]) -> Matrix:
    """Return of the others' step, for each ridge: its slopes, its lengths by F and by the samples, squared.

    [3, n_ridges], each summed over the people held out.
    """
    others = [person for i, person in enumerate(people) if i not in held_out]
    matrix, mu = shrunk(*joined(others).scores), np.mean([person.mean for person in others], axis=0)
    tried = [people[i] for i in held_out]
    rows = list[tuple[float, float, float]]()
    for ridge in RIDGES:
        step = np.linalg.solve(matrix + ridge * np.trace(matrix) / len(mu) * np.eye(len(mu)), mu)
        slope = sum(float(person.mean @ step) for person in tried)
        sampled = sum(person.squared_length(step) for person in tried)
        rows.append((slope, len(tried) * float(step @ matrix @ step), sampled))
    return np.array(rows).T


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
