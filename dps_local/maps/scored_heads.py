"""`ScoredHeads`: the heads of one model with their scores, as a user's map or a cluster has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dps_local.engine.model import Head, Scope
from dps_local.maps.calibration import Calibration, Mode
from dps_local.maps.reliability import SplitHalfReliability
from dps_local.maps.selection import Ranking

Scores = NDArray[np.float32]  # [n_layer, n_head_max], NaN where a layer has no such head, or none that can be muted


def grid(n_heads: Sequence[int], values: NDArray[np.floating]) -> Scores:
    """Return one number of each head as [n_layer, n_head_max], NaN where a layer has fewer heads.

    n_heads: of each layer. values: [sum of n_heads], layer by layer.
    """
    scores = np.full((len(n_heads), max(n_heads, default=0)), np.nan, np.float32)
    scores[np.arange(scores.shape[1]) < np.array(n_heads)[:, None]] = values
    return scores


class ScoredHeads(Protocol):
    """What drawing and comparing need of a `HeadMap` or of a `Cluster`; see there."""

    @property
    def model(self) -> str: ...
    @property
    def architecture(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def scope(self) -> Scope: ...
    @property
    def ablation_scale(self) -> float | None:
        """The scale that heads were evaluated at, 0 = muted; None where it is not kept."""
        ...

    @property
    def examples(self) -> int: ...
    @property
    def evaluations(self) -> int: ...
    @property
    def ranking(self) -> Ranking: ...
    @property
    def ranked_scores(self) -> Scores:
        """The scores that the heads were ranked by."""
        ...

    @property
    def fully_evaluated_scores(self) -> Scores:
        """What heads were ranked by, NaN for those that were dropped on the way: chance ranks them high or low."""
        ...

    @property
    def counts(self) -> Scores: ...
    @property
    def null_control(self) -> float: ...
    @property
    def selected(self) -> tuple[Head, ...]: ...
    @property
    def mode(self) -> Mode: ...
    @property
    def gamma(self) -> float: ...
    @property
    def reliability(self) -> SplitHalfReliability | None: ...
    @property
    def calibration(self) -> Calibration | None: ...

    def scores(self, name: str) -> tuple[Scores, Scores]:
        """Return the scores "pcs", "gain", "contrast" or "pairwise", and their standard errors."""
        ...

    def as_json(self) -> dict[str, Any]: ...
