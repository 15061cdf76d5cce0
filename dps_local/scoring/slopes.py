"""`Slopes`: of each text, how its log-likelihood changes as the model's heads are scaled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dps_local.maps.fisher import Vector


@dataclass(frozen=True, eq=False)
class Slopes:
    """Derivatives of log-likelihoods with respect to the scales of the model's real heads, at 1, layer by layer.

    slopes: F32 [n_texts, n_heads], of each text's own words with its end token, summed over its tokens.
    tokens: [n_texts]. nll: F64 [n_texts], nats, summed likewise.
    samples: F32 [n_texts, n_samples, n_heads], the same of tokens that the model draws at the same positions.
    """

    slopes: NDArray[np.float32]
    tokens: NDArray[np.int64]
    nll: NDArray[np.float64]
    samples: NDArray[np.float32]

    @classmethod
    def none(cls, n_heads: int, n_samples: int) -> Self:
        """Return the slopes of no text."""
        slopes = np.empty((0, n_heads), np.float32)
        return cls(slopes, np.empty(0, np.int64), np.empty(0), slopes.reshape(0, n_samples, n_heads))

    @property
    def n_tokens(self) -> int:
        return int(self.tokens.sum())

    @property
    def mean(self) -> Vector:
        """Slopes per token."""
        return np.asarray(self.slopes.sum(axis=0, dtype=np.float64) / self.n_tokens)

    @property
    def deviations(self) -> NDArray[np.float64]:
        """Each text's slopes less those that the mean gives it: the noise of the text."""
        return np.asarray(self.slopes - self.tokens[:, None] * self.mean)

    @property
    def scores(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """All samples in a row [n_texts * n_samples, n_heads], and the tokens of each."""
        n_texts, n_samples, n_heads = self.samples.shape
        return self.samples.reshape(n_texts * n_samples, n_heads), self.tokens.repeat(n_samples)

    def squared_length(self, delta: Vector) -> float:
        """Return the length of a step by the samples alone, squared: twice the KL per token, to second order."""
        moved = self.samples.astype(np.float64) @ delta
        return float((moved**2).mean(axis=1).sum() / self.n_tokens)

    def one(self, i: int) -> Slopes:
        """Return text i alone."""
        return self.those([i])

    def those(self, chosen: Sequence[int]) -> Slopes:
        """Return some of the texts."""
        return Slopes(*(getattr(self, name)[list(chosen)] for name in Slopes.__match_args__))

    def without(self, i: int) -> Slopes:
        """Return all texts but i."""
        return Slopes(*(np.delete(getattr(self, name), i, axis=0) for name in Slopes.__match_args__))


def joined(parts: list[Slopes]) -> Slopes:
    """Return the texts of several people, one after another."""
    return Slopes(*(np.concatenate([getattr(part, name) for part in parts]) for name in Slopes.__match_args__))
