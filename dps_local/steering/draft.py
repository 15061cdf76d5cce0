"""`Draft`: the steps of the full stream that the muted one has not verified yet."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dps_local.engine.context import KV_STEP, MAX_INVARIANT_BATCH
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

    def append(self, token: int, f: Logits, allowed: Logits | None = None) -> DraftStep:
        """Add a step as `Contrast.draft_step` returns it."""
        step = self.contrast.draft_step(token, f, allowed)
        self.steps.append(step)
        return step

    def verify(self) -> list[MutedLogits | None]:
        """Make all steps in the muted stream; return the logits of those that need verification."""
        return self.contrast.verify(self.steps)

    def append_steered(self, token: int, f: Logits) -> tuple[NDArray[np.intp], Logits]:
        """Add a step as in `append`, and verify all of them if need be; return its candidates and steered logits."""
        step = self.append(token, f)
        if not step.needs_verification and not self.must_verify:
            return step.candidates, step.f
        muted = self.verify()[-1]
        self.steps = []
        return step.candidates, steered_logits(step, muted)
