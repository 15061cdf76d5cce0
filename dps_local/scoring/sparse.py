"""A step of few heads: those that together do most of what a step of all heads does."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dps_local.maps.fisher import Fisher, Vector


def sparse(step: Vector, fisher: Fisher, k: int) -> tuple[NDArray[np.int64], Vector]:
    """Return k heads, the most useful first, and the best step by them alone, which is 0 elsewhere.

    To second order a step δ is worth δᵀb - δᵀFδ/2, where b = F·`step`, and the best one with heads S bᵀF⁻¹b/2, of S
    alone. Each next head is the one that adds most to that (orthogonal matching pursuit); F has its ridge.
    """
    matrix = fisher.ridged
    slopes = matrix @ step
    k = min(k, len(step))
    chosen = np.empty(k, np.int64)
    rows = np.empty((k, len(step)))  # of the Cholesky factor of F, its columns in the order of choice
    # of each head: its slope and its variance, less what the chosen heads explain
    left, variance = slopes.copy(), np.diag(matrix).copy()
    free = np.ones(len(step), bool)
    for i in range(k):
        chosen[i] = best = int(np.argmax(np.where(free, left**2 / variance, -1)))
        free[best] = False
        rows[i] = (matrix[best] - rows[:i, best] @ rows[:i]) / np.sqrt(variance[best])
        left -= rows[i] * (left[best] / np.sqrt(variance[best]))
        variance = np.where(free, variance - rows[i] ** 2, 1.0)
    few = np.zeros_like(step)
    few[chosen] = np.linalg.solve(matrix[np.ix_(chosen, chosen)], slopes[chosen])
    return chosen, few
