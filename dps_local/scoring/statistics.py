"""`Evidence`: the effects of heads on a user's examples, and what they say: means, bounds, rankings, weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Effects = NDArray[np.float64]  # [n_heads, 3]: PCS, gain and variance, means over a target's tokens
PCS, GAIN, VARIANCE = range(3)
Ranking = Literal["pcs", "gain", "contrast"]
Values = NDArray[np.float64]  # [n_examples, n_heads], NaN where a head was not evaluated
CONFIDENCE = 0.95  # of the one-sided lower bound by which heads are chosen
LARGEST = 2.5  # weight: where γ is 0.4, no head is scaled below 0 or above 2


def effects_of(
    p: NDArray[np.float64], d: NDArray[np.float64], mean: NDArray[np.float64], square: NDArray[np.float64]
) -> Effects:
    """Return PCS, gain and variance [n, 3] from what Context.compare found [n, n_target]; the first of n is untouched.

    With Δ = f - m: the gain is Δ(y) minus its mean under softmax(f), the variance is that of Δ under softmax(f), and
    PCS - gain = KL(softmax f ‖ softmax m).
    """
    nll = -np.log(np.maximum(p, 1e-45))  # the smallest float32 above 0
    effects = np.stack([nll - nll[0], mean - d, np.maximum(square - mean**2, 0)], axis=-1)
    return np.asarray(effects.mean(axis=1))


@dataclass(eq=False)
class Evidence:
    """Effects F64 [n_examples, n_heads, 3] (PCS, gain, variance), NaN where a head was not evaluated.

    bare: of the same texts after the request alone. rejected: of the answers that the user did not keep; NaN for
    examples without one. nll: of each example with all heads. null: largest effect of a null intervention.
    """

    effects: NDArray[np.float64]
    bare: NDArray[np.float64]
    rejected: NDArray[np.float64]
    nll: NDArray[np.float64]
    null: float = 0.0

    @classmethod
    def empty(cls, n_examples: int, n_heads: int) -> Evidence:
        effects = np.full((n_examples, n_heads, 3), np.nan)
        return cls(effects, effects.copy(), effects.copy(), np.full(n_examples, np.nan))

    @property
    def contrast(self) -> Values:
        """PCS with the profile in the prompt minus PCS without it: does the head matter because of the user?"""
        return self.effects[..., PCS] - self.bare[..., PCS]

    @property
    def pairwise(self) -> Values:
        """PCS of the user's words minus PCS of the rejected ones: how far the head tells them apart."""
        return self.effects[..., PCS] - self.rejected[..., PCS]

    def ranked_by(self, ranking: Ranking) -> Values:
        if ranking == "contrast":
            return self.contrast
        return self.effects[..., PCS if ranking == "pcs" else GAIN]

    def promise(self, ranking: Ranking) -> NDArray[np.float64]:
        """Return each head's likely score, F64 [n_heads], from the examples so far: what ranks heads early on.

        A few examples say much about the KL in a head's PCS, and little about the gain: there, the mean gain is
        shrunk by the part of its spread over heads that is error of measurement.
        """
        mean, _, _ = mean_stderr(self.ranked_by(ranking))
        if ranking != "pcs":
            return mean
        gain, stderr, _ = mean_stderr(self.effects[..., GAIN])
        known = np.isfinite(gain)
        error, spread = float(np.mean(stderr[known] ** 2)), float(np.var(gain[known]))
        kept = max(1 - error / spread, 0.0) if spread and np.isfinite(error) else 0.0
        return np.asarray(mean - (1 - kept) * gain)

    def weights(self, scale: float) -> NDArray[np.float64]:
        """Return each head's weight in the amplification, F64 [n_heads]. scale: what heads were evaluated at."""
        return amplification(self.effects[..., GAIN], self.effects[..., VARIANCE], scale)

    def of(self, examples: Sequence[int]) -> Evidence:
        """Return the part that some of the examples give."""
        rows = list(examples)
        return Evidence(self.effects[rows], self.bare[rows], self.rejected[rows], self.nll[rows], self.null)


def mean_stderr(values: Values) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Return each head's mean, standard error and number of examples; NaN where there are none, or one."""
    n = np.isfinite(values).sum(axis=0)
    sums = np.nansum(values, axis=0)
    mean = np.divide(sums, n, out=np.full(len(n), np.nan), where=n > 0)
    squares = np.nansum((values - mean) ** 2, axis=0)
    stderr = np.sqrt(np.divide(squares, n * (n - 1.0), out=np.full(len(n), np.nan), where=n > 1))
    return mean, stderr, n


def student_t(freedom: NDArray[np.float64] | float, p: float) -> NDArray[np.float64]:
    """Return the p-quantile of Student's t for so many degrees of freedom."""
    from scipy.special import stdtrit  # a quarter of a second that a start of the program need not wait for

    return np.asarray(stdtrit(freedom, p))


def lower_bound(values: Values, confidence: float = CONFIDENCE) -> NDArray[np.float64]:
    """Return each head's one-sided lower confidence bound (Student's t); -inf for less than two examples."""
    return bound_below(*mean_stderr(values), confidence)


def bound_below(
    mean: NDArray[np.floating],
    stderr: NDArray[np.floating],
    n: NDArray[np.number],
    confidence: float = CONFIDENCE,
) -> NDArray[np.float64]:
    """Return the one-sided lower confidence bound of means over n examples; -inf for less than two."""
    t = student_t(np.maximum(n - 1.0, 1.0), confidence)
    return np.where(n > 1, mean - t * stderr, -np.inf)


def choose(values: Values, k: int) -> list[int]:
    """Return at most k heads (numbers) by their lower bound, best first, none whose bound is not above zero.

    The bound holds for a head that is looked at alone: of many heads without any effect, a part of 1 - CONFIDENCE
    passes, which is k and more. So the choice ranks heads, and does not show that any matters: calibration, on text
    that chose none of them, does. Heads that were dropped on the way, and so lack examples, are not chosen.
    """
    bound = np.where(np.isfinite(values).all(axis=0), lower_bound(values), -np.inf)
    order = np.argsort(-bound, kind="stable")[:k]
    return [int(i) for i in order if bound[i] > 0]


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


@dataclass(frozen=True)
class Stability:
    """Agreement of the ranking between random halves of the examples, mean over splits.

    spearman: rank correlation. jaccard: overlap of the best K. heads: how many were compared.
    """

    spearman: float
    jaccard: float
    heads: int


def stability(values: Values, k: int, seed: int, splits: int = 50) -> Stability | None:
    """Compare the ranking in halves of the examples, for the heads that all examples have; None below 4 examples."""
    values = values[:, np.isfinite(values).all(axis=0)]
    n, heads = values.shape
    if n < 4 or heads < 2:
        return None
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(splits):
        order = rng.permutation(n)
        halves = [values[order[: n // 2]].mean(axis=0), values[order[n // 2 :]].mean(axis=0)]
        ranks = [np.argsort(np.argsort(half)) for half in halves]
        best = [set(np.argsort(-half)[:k].tolist()) for half in halves]
        found.append((_correlation(*ranks), jaccard(*best)))
    spearman, overlap = np.mean(found, axis=0)
    return Stability(float(spearman), float(overlap), heads)


def _correlation(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))


def jaccard(a: set[int], b: set[int]) -> float:
    """Return the overlap of two sets, 1 for two empty ones."""
    return len(a & b) / len(a | b) if a | b else 1.0
