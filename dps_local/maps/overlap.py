"""`Overlap`: how far the best heads of several head maps of one model are the same; `Sparsity`: how few they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dps_local.errors import HeadMapError
from dps_local.maps.head_map import HeadMap, Scores, top_k
from dps_local.scoring.statistics import jaccard

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


def overlap(maps: Mapping[str, HeadMap]) -> Overlap:
    """Compare two maps or more, given by name; raises HeadMapError unless all are of one model."""
    (first, one), *others = maps.items()
    for name, other in others:
        if (other.fingerprint, other.pcs.shape) != (one.fingerprint, one.pcs.shape):
            raise HeadMapError(
                f"{first} is a map of {one.model!r} (fingerprint {one.fingerprint[:12]}), {name} one of "
                f"{other.model!r} ({other.fingerprint[:12]}): heads can be compared within one model only"
            )
    heads = max(int(np.isfinite(ranked_by(m)).sum()) for m in maps.values())
    k = min(top_k(heads), heads)
    best = [best_heads(thorough(m), k) for m in maps.values()]
    matrix = np.array([[jaccard(a, b) for b in best] for a in best])
    return Overlap(tuple(maps), k, heads, matrix, random_overlap(heads, k))


def ranked_by(head_map: HeadMap) -> Scores:
    """Return the scores that the heads of a map were ranked by."""
    return {"pcs": head_map.pcs, "gain": head_map.gain, "contrast": head_map.contrast}[head_map.ranking]


def thorough(head_map: HeadMap) -> Scores:
    """Return what heads were ranked by, NaN for those that were dropped on the way: chance ranks them high or low."""
    scores, counts = ranked_by(head_map), np.nan_to_num(head_map.counts)
    return np.where(counts == counts[np.isfinite(scores)].max(initial=0), scores, np.float32(np.nan))


def best_heads(scores: Scores, k: int) -> set[int]:
    """Return the places, counted through all layers, of the k highest scores."""
    flat = np.where(np.isfinite(scores), scores, -np.inf).ravel()
    order = np.argsort(-flat, kind="stable")[:k]
    return {int(i) for i in order if flat[i] > -np.inf}


def random_overlap(heads: int, k: int) -> float:
    """Return the expected Jaccard overlap of two random choices of k among `heads`."""
    if k == 0:
        return 1.0
    ways = [math.comb(k, common) * math.comb(heads - k, k - common) for common in range(k + 1)]
    return sum(way / math.comb(heads, k) * common / (2 * k - common) for common, way in enumerate(ways))
