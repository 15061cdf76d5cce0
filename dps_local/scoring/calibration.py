"""Calibration: which way of steering, if any, makes a user's own held-out text likelier, and by how much.

Every candidate is compared with the plain model, each at its own best temperature: small models are over-confident,
and a contrast sharpens, so that otherwise sharpening is mistaken for harm (or for help, where the model is
under-confident) and smoothing for help. The plausibility mask is left out (β = 0), as it gives some of the user's
words no probability at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dps_local.engine.model import Head, HeadScales, Model, head_mask
from dps_local.scoring.intervals import FEWEST, simultaneous_t
from dps_local.steering.mixing import Logits, mix

Mode = Literal["contrast", "amplify"]
# Few, as the interval of the best of many is wide: these were worth most to users of the evaluation that they were
# chosen on (README). 0, no steering, is always a candidate.
GAMMAS = (0.25,)  # of the contrast
STEPS = (0.2, 0.4)  # γ of the amplification
# The first is that of likelihoods as they are. Below 1, too, where an under-confident model is best: what sharpens it
# would pass for help.
TEMPERATURES = (1.0, 0.6, 0.7, 0.8, 0.9, 1.1, 1.2, 1.35, 1.5)
NEVER = 99.0  # standard errors, from fewer than FEWEST items
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

    def sentence(self, whose: str = "your writing", *, forced: bool = False) -> str:
        """Say in one line what steering is worth; forced: it is not off all the same."""
        worth = f"{_signed(self.gain)} [{_signed(self.low)}, {_signed(self.high)}] nats a token"
        if self.helps:
            return f"steering is worth {worth} on {whose}"
        text = f"steering does not help on {whose} ({worth})"
        off = "--gamma steers all the same" if forced else "it stays off"
        if self.more is None:
            return f"{text}; {off}"
        return f"{text} yet; {off}; about {self.more} more messages may tell"


def _signed(x: float) -> str:
    return f"{x:+.3f}".replace("-", "−")


def candidates(selected: int) -> list[Candidate]:
    """Return the ways of steering to try with so many chosen heads, PLAIN first."""
    contrasts = [Candidate("contrast", selected, gamma) for gamma in GAMMAS if selected]
    return [PLAIN, *contrasts, *(Candidate("amplify", None, step) for step in STEPS)]


def calibrate(losses: Losses, tried: Sequence[Candidate], messages_per_item: float = 1.0) -> Calibration:
    """Choose the candidate whose gain over the plain model has the highest lower bound.

    tried[0] is PLAIN. Bounds hold for all candidates at once (`simultaneous_t`), so the best of many is not taken for
    help by chance; fewer than FEWEST items never are. messages_per_item: how much history one more item takes. At
    least 2 items.
    """
    n = len(losses)
    temperatures = losses.mean(axis=0).argmin(axis=1)  # of each candidate
    best = losses[:, np.arange(len(tried)), temperatures]
    gains = best[:, :1] - best[:, 1:]
    mean, stderr = gains.mean(axis=0), gains.std(axis=0, ddof=1) / math.sqrt(n)
    below, above = simultaneous_t(gains) if n >= FEWEST else (NEVER, NEVER)
    i = int((mean - below * stderr).argmax())
    gain, low, high = (float((mean + t * stderr)[i]) for t in (0.0, -below, above))
    return Calibration(
        gain=gain,
        low=low,
        high=high,
        n=n,
        best=tried[i + 1],
        temperature=TEMPERATURES[temperatures[i + 1]],
        plain_temperature=TEMPERATURES[temperatures[0]],
        more=_more(gain, gain - low, n, messages_per_item),
    )


def by_user(losses: Losses, users: Sequence[object]) -> Losses:
    """Return the mean losses of each user: the items of one are not as many independent findings."""
    return np.array([losses[[u == user for u in users]].mean(axis=0) for user in dict.fromkeys(users)])


def _more(gain: float, half: float, n: int, messages_per_item: float) -> int | None:
    """Return about how many more messages it takes until a gain lies above zero by more than `half`, its error now."""
    if gain <= 0 or gain > half:
        return None
    more = math.ceil((n * (half / gain) ** 2 - n) * messages_per_item)
    return more if more <= MOST else None
