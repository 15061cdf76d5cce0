"""How far to go along a step, by the KL that was measured on the way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def multiplier(length: float, multipliers: Sequence[float], kls: Sequence[float]) -> float:
    """Return what to multiply a step by for this length, the root of twice the KL to the plain model.

    kls: in nats a token, measured at `multipliers`, which rise. Between them the length is taken as straight, and
    beyond the last one nothing was measured: that is the most there is.
    """
    lengths = np.maximum.accumulate(np.sqrt(2 * np.maximum([0.0, *kls], 0)))
    rising, first = np.unique(lengths, return_index=True)
    return float(np.interp(length, rising, np.array([0.0, *multipliers])[first]))
