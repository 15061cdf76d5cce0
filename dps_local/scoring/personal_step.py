"""`PersonalStep`: by how much each head is scaled for one person, and what that is expected to be worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dps_local.engine.model import Head, Model
from dps_local.maps.prior import Prior
from dps_local.maps.scored_heads import Scores, grid
from dps_local.maps.step_evidence import NO_KIND, StepEvidence
from dps_local.scoring.mixture import mixture
from dps_local.scoring.posterior import own_alone
from dps_local.scoring.promised_step import PromisedStep
from dps_local.scoring.slopes import Slopes
from dps_local.scoring.sparse import sparse


@dataclass(frozen=True, eq=False)
class PersonalStep(PromisedStep):
    """The step that priors and the person's own text give. kinds: of writing, as `shares`; the last is NO_KIND."""

    model: Model
    kinds: tuple[str, ...]
    own: Slopes | None

    @classmethod
    def of(cls, model: Model, priors: Sequence[Prior], own: Slopes | None) -> PersonalStep:
        """Return what priors and own text tell; without priors, own text needs samples for its Fisher matrix."""
        if not priors:
            assert own is not None
            alone = own_alone(own)
            return cls(alone, alone.step, (), (), model, (), own)
        found = mixture([prior.population for prior in priors], own)
        kinds = (*(prior.writing for prior in priors), NO_KIND)
        shares, errors = tuple(map(float, found.probabilities)), tuple(prior.error for prior in priors)
        return cls(found.posterior, found.posterior.step, shares, errors, model, kinds, own)

    @property
    def weights(self) -> Scores:
        """The step at length 1, F32 [n_layer, n_head_max]; NaN where there is no head."""
        return grid(self.model.n_heads, self.direction)

    @property
    def slopes(self) -> Scores:
        """Own text's slopes per token, likewise; NaN without own text."""
        known = self.own and self.own.n_tokens
        return grid(self.model.n_heads, self.own.mean if self.own and known else np.full(len(self.step), np.nan))

    def evidence(self, gamma: float) -> StepEvidence:
        gain, deviation = self.expected(gamma)
        return StepEvidence(
            kinds=self.kinds,
            shares=self.shares,
            gain=gain,
            deviation=deviation,
            probability=self.helps(gamma),
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
