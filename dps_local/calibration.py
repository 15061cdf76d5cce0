"""Calibration: which way of steering, if any, makes a user's own held-out text likelier, and by how much.

Every candidate is compared with the plain model, each at its own best temperature: small models are over-confident,
and a contrast sharpens, so that otherwise sharpening is mistaken for harm and smoothing for help. The plausibility
mask is left out (β = 0), as it gives some of the user's words no probability at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dps_local.evidence import student_t
from dps_local.mixing import Logits, mix
from dps_local.model import Head, HeadScales, Model, head_mask

Mode = Literal["contrast", "amplify"]
# Few, as the interval of the best of many is wide: these were worth most to users of the evaluation that they were
# chosen on (README). 0, no steering, is always a candidate.
GAMMAS = (0.25,)  # of the contrast
STEPS = (0.2, 0.4)  # γ of the amplification
TEMPERATURES = (1.0, 1.1, 1.2, 1.35, 1.5)
CONFIDENCE = 0.95  # of the two-sided interval
FLIPS = 4096  # of the signs of many items
T_MOST = 99.0  # what stands for 'never': a few items can look like anything
MOST = 1000  # messages; what would take more evidence than that is not worth announcing
Losses = NDArray[np.float64]  # [n_items, n_candidates, n_temperatures], nats per token


@dataclass(frozen=True)
class Candidate:
    """One way of steering: heads is K of the contrast, and None for the amplification, which scales all of them."""

    mode: Mode
    heads: int | None
    gamma: float

    def scales(self, model: Model, chosen: Sequence[Head], weights: HeadScales) -> HeadScales:
        """Return the scales F32 [n_layer, n_head_max] of this candidate's own stream.

        chosen: heads, best first. weights: of the amplification, NaN where there is no head.
        """
        if self.mode == "contrast":
            return head_mask(model, chosen[: self.heads])
        return amplified(weights, self.gamma)

    def mix(self, full: Logits, own: Logits) -> Logits:
        """Return the steered logits of a token, where this candidate's own stream gave `own`."""
        return mix(full, own, self.gamma, beta=0.0) if self.mode == "contrast" else own


PLAIN = Candidate("contrast", 0, 0.0)


def amplified(weights: HeadScales, gamma: float) -> HeadScales:
    """Return scales 1 + γ·w."""
    return np.asarray(np.nan_to_num(1 + gamma * weights, nan=1.0), np.float32)


@dataclass(frozen=True)
class Calibration:
    """What steering is worth on text that chose no heads: nats per token, with a 95 % interval, over n items.

    The interval is that of `best` among all candidates that were tried, at once. more: about so many more messages
    may tell, None when they are not expected to. temperature, plain_temperature: the best ones, steered and not.
    """

    gain: float
    low: float
    high: float
    n: int
    best: Candidate
    temperature: float
    plain_temperature: float
    more: int | None = None

    @property
    def helps(self) -> bool:
        return self.low > 0

    def __str__(self) -> str:
        return self.sentence()

    def sentence(self, whose: str = "your writing") -> str:
        """Say in one line what steering is worth."""
        if self.helps:
            return f"steering is worth {_signed(self.gain)} ± {self.high - self.gain:.3f} nats a token on {whose}"
        text = f"steering does not help on {whose} ({_signed(self.gain)} ± {self.high - self.gain:.3f} nats a token)"
        if self.more is None:
            return f"{text}; it stays off"
        return f"{text} yet; it stays off; about {self.more} more messages may tell"


def _signed(x: float) -> str:
    return f"{x:+.3f}".replace("-", "−")


def candidates(selected: int) -> list[Candidate]:
    """Return the ways of steering to try with so many chosen heads, PLAIN first."""
    contrasts = [Candidate("contrast", selected, gamma) for gamma in GAMMAS if selected]
    return [PLAIN, *contrasts, *(Candidate("amplify", None, step) for step in STEPS)]


def calibrate(losses: Losses, tried: Sequence[Candidate], messages_per_item: float = 1.0) -> Calibration:
    """Choose the candidate whose gain over the plain model has the highest lower bound.

    tried[0] is PLAIN. Bounds hold for all candidates at once (`simultaneous_t`), so the best of many is not taken for
    help by chance. messages_per_item: how much history one more item takes. At least 2 items.
    """
    n = len(losses)
    temperatures = losses.mean(axis=0).argmin(axis=1)  # of each candidate
    best = losses[:, np.arange(len(tried)), temperatures]
    gains = best[:, :1] - best[:, 1:]
    mean, stderr = gains.mean(axis=0), gains.std(axis=0, ddof=1) / math.sqrt(n)
    t = simultaneous_t(gains)
    i = int((mean - t * stderr).argmax())
    half = t * float(stderr[i])
    return Calibration(
        gain=float(mean[i]),
        low=float(mean[i]) - half,
        high=float(mean[i]) + half,
        n=n,
        best=tried[i + 1],
        temperature=TEMPERATURES[temperatures[i + 1]],
        plain_temperature=TEMPERATURES[temperatures[0]],
        more=_more(float(mean[i]), half, n, messages_per_item),
    )


def simultaneous_t(gains: NDArray[np.float64], seed: int = 0) -> float:
    """Return t so that mean ± t·stderr holds for all columns of gains [n_items, n_candidates] at once, at CONFIDENCE.

    The quantile of the largest |t| over the columns when the signs of items are flipped at random, which is what
    gains around zero would look like: all 2ⁿ flips for few items. Never below Student's t for one column.
    """
    n = len(gains)
    if n <= 12:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        signs = np.random.default_rng(seed).choice([-1, 1], (FLIPS, n))
    mean = signs @ gains / n
    variance = np.maximum((gains**2).sum(axis=0) - n * mean**2, 0) / (n - 1)
    error = np.sqrt(variance / n)
    t = np.divide(np.abs(mean), error, out=np.where(mean == 0, 0.0, np.inf), where=error > 0)
    flipped = float(np.quantile(t.max(axis=1, initial=0.0), CONFIDENCE, method="higher"))
    # a tie with the gains as they are is no evidence
    return max(min(flipped * (1 + 1e-9), T_MOST), float(student_t(n - 1, (1 + CONFIDENCE) / 2)))


def _more(gain: float, half: float, n: int, messages_per_item: float) -> int | None:
    """Return about how many more messages it takes until the interval of such a gain lies above zero."""
    if gain <= 0 or gain > half:
        return None
    more = math.ceil((n * (half / gain) ** 2 - n) * messages_per_item)
    return more if more <= MOST else None
