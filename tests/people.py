"""People whose best steps are known, texts of theirs, and populations that are typed by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dps_local.maps.fisher import Fisher
from dps_local.maps.population import Population
from dps_local.scoring.slopes import Slopes

Array = NDArray[np.float64]
F = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.25], [0.0, 0.25, 0.5]])


def exact(matrix: Array) -> Fisher:
    return Fisher(np.zeros(len(matrix), np.float32), np.linalg.cholesky(matrix).T.astype(np.float32), 1e-9)


def population(**changes: Any) -> Population:
    made = Population(
        mu=np.array([0.5, -0.25, 0.125], np.float32),
        fisher=exact(F),
        dispersion=1.5,
        spread=0.03,
        directions=np.array([[0.5, -0.5, 0.25], [0.0, 1.0, 0.5]], np.float32),
        lambdas=np.array([0.25, 0.125], np.float32),
    )
    return replace(made, **changes)


def texts(slopes: Array | list[list[float]], tokens: list[int] | None = None) -> Slopes:
    """Texts with these slopes, one token each unless told, without samples."""
    given = np.array(slopes, np.float32)
    n_tokens = np.ones(len(given), np.int64) if tokens is None else np.array(tokens, np.int64)
    return Slopes(given, n_tokens, np.zeros(len(given)), np.empty((len(given), 0, given.shape[1]), np.float32))


def written(
    rng: np.random.Generator, step: Array, fisher: Array, n: int, tokens: int, dispersion: float = 1.0
) -> Slopes:
    """Texts of a person whose best step is `step`, of a model with this F, and two samples of each."""
    root = np.linalg.cholesky(fisher * tokens).T
    noise = rng.standard_normal((n, len(step))) @ root * np.sqrt(dispersion)
    slopes = (tokens * fisher @ step + noise).astype(np.float32)
    samples = (rng.standard_normal((n, 2, len(step))) @ root).astype(np.float32)
    return Slopes(slopes, np.full(n, tokens, np.int64), np.full(n, 2.0 * tokens), samples)
