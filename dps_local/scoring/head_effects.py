"""`HeadEffects`: what ablating heads does to the texts of a user's examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dps_local.maps.selection import Ranking
from dps_local.scoring.statistics import Values, amplification, mean_stderr

Effects = NDArray[np.float64]  # [n_heads, 3]: PCS, gain and variance, means over a target's tokens
PCS, GAIN, VARIANCE = range(3)


def effects_of(
    p: NDArray[np.float64], d: NDArray[np.float64], mean: NDArray[np.float64], square: NDArray[np.float64]
) -> Effects:
    """Return PCS, gain and variance [n, 3] from those of Context.compare [n, n_target]; the first of n is untouched.

    With Δ = f - m: the gain is Δ(y) minus its mean under softmax(f), the variance is that of Δ under softmax(f), and
    PCS - gain = KL(softmax f ‖ softmax m).
    """
    nll = -np.log(np.maximum(p, 1e-45))  # the smallest float32 above 0
    effects = np.stack([nll - nll[0], mean - d, np.maximum(square - mean**2, 0)], axis=-1)
    return np.asarray(effects.mean(axis=1))


@dataclass(eq=False)
class HeadEffects:
    """Effects of heads on examples, F64 [n_examples, n_heads, 3] (PCS, gain, variance), NaN where not evaluated.

    with_profile: on the user's own texts, after the profile. without_profile: on the same texts after the request
    alone. rejected: on the answers that the user did not keep; NaN for examples without one. nll: of each example with
    all heads. null: largest effect of a null intervention.
    """

    with_profile: NDArray[np.float64]
    without_profile: NDArray[np.float64]
    rejected: NDArray[np.float64]
    nll: NDArray[np.float64]
    null: float = 0.0

    @classmethod
    def empty(cls, n_examples: int, n_heads: int) -> HeadEffects:
        effects = np.full((n_examples, n_heads, 3), np.nan)
        return cls(effects, effects.copy(), effects.copy(), np.full(n_examples, np.nan))

    @property
    def contrast(self) -> Values:
        """PCS with the profile in the prompt minus PCS without it: does the head matter because of the user?"""
        return self.with_profile[..., PCS] - self.without_profile[..., PCS]

    @property
    def pairwise(self) -> Values:
        """PCS of the user's words minus PCS of the rejected ones: how far the head tells them apart."""
        return self.with_profile[..., PCS] - self.rejected[..., PCS]

    def ranked_by(self, ranking: Ranking) -> Values:
        if ranking == "contrast":
            return self.contrast
        return self.with_profile[..., PCS if ranking == "pcs" else GAIN]

    def promotion_scores(self, ranking: Ranking) -> NDArray[np.float64]:
        """Return each head's likely score, F64 [n_heads], from the examples so far: the highest are promoted.

        A few examples say much about the KL in a head's PCS, and little about the gain: there, the mean gain is
        shrunk by the part of its spread over heads that is error of measurement.
        """
        mean, _, _ = mean_stderr(self.ranked_by(ranking))
        if ranking != "pcs":
            return mean
        gain, stderr, _ = mean_stderr(self.with_profile[..., GAIN])
        known = np.isfinite(gain)
        error, spread = float(np.mean(stderr[known] ** 2)), float(np.var(gain[known]))
        shrinkage = max(1 - error / spread, 0.0) if spread and np.isfinite(error) else 0.0
        return np.asarray(mean - (1 - shrinkage) * gain)

    def weights(self, scale: float) -> NDArray[np.float64]:
        """Return each head's weight in the amplification, F64 [n_heads]. scale: what heads were evaluated at."""
        return amplification(self.with_profile[..., GAIN], self.with_profile[..., VARIANCE], scale)

    def of(self, examples: Sequence[int]) -> HeadEffects:
        """Return the part that some of the examples give."""
        rows = list(examples)
        return HeadEffects(
            self.with_profile[rows], self.without_profile[rows], self.rejected[rows], self.nll[rows], self.null
        )
