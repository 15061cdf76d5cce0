"""Which heads are the best, and how far two choices of heads agree: ranks, confidence bounds, overlaps."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Ranking = Literal["pcs", "gain", "contrast"]
SELECTION_CONFIDENCE = 0.95  # of the one-sided lower bound by which heads are chosen


def top_k(n_heads: int, fraction: float = 0.04) -> int:
    """Return K for a model of n_heads heads: the paper keeps about 4 %, here at least one."""
    return max(1, round(fraction * n_heads))


def top_heads(scores: NDArray[np.floating], k: int, above: float = -math.inf) -> list[int]:
    """Return the places of the k highest scores, best first, counted through all layers.

    Fewer where less than k are finite and greater than `above`. Of equal scores, the first counts as the higher.
    """
    flat = np.where(np.isfinite(scores), scores, -np.inf).ravel()
    order = np.argsort(-flat, kind="stable")[:k]
    return [int(place) for place in order if flat[place] > above]


def lower_confidence_bound(
    mean: NDArray[np.floating],
    stderr: NDArray[np.floating],
    n: NDArray[np.number],
    confidence: float = SELECTION_CONFIDENCE,
) -> NDArray[np.float64]:
    """Return the one-sided lower confidence bound of means over n examples (Student's t); -inf for less than two."""
    t = student_t(np.maximum(n - 1.0, 1.0), confidence)
    return np.where(n > 1, mean - t * stderr, -np.inf)


def student_t(freedom: NDArray[np.float64] | float, p: float) -> NDArray[np.float64]:
    """Return the p-quantile of Student's t for so many degrees of freedom."""
    from scipy.special import stdtrit  # a quarter of a second that a start of the program need not wait for

    return np.asarray(stdtrit(freedom, p))


def jaccard(a: Collection[int], b: Collection[int]) -> float:
    """Return the overlap of two sets, 1 for two empty ones."""
    one, other = set(a), set(b)
    return len(one & other) / len(one | other) if one | other else 1.0
