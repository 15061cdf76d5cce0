"""People whose best steps are known, and texts of theirs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dps_local.scoring.slopes import Slopes

Array = NDArray[np.float64]


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
