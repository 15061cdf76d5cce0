"""`QuadraticError`: how far steps were worth other than the quadratic model of the loss says, by their length."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dps_local.maps.fields import array


@dataclass(frozen=True, eq=False)
class QuadraticError:
    """What a step was worth to people that it was not made of, less what their own slopes and F made of it.

    gammas: F32 [n], lengths of the step that were tried, rising. means, deviations: F32 [n], over people, in nats a
    token; the deviation is that of one person. Raises ValueError where numbers do not go together.
    """

    gammas: NDArray[np.float32] = field(metadata=array(lambda _: (-1,)))
    means: NDArray[np.float32] = field(metadata=array(lambda _: (-1,)))
    deviations: NDArray[np.float32] = field(metadata=array(lambda _: (-1,)))

    def __post_init__(self) -> None:
        if not self.gammas.shape == self.means.shape == self.deviations.shape:
            raise ValueError("parts are of other sizes")
        if not all(np.isfinite(part).all() for part in (self.gammas, self.means, self.deviations)):
            raise ValueError("a number is not finite")
        if not len(self.gammas) or self.gammas[0] <= 0 or (np.diff(self.gammas) <= 0).any():
            raise ValueError("lengths do not rise")

    @property
    def longest(self) -> float:
        """The longest step that was tried."""
        return float(self.gammas[-1])

    def at(self, gamma: float) -> tuple[float, float]:
        """Return the mean and the deviation at a length; between those that were tried, on a straight line."""
        lengths = [0.0, *self.gammas]
        mean, deviation = (np.interp(gamma, lengths, [0.0, *part]) for part in (self.means, self.deviations))
        return float(mean), float(deviation)
