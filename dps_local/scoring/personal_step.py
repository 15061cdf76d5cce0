"""`PersonalStep`: by how much each head is scaled for one person, and what that is expected to be worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dps_local.engine.model import Head, Model
from dps_local.maps.fisher import Vector
from dps_local.maps.prior import Prior
from dps_local.maps.scored_heads import Scores, grid
from dps_local.maps.step_evidence import NO_KIND, StepEvidence, of_no_kind
from dps_local.scoring.mixture import mixture
from dps_local.scoring.posterior import Posterior, own_alone
from dps_local.scoring.slopes import Slopes
from dps_local.scoring.sparse import sparse

# of γ before it is calibrated. Twice as long, a step helped headlines more, but not mail, and beyond that it did harm:
# the loss is not quadratic so far out.
LONGEST = 0.2


@dataclass(frozen=True, eq=False)
class PersonalStep:
    """A step δ, by which heads are scaled to 1 + δ, and the posterior of the one that suits the person best.

    kinds, shares: of the writing that others' priors are of, and the probability of each; the last is none of them.
    """

    model: Model
    posterior: Posterior
    step: Vector
    kinds: tuple[str, ...]
    shares: tuple[float, ...]
    own: Slopes | None

    @classmethod
    def of(cls, model: Model, priors: Sequence[Prior], own: Slopes | None) -> PersonalStep:
        """Return what priors and own text tell; without priors, own text needs samples for its Fisher matrix."""
        if not priors:
            assert own is not None
            alone = own_alone(own)
            return cls(model, alone, alone.step, (), (), own)
        found = mixture([prior.population for prior in priors], own)
        kinds = (*(prior.writing for prior in priors), NO_KIND)
        return cls(model, found.posterior, found.posterior.step, kinds, tuple(map(float, found.probabilities)), own)

    @property
    def no_kind(self) -> bool:
        """Whether the person's text is more likely of none of the kinds that there are priors of."""
        return of_no_kind(self.shares)

    @property
    def gamma(self) -> float:
        """The length of the step, which is where its expected gain is largest, or LONGEST."""
        return min(self.posterior.fisher.length(self.step), LONGEST)

    @property
    def direction(self) -> Vector:
        """The step at length 1; 0 where nothing is known."""
        return self.posterior.fisher.scaled_to(self.step, 1.0)

    @property
    def weights(self) -> Scores:
        """The step at length 1, F32 [n_layer, n_head_max]; NaN where there is no head."""
        return grid(self.model.n_heads, self.direction)

    @property
    def slopes(self) -> Scores:
        """Own text's slopes per token, likewise; NaN without own text."""
        known = self.own and self.own.n_tokens
        return grid(self.model.n_heads, self.own.mean if self.own and known else np.full(len(self.step), np.nan))

    def expected(self, gamma: float) -> tuple[float, float]:
        """Return the expected gain at a strength in nats a token, and its standard deviation."""
        return self.posterior.gain(gamma * self.direction)

    def evidence(self, gamma: float) -> StepEvidence:
        gain, deviation = self.expected(gamma)
        return StepEvidence(
            kinds=", ".join(self.kinds),
            shares=self.shares,
            gain=gain,
            deviation=deviation,
            probability=self.posterior.helps(gamma * self.direction),
            tokens=self.own.n_tokens if self.own else 0,
            texts=len(self.own.tokens) if self.own else 0,
        )

    def heads(self, k: int) -> list[Head]:
        """Return the k heads that together do most of the step, the best first."""
        heads = self.model.heads()
        return [heads[i] for i in sparse(self.step, self.posterior.fisher, k)[0]]

    def sparse(self, k: int) -> PersonalStep:
        """Return the best step of k heads alone."""
        return replace(self, step=sparse(self.step, self.posterior.fisher, k)[1])
