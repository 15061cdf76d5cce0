"""`Population`: what people have in common who write one kind of text, and how far they differ."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dps_local.engine.gguf_file import GGUFFile
from dps_local.maps.fields import NUMBER, array, record
from dps_local.maps.fisher import Fisher, Matrix, Vector


def _directions_shape(file: GGUFFile) -> tuple[int, int]:
    return len(file.get("dps.lambdas")), len(file.get("dps.mu"))


@dataclass(frozen=True, eq=False)
class Population:
    """The prior of a person's step δ, by which heads are scaled to 1 + δ: normal, with mean `step` and `covariance`.

    mu: F32 [n_heads], slopes that people have in common, per token. dispersion: how much more the slopes of real text
    scatter than those of text that the model drew. spread: variance between people in every direction, in units of
    the inverse of F. directions: F32 [k, n_heads], steps of length 1, along each of which people differ by a variance
    `lambdas` (F32 [k]) more; the first is that of the mean step. Raises ValueError where numbers do not go together.
    """

    mu: NDArray[np.float32] = field(metadata=array(lambda _: (-1,)))
    fisher: Fisher = field(metadata=record(Fisher, present="diagonal"))
    dispersion: float = field(metadata=NUMBER)
    spread: float = field(metadata=NUMBER)
    directions: NDArray[np.float32] = field(metadata=array(_directions_shape))
    lambdas: NDArray[np.float32] = field(metadata=array(lambda _: (-1,)))

    def __post_init__(self) -> None:
        if self.fisher is None:  # in a file
            raise ValueError("there is no Fisher matrix")
        if self.fisher.diagonal.shape != self.mu.shape or self.directions.shape != (
            *self.lambdas.shape,
            *self.mu.shape,
        ):
            raise ValueError("parts are of other sizes")
        if not all(np.isfinite(part).all() for part in (self.mu, self.directions, self.lambdas)):
            raise ValueError("a number is not finite")
        if self.dispersion <= 0 or self.spread < 0 or (self.lambdas < 0).any():
            raise ValueError("a variance is negative")

    @cached_property
    def step(self) -> Vector:
        """δ where nothing is known of the person."""
        return np.asarray(self.fisher.inverse @ self.mu.astype(np.float64))

    @cached_property
    def covariance(self) -> Matrix:
        """Of people's steps around that."""
        directions = self.directions.astype(np.float64)
        return np.asarray(self.spread * self.fisher.inverse + (directions.T * self.lambdas) @ directions)
