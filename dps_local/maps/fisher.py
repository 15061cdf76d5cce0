"""`Fisher`: how far the model's distribution moves when its heads are scaled, all of them jointly."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dps_local.engine.gguf_file import GGUFFile
from dps_local.errors import ModelError
from dps_local.maps.fields import NUMBER, array

Vector = NDArray[np.float64]  # [n_heads], of the model's real heads, layer by layer
Matrix = NDArray[np.float64]  # [n_heads, n_heads]

LARGEST_RANK = 1024  # rows of the factor, so that a file of a model with 5,120 heads has 21 MB


def _factor_shape(file: GGUFFile) -> tuple[int, int]:
    return -1, len(file.get("dps.fisher.diagonal"))


@dataclass(frozen=True, eq=False)
class Fisher:
    """The Fisher information matrix of the head scales at 1, per token: F = diag(diagonal) + factorᵀ·factor.

    Scaling heads by 1 + δ moves the distribution by a KL of about δᵀFδ/2 nats a token. diagonal: F32 [n_heads], not
    negative. factor: F32 [rank, n_heads]. ridge: is added to the diagonal where F is inverted: the directions in which
    F is small are those in which it is least known. Raises ValueError where the numbers are no such matrix.
    """

    diagonal: NDArray[np.float32] = field(metadata=array(lambda _: (-1,)))
    factor: NDArray[np.float32] = field(metadata=array(_factor_shape))
    ridge: float = field(metadata=NUMBER)

    def __post_init__(self) -> None:
        if not (np.isfinite(self.diagonal).all() and np.isfinite(self.factor).all() and (self.diagonal >= 0).all()):
            raise ValueError("the Fisher matrix has a number that is negative or not finite")
        if self.factor.shape[1:] != self.diagonal.shape:
            raise ValueError("the Fisher matrix has parts of other sizes")
        if not (self.diagonal.any() or self.factor.any()):
            raise ValueError("the Fisher matrix is zero")
        if not self.ridge > 0:
            raise ValueError("the Fisher matrix has no ridge")

    @classmethod
    def from_scores(
        cls, scores: NDArray[np.floating], tokens: NDArray[np.number], ridge: float, scale: float = 1.0
    ) -> Self:
        """Estimate F from texts that the model itself drew.

        scores: [n, n_heads], of each the slopes of its log-likelihood, summed over its tokens. tokens: [n]. ridge: as a
        share of the mean of the diagonal. scale: of all of F. Raises ModelError where no head moves the model's words.
        """
        mean = scale * _mean_square(scores, tokens)
        diagonal = np.diag(mean)
        kept = 1 - shrinkage(scores, tokens)
        values, vectors = np.linalg.eigh(mean)
        rank = min(len(scores), len(diagonal), LARGEST_RANK)
        factor = np.sqrt(kept * np.maximum(values[-rank:], 0))[:, None] * vectors[:, -rank:].T
        rest = np.maximum(diagonal - (factor**2).sum(axis=0), 0)
        return cls(rest.astype(np.float32), factor.astype(np.float32), ridge * float(diagonal.mean()))

    @cached_property
    def matrix(self) -> Matrix:
        """F itself. Dense at any size: next to a model with so many heads, it is small."""
        factor = self.factor.astype(np.float64)
        return np.asarray(factor.T @ factor + np.diag(self.diagonal.astype(np.float64)))

    @cached_property
    def ridged(self) -> Matrix:
        """F with its ridge, so that it can be inverted."""
        return np.asarray(self.matrix + self.ridge * np.eye(len(self.diagonal)))

    @cached_property
    def inverse(self) -> Matrix:
        """Inverse of the ridged F."""
        return np.asarray(np.linalg.inv(self.ridged))

    @property
    def ridged_heads(self) -> float:
        """The number of heads, less what the ridge takes of them: the squared length of one token's noise."""
        return float(np.sum(self.inverse * self.matrix))

    def length(self, delta: Vector) -> float:
        """Return the root of twice the KL to the plain model, to second order: what γ stands for."""
        return math.sqrt(max(float(delta @ self.matrix @ delta), 0.0))

    def scaled_to(self, delta: Vector, length: float) -> Vector:
        """Return `delta` at this length; where it has none, it stays."""
        own = self.length(delta)
        return delta * (length / own) if own else delta


def shrunk(scores: NDArray[np.floating], tokens: NDArray[np.number]) -> Matrix:
    """Return the matrix of `Fisher.from_scores`, without the factor that makes it small in a file."""
    mean = _mean_square(scores, tokens)
    return np.asarray(mean * (1 - shrinkage(scores, tokens) * (1 - np.eye(len(mean)))))


def _mean_square(scores: NDArray[np.floating], tokens: NDArray[np.number]) -> Matrix:
    """Return F before its noise is taken off, per token; raises ModelError where no head moves the model's words."""
    scores = scores.astype(np.float64)
    mean = scores.T @ scores / float(tokens.sum())
    if not np.diag(mean).any():
        raise ModelError("no head of this model moves its words: choose another model")
    return np.asarray(mean)


def shrinkage(scores: NDArray[np.floating], tokens: NDArray[np.number]) -> float:
    """Return how far F, off its diagonal, is noise of too few texts: 0 not at all, 1 all of it.

    The share that minimises the expected squared error (Ledoit and Wolf 2004; to the diagonal: Schäfer and Strimmer
    2005), here for texts of unlike lengths.
    """
    n, n_tokens = len(scores), float(tokens.sum())
    if n < 2:
        return 1.0
    mean = scores.T @ scores / n_tokens
    share = tokens / n_tokens
    squares = scores**2
    variance = (
        (squares.sum(axis=1) ** 2).sum() / n_tokens**2
        - 2 * (share * np.einsum("ni,ij,nj->n", scores, mean, scores, optimize=True)).sum() / n_tokens
        + (share**2).sum() * (mean**2).sum()
    )
    of_diagonal = ((squares / n_tokens - share[:, None] * np.diag(mean)) ** 2).sum()
    signal = (mean**2).sum() - (np.diag(mean) ** 2).sum()
    return float(np.clip((variance - of_diagonal) * n / (n - 1) / signal, 0, 1)) if signal else 1.0
