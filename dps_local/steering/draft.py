"""`Draft`: the steps of the full stream that the muted one has not verified yet."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dps_local.engine.context import KV_STEP, MAX_INVARIANT_BATCH
from dps_local.engine.sampler import Sampler
from dps_local.steering.contrast import Contrast, DraftStep, MutedLogits, steered_logits
from dps_local.steering.mixing import Logits


class Draft:
    """Steps of a contrast that wait for verification, at most `n_max` of them (llama.cpp's --draft-max)."""

    def __init__(self, contrast: Contrast, n_max: int | None = None) -> None:
        self.contrast = contrast
        self.n_max = 1 if contrast.eager else n_max or MAX_INVARIANT_BATCH
        self.steps: list[DraftStep] = []

    @property
    def must_verify(self) -> bool:
        """Whether to verify it before another step: none may go beyond a KV_STEP in either stream."""
        ends = (self.contrast.full.n, self.contrast.muted.n + len(self.steps))
        return len(self.steps) == self.n_max or any(n % KV_STEP == 0 for n in ends)

    def step(self, token: int, sampler: Sampler) -> DraftStep:
        """Make the next step in the full stream, and add it."""
        self.steps.append(self.contrast.step(token, sampler))
        return self.steps[-1]

    def verify(self) -> list[MutedLogits | None]:
        """Make all steps in the muted stream; return the logits of those that need verification."""
        return self.contrast.verify(self.steps)

    def append_steered(self, token: int, f: Logits) -> tuple[NDArray[np.integer], Logits]:
        """Add the step that read `token` and gave the logits f F32 [n_vocab], and verify all of them if need be.

        Return its candidates and their steered logits.
        """
        step = self.contrast.draft_step(token, self.contrast.plausible(f[np.newaxis]))
        self.steps.append(step)
        if not step.needs_verification and not self.must_verify:
            return step.candidates, step.f
        muted = self.verify()[-1]
        self.steps = []
        return step.candidates, steered_logits(step, muted)
