"""What effects of heads say, over examples: means, bounds, the choice of heads, weights, reliability."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dps_local.maps.reliability import SplitHalfReliability
from dps_local.maps.selection import SELECTION_CONFIDENCE, jaccard, lower_confidence_bound, top_heads

Values = NDArray[np.float64]  # [n_examples, n_heads], NaN where a head was not evaluated
LARGEST = 2.5  # weight: where γ is 0.4, no head is scaled below 0 or above 2


def mean_stderr(values: Values) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Return each head's mean, standard error and number of examples; NaN where there are none, or one."""
    n = np.isfinite(values).sum(axis=0)
    sums = np.nansum(values, axis=0)
    mean = np.divide(sums, n, out=np.full(len(n), np.nan), where=n > 0)
    squares = np.nansum((values - mean) ** 2, axis=0)
    stderr = np.sqrt(np.divide(squares, n * (n - 1.0), out=np.full(len(n), np.nan), where=n > 1))
    return mean, stderr, n


def lower_bound(values: Values, confidence: float = SELECTION_CONFIDENCE) -> NDArray[np.float64]:
    """Return each head's one-sided lower confidence bound (Student's t); -inf for less than two examples."""
    return lower_confidence_bound(*mean_stderr(values), confidence)


def choose(values: Values, k: int) -> list[int]:
    """Return at most k heads (numbers) by their lower bound, best first, none whose bound is not above zero.

    The bound holds for a head that is looked at alone: of many heads without any effect, a part of
    1 - SELECTION_CONFIDENCE passes, which is k and more. So the choice ranks heads, and does not show that any
    matters: calibration, on text that chose none of them, does. Heads that were dropped on the way, and so lack
    examples, are not chosen.
    """
    bound = np.where(np.isfinite(values).all(axis=0), lower_bound(values), -np.inf)
    return top_heads(bound, k, above=0)


def amplification(gains: Values, variances: Values, scale: float) -> NDArray[np.float64]:
    """Return signed weights for scaling heads by 1 + γ·w: slopes of the gain, shrunk by their error.

    A slope m ± s keeps the part 1 - s²/m² of itself, and none where s exceeds |m|. Weights of all heads have the
    length at which γ moves the plain distribution by a KL of about γ²/2 nats a token: to second order, that is half
    the variance of the logits' change, and changes by several heads are taken as independent. scale: what gains and
    variances were measured at, slopes are taken from there to 1.
    """
    mean, stderr, n = mean_stderr(gains / (1 - scale))
    kept = 1 - np.divide(stderr**2, mean**2, out=np.ones(len(mean)), where=(mean != 0) & np.isfinite(mean))
    weights = np.where(n > 2, mean * np.clip(kept, 0, 1), 0.0)
    weights = np.nan_to_num(weights)
    variance = np.nan_to_num(mean_stderr(variances / (1 - scale) ** 2)[0])
    length = max(np.sqrt(np.sum(weights**2 * variance)), np.abs(weights).max(initial=0.0) / LARGEST)
    return weights / length if length else weights


def split_half_reliability(values: Values, k: int, seed: int, splits: int = 50) -> SplitHalfReliability | None:
    """Compare the ranking in halves of the examples, for the heads that all examples have; None below 4 examples."""
    values = values[:, np.isfinite(values).all(axis=0)]
    n, heads = values.shape
    if n < 4 or heads < 2:
        return None
    rng = np.random.default_rng(seed)
    agreements = []
    for _ in range(splits):
        order = rng.permutation(n)
        halves = [values[order[: n // 2]].mean(axis=0), values[order[n // 2 :]].mean(axis=0)]
        ranks = [np.argsort(np.argsort(half)) for half in halves]
        best = [set(np.argsort(-half)[:k].tolist()) for half in halves]
        agreements.append((_correlation(*ranks), jaccard(*best)))
    spearman, overlap = np.mean(agreements, axis=0)
    return SplitHalfReliability(float(spearman), float(overlap), heads)


def _correlation(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))
