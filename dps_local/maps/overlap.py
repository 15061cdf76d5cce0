"""`Overlap`: how far the best heads of several head maps of one model are the same; `Sparsity`: how few they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dps_local.errors import HeadMapError
from dps_local.maps.scored_heads import ScoredHeads, Scores
from dps_local.maps.selection import jaccard, top_heads, top_k

Matrix = NDArray[np.float64]  # [n_maps, n_maps]


@dataclass(frozen=True)
class Sparsity:
    """share: of all positive score, held by the best `k` of `heads` heads.

    gini: coefficient of the positive part max(score, 0) over all heads: 0 where all are equal, near 1 where one head
    holds it all.
    """

    share: float
    gini: float
    k: int
    heads: int


def sparsity(scores: Scores) -> Sparsity | None:
    """Return how few heads hold the positive scores, by the best 4 % of heads; None when no score is positive."""
    known = np.sort(scores[np.isfinite(scores)].astype(np.float64))
    positive = np.maximum(known, 0)
    n, total = known.size, float(positive.sum())
    if not total:
        return None
    k = top_k(n)
    ranks = np.arange(1, n + 1)
    gini = 2 * float((ranks * positive).sum()) / (n * total) - (n + 1) / n
    return Sparsity(float(positive[-k:].sum()) / total, max(gini, 0.0), k, n)


@dataclass(frozen=True, eq=False)
class Overlap:
    """Jaccard overlaps of the best `k` of `heads` heads of each of several maps; `random` is what chance would give."""

    names: tuple[str, ...]
    k: int
    heads: int
    matrix: Matrix
    random: float

    @property
    def mean(self) -> float:
        """Of two different maps."""
        n = len(self.names)
        return float((self.matrix.sum() - np.trace(self.matrix)) / (n * (n - 1)))

    def as_json(self) -> dict[str, Any]:
        return {
            "names": list(self.names),
            "k": self.k,
            "heads": self.heads,
            "matrix": self.matrix.tolist(),
            "mean": self.mean,
            "random": self.random,
        }


def overlap(maps: Mapping[str, ScoredHeads]) -> Overlap:
    """Compare two maps or more, given by name; raises HeadMapError unless all are of one model."""
    (first, one), *others = maps.items()
    for name, other in others:
        if (other.fingerprint, other.counts.shape) != (one.fingerprint, one.counts.shape):
            raise HeadMapError(
                f"{first} is a map of {one.model!r} (fingerprint {one.fingerprint[:12]}), {name} one of "
                f"{other.model!r} ({other.fingerprint[:12]}): heads can be compared within one model only"
            )
    heads = max(int(np.isfinite(m.ranked_scores).sum()) for m in maps.values())
    k = min(top_k(heads), heads)
    best = [top_heads(m.fully_evaluated_scores, k) for m in maps.values()]
    matrix = np.array([[jaccard(a, b) for b in best] for a in best])
    return Overlap(tuple(maps), k, heads, matrix, random_overlap(heads, k))


def random_overlap(heads: int, k: int) -> float:
    """Return the expected Jaccard overlap of two random choices of k among `heads`."""
    if k == 0:
        return 1.0
    ways = [math.comb(k, common) * math.comb(heads - k, k - common) for common in range(k + 1)]
    return sum(way / math.comb(heads, k) * common / (2 * k - common) for common, way in enumerate(ways))
