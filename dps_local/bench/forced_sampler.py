"""`ForcedSampler`: a sampler under teacher forcing, which tells where it would have drawn another token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dps_local.engine.context import Context
from dps_local.engine.sampler import Sampler, Sampling
from dps_local.steering.mixing import Logits


class ForcedSampler(Sampler):
    """Draws as a sampler of these settings would, but returns the tokens that it was given."""

    def __init__(self, sampling: Sampling, tokens: Sequence[int]) -> None:
        super().__init__(sampling)
        self.tokens = iter(tokens)
        self.margins: list[float] = []  # nats that its own token's logit is above the given one's, where they differ

    def sample(self, logits: Logits, tokens: NDArray[np.integer] | None = None) -> int:
        return self._next(super().sample(logits, tokens), logits, tokens)

    def sample_last(self, context: Context, logits: Logits) -> int:
        return self._next(super().sample_last(context, logits), logits)

    def _next(self, own: int, logits: Logits, tokens: NDArray[np.integer] | None = None) -> int:
        token = next(self.tokens)
        if own != token:
            known = np.arange(logits.size) if tokens is None else tokens
            own_logit, logit = (logits[known == t] for t in (own, token))
            self.margins.append(float(own_logit[0] - (logit[0] if logit.size else logits.min())))
        return token
