"""`calibrate`: which way of steering, if any, makes a user's own held-out text likelier, and by how much.

Every candidate is compared with the plain model, each at its own best temperature: small models are over-confident,
and a contrast sharpens, so that otherwise sharpening is mistaken for harm (or for help, where the model is
under-confident) and smoothing for help. The plausibility mask is left out (β = 0), as it gives some of the user's
words no probability at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dps_local.maps.calibration import NO_STEERING, Calibration, Candidate
from dps_local.maps.step_evidence import BOUND
from dps_local.scoring.intervals import FEWEST, probability_above_0, simultaneous_t

# Few, as the interval of the best of many is wide: these were worth most to users of the evaluation that they were
# chosen on (README). 0, no steering, is always a candidate.
GAMMAS = (0.25,)  # of the contrast
STEPS = (0.2, 0.4, 0.8)  # γ of the amplification
# The first is that of likelihoods as they are. Below 1, too, where an under-confident model is best: what sharpens it
# would pass for help.
TEMPERATURES = (1.0, 0.6, 0.7, 0.8, 0.9, 1.1, 1.2, 1.35, 1.5)
NORMAL = 1.96  # standard deviations, of a 95 % interval
NEVER = 99.0  # standard errors, from fewer than FEWEST items
MOST = 1000  # messages; what would take more than that is not announced
LossTable = NDArray[np.float64]  # [n_items, n_candidates, n_temperatures], nats per token


def candidates(selected: int) -> list[Candidate]:
    """Return the ways of steering to try with so many chosen heads for the contrast, NO_STEERING first."""
    contrasts = [Candidate("contrast", selected, gamma) for gamma in GAMMAS if selected]
    return [NO_STEERING, *contrasts, *(Candidate("amplify", None, step) for step in STEPS)]


def calibrate(
    losses: LossTable,
    tried: Sequence[Candidate],
    messages_per_item: float = 1.0,
    expected: Sequence[tuple[float, float] | None] = (),
    ends: LossTable | None = None,
) -> Calibration:
    """Choose the candidate whose gain over the plain model has the highest lower bound.

    expected: of each candidate but the first the gain that other knowledge promises, with its standard deviation, or
    None; the measured gains are then added to that, each by its precision, and the bound is that of the sum. Where
    FEWEST items or more lost, what they measured counts alone.

    tried[0] is NO_STEERING. Bounds hold for all candidates at once (`simultaneous_t`), so the best of many is not
    taken for help by chance; fewer than FEWEST items never are. messages_per_item: how much history one more item
    takes. ends: of the tokens alone that end the items which were not cut, in nats an item. At least 2 items.
    """
    n = len(losses)
    temperatures = losses.mean(axis=0).argmin(axis=1)  # of each candidate
    best = losses[:, np.arange(len(tried)), temperatures]
    gains = best[:, :1] - best[:, 1:]
    mean, stderr = gains.mean(axis=0), gains.std(axis=0, ddof=1) / math.sqrt(n)
    below, above = simultaneous_t(gains) if n >= FEWEST else (NEVER, NEVER)
    probability = None
    if expected:
        # the measured error as wide as the interval that holds for all candidates
        measured = [(float(m), float(below * error) / NORMAL) for m, error in zip(mean, stderr, strict=True)]
        sums = [_added(*one, known) for one, known in zip(measured, expected, strict=True)]
        i = int(np.argmax([m - BOUND * deviation for m, deviation in sums]))
        # a promise does not overrule a loss that was measured
        lost = n >= FEWEST and mean[i] < 0
        probability = probability_above_0(*(measured[i] if lost else sums[i]))
    else:
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
        more_messages=_more_messages(gain, gain - low, n, messages_per_item),
        probability=probability,
        end=None if ends is None or not len(ends) else _gain_of(ends, i + 1, temperatures),
    )


def _gain_of(losses: LossTable, candidate: int, temperatures: NDArray[np.int64]) -> float:
    """Return the mean gain of a candidate over the plain model, each at its own temperature."""
    mean = losses.mean(axis=0)
    return float(mean[0, temperatures[0]] - mean[candidate, temperatures[candidate]])


def _added(mean: float, deviation: float, known: tuple[float, float] | None) -> tuple[float, float]:
    """Return the mean and the standard deviation of what was measured and what was known together."""
    if known is None or not known[1]:
        return mean, deviation
    if not deviation:
        return mean, 0.0
    measured, before = deviation**-2, known[1] ** -2
    return (measured * mean + before * known[0]) / (measured + before), (measured + before) ** -0.5


def by_user(losses: LossTable, users: Sequence[object]) -> LossTable:
    """Return the mean losses of each user: the items of one do not count as independent."""
    return np.array([losses[[u == user for u in users]].mean(axis=0) for user in dict.fromkeys(users)])


def _more_messages(gain: float, half: float, n: int, messages_per_item: float) -> int | None:
    """Return about how many more messages it takes until a gain lies above zero by more than `half`, its error now."""
    if gain <= 0 or gain > half:
        return None
    more = math.ceil((n * (half / gain) ** 2 - n) * messages_per_item)
    return more if more <= MOST else None
