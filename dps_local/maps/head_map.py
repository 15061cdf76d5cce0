"""`HeadMap`: scores of attention heads and the chosen ones, as GGUF metadata (`.dps.gguf`, or baked into a model)."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, get_args

import numpy as np

from dps_local.engine.model import Head, HeadScales, Model, head_mask
from dps_local.maps.calibration import Calibration, Mode
from dps_local.maps.fields import (
    COUNT,
    GRID,
    HEADS,
    NUMBER,
    SEED,
    fields_as_json,
    one_of,
    optional,
    record,
)
from dps_local.maps.model_map import ModelMap
from dps_local.maps.reliability import SplitHalfReliability
from dps_local.maps.scored_heads import Scores
from dps_local.maps.selection import Ranking, lower_confidence_bound, top_heads
from dps_local.maps.step_evidence import StepEvidence
from dps_local.steering.mixing import Gamma
from dps_local.steering.steering import Steering, amplified


@dataclass(frozen=True, eq=False, kw_only=True)
class HeadMap(ModelMap):
    """What scoring found about each head of one model for one user, and the heads chosen by it.

    Scores are in nats per target token, means over examples with their standard errors (`…_stderr`):
    pcs, with gain as its part that favours this user's words (the rest is KL); variance: of f - m under the full
    model, in nats²; contrast: PCS with the profile minus PCS without; pairwise: PCS of the user's words minus PCS of
    the rejected ones; counts: examples that a head was evaluated on. NaN stands for what was not measured.
    slope: of the log-likelihood of all own text with respect to the scale of each head at 1; step: what the
    amplification's weights rest on, where they come from slopes.
    """

    kind = "user"

    ranking: Ranking = field(metadata=one_of(get_args(Ranking)))
    ablation_scale: float = field(metadata=NUMBER)  # that heads were evaluated at, 0 = muted
    seed: int = field(metadata=SEED)
    examples: int = field(metadata=COUNT)
    tokens: int = field(metadata=COUNT)  # scored target tokens, all examples together
    evaluations: int = field(metadata=COUNT)  # of a head on an example
    nll: float = field(metadata=NUMBER)  # of the user's text with all heads, nats per token, mean over examples
    pcs: Scores = field(metadata=GRID)
    pcs_stderr: Scores = field(metadata=GRID)
    gain: Scores = field(metadata=GRID)
    gain_stderr: Scores = field(metadata=GRID)
    variance: Scores = field(metadata=GRID)
    contrast: Scores = field(metadata=GRID)
    contrast_stderr: Scores = field(metadata=GRID)
    pairwise: Scores = field(metadata=GRID)
    pairwise_stderr: Scores = field(metadata=GRID)
    counts: Scores = field(metadata=GRID)
    weights: Scores = field(metadata=GRID)  # of the amplification: heads are scaled by 1 + γ·w
    null_control: float = field(metadata=NUMBER)  # largest effect of an intervention that changes nothing (0 on a CPU)
    selected: tuple[Head, ...] = field(metadata=HEADS)  # best first
    mode: Mode = field(metadata=one_of(get_args(Mode)))
    gamma: float = field(metadata=NUMBER)  # 0: steering stays off
    reliability: SplitHalfReliability | None = field(
        default=None, metadata=record(SplitHalfReliability, present="heads")
    )
    calibration: Calibration | None = field(default=None, metadata=record(Calibration, present="n"))
    slope: Scores | None = field(default=None, metadata=optional(GRID))
    step: StepEvidence | None = field(default=None, metadata=record(StepEvidence, present="gain"))

    @property
    def n_layer(self) -> int:
        return int(self.pcs.shape[0])

    @property
    def n_head(self) -> int:
        return int(self.pcs.shape[1])

    @property
    def unscored_layers(self) -> list[int]:
        """Layers without a head that can be muted: recurrent ones, or attention of the architecture's own."""
        return [int(layer) for layer in np.flatnonzero(np.isnan(self.pcs).all(axis=1))]

    def scales(self, model: Model, mode: Mode) -> HeadScales:
        """Return the scales F32 [n_layer, n_head_max] of a mode: 0 for muted heads, 1 + w for amplified ones."""
        return head_mask(model, self.selected) if mode == "contrast" else amplified(self.weights)

    def steering(
        self, model: Model, mode: Mode | None = None, gamma: Gamma | None = None, beta: float = 0.1
    ) -> Steering:
        """Return how the map steers; None takes its own mode, and the γ that was measured for the mode, or else 0."""
        mode = mode or self.mode
        measured = Gamma(self.gamma if mode == self.mode else 0.0)
        return Steering(self.scales(model, mode), measured if gamma is None else gamma, beta, self.scope, mode)

    @property
    def ranked_scores(self) -> Scores:
        """The scores that the heads were ranked by."""
        return self.scores(self.ranking)[0]

    @property
    def fully_evaluated_scores(self) -> Scores:
        """What heads were ranked by, NaN for those that were dropped on the way: chance ranks them high or low."""
        scores, counts = self.ranked_scores, np.nan_to_num(self.counts)
        return np.where(counts == counts[np.isfinite(scores)].max(initial=0), scores, np.float32(np.nan))

    def scores(self, name: str) -> tuple[Scores, Scores]:
        """Return the scores "pcs", "gain", "contrast" or "pairwise", and their standard errors."""
        return getattr(self, name), getattr(self, f"{name}_stderr")

    def top_heads(self, k: int) -> list[Head]:
        """Return the k heads with the highest lower bounds of their ranked scores, none with a mean below zero."""
        mean = self.fully_evaluated_scores
        bound = lower_confidence_bound(mean, self.scores(self.ranking)[1], np.nan_to_num(self.counts))
        places = top_heads(np.where(np.nan_to_num(mean) > 0, bound, -np.inf), k)
        return [divmod(place, self.n_head) for place in places]

    def as_json(self) -> dict[str, Any]:
        """Return the contract's JSON object; null where a layer has fewer heads."""
        return {"n_layer": self.n_layer, "n_head": self.n_head, **fields_as_json(self)}


SCORES = tuple(f.name for f in fields(HeadMap) if f.metadata == GRID)
