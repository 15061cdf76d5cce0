"""`SpeculativeDecoder`: speculative decoding of a contrast: the full stream drafts, the muted one verifies."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Generator

import numpy as np

from dps_local.engine.sampler import Sampler
from dps_local.steering.contrast import Contrast, DraftStep, MutedLogits, steered_logits
from dps_local.steering.decoding import Step, Steps, no_room
from dps_local.steering.draft import Draft
from dps_local.steering.mixing import Logits, probabilities

MAX_EXPECTED_REJECTIONS = 0.03  # few: a rejected token costs whole steps of the full stream
# before anything is known, f - m spreads by one nat among candidates: as if in 4 steps
PRIOR_SPREAD, PRIOR_STEPS = 1.0, 4


class SpeculativeDecoder:
    """An answer from a contrast of two streams, by speculative decoding (Leviathan et al. 2023, arXiv 2211.17192).

    Where several tokens are plausible, the full stream may draft the next one from f alone. A draft token is accepted
    if f + γ·(f - m) draws the same one; a rejected one is taken back in both streams, so the answer is the eager one.
    Where one token alone is plausible, it needs no verification. Nothing else is drafted where a stream cannot go back.

    n_max: steps between two verifications, at most. make_room: shortens both streams when the context is full, as in
    `plain_steps`. max_expected_rejections: the expected number of rejected tokens in a draft above which it is
    verified; 0 drafts nothing that may be rejected.
    """

    def __init__(
        self,
        contrast: Contrast,
        sampler: Sampler,
        cancel: threading.Event,
        *,
        n_max: int | None = None,
        make_room: Callable[[], bool] = no_room,
        max_expected_rejections: float | None = None,
    ) -> None:
        self.contrast, self.sampler, self.cancel, self.make_room = contrast, sampler, cancel, make_room
        self.full, self.counts, self.draft = contrast.full, contrast.counts, Draft(contrast, n_max)
        limit = max_expected_rejections
        self.max_expected_rejections = MAX_EXPECTED_REJECTIONS if limit is None else limit
        self._can_reject = self.full.context.model.rewinds  # else a rejected token would cost the whole chat
        self._sum_squares, self._n_spreads = PRIOR_STEPS * PRIOR_SPREAD**2, PRIOR_STEPS  # of f - m among candidates
        self._n_accepted = 0  # how many of the draft's steps, from the first on, have been yielded
        self._expected_rejections = 0.0  # in the draft

    def steps(self, token: int, n: int = -1) -> Steps:
        """Yield the steps of an answer from `token` on; the caller is expected to stop after n (-1: any number).

        The full stream may then be ahead of what was yielded, and the muted one behind. An end-of-generation token is
        the last step.
        """
        with self.contrast.keep_layer_inputs():
            try:
                yield from self._steps(token, n)
            finally:
                samplers = (step.sampler_before for step in self.draft.steps[self._n_accepted :])
                if before := next(filter(None, samplers), None):
                    self.sampler.restore(before)
                self._clear_draft()

    def _steps(self, token: int, n: int) -> Steps:
        is_eog, draft = self.full.context.model.is_eog, self.draft
        while not self.cancel.is_set():
            if self.full.n == self.full.context.n_ctx and not self.make_room():
                return
            step = draft.step(token, self.sampler)
            n_steps = self.counts.steps + len(draft.steps) - self._n_accepted
            verify = draft.must_verify or n_steps == n
            if not step.needs_verification:
                step.token = self.sampler.sample(step.f, step.candidates)
                if self._n_accepted == len(draft.steps) - 1:
                    yield self._accept(step, step.f, None)
                    if is_eog(step.token):
                        return
            elif not (verify := verify or self._too_uncertain(step)):
                step.sampler_before = self.sampler.clone()
                step.token = self.sampler.sample(step.f, step.candidates)
            if verify or is_eog(step.token):
                step = yield from self._verify()
                if is_eog(step.token):
                    return
            token = step.token

    def _too_uncertain(self, step: DraftStep) -> bool:
        """Whether the draft is to be verified before this step is decided."""
        self._expected_rejections += self._rejection_probability(step.f, step.gamma)
        return self._expected_rejections > self.max_expected_rejections or not self._can_reject

    def _rejection_probability(self, f: Logits, gamma: float) -> float:
        """Return about how probable it is that m changes the token: differences of f - m are taken as normal."""
        spread = abs(gamma) * math.sqrt(self._sum_squares / self._n_spreads)
        if self.sampler.temp > 0:  # the expected total variation
            p = probabilities(f / np.float32(self.sampler.temp))
            return 0.4 * spread / self.sampler.temp * float((p * (1 - p)).sum())
        gaps = np.sort(f.max() - f)[1:]
        return sum(0.5 * math.erfc(gap / (math.sqrt(2) * spread + 1e-9)) for gap in gaps)

    def _verify(self) -> Generator[Step, None, DraftStep]:
        """Verify the draft, and yield its steps up to the first rejected one, corrected; return the last one."""
        step, all_muted = self.draft.steps[-1], self.draft.verify()
        for step, muted in list(zip(self.draft.steps, all_muted, strict=True))[self._n_accepted :]:
            logits, rejected = steered_logits(step, muted), False
            if muted:
                self._update_spread(step.f - muted.m)
                rejected = self._resample(step, logits)
            yield self._accept(step, logits, muted)
            if rejected:
                break
        self._clear_draft()
        return step

    def _resample(self, step: DraftStep, logits: Logits) -> bool:
        """Draw a step's token from its steered logits; whether that rejects a draft token, and what came after it."""
        drafted, sampler = step.token, step.sampler_before or self.sampler
        step.token = sampler.sample(logits, step.candidates)
        if sampler is self.sampler or step.token == drafted:
            return False
        self.counts.rejected += 1
        self.sampler.restore(sampler)
        self.contrast.rewind(step)
        del self.draft.steps[self._n_accepted + 1 :]
        return True

    def _update_spread(self, d: Logits) -> None:
        """Count how far f - m spreads among candidates."""
        if d.size > 1:
            self._sum_squares += 2 * float(d.var())  # the variance of the difference of two of them
            self._n_spreads += 1

    def _accept(self, step: DraftStep, logits: Logits, muted: MutedLogits | None) -> Step:
        self._n_accepted += 1
        return self.contrast.accept(step, logits, muted)

    def _clear_draft(self) -> None:
        self.draft.steps, self._n_accepted, self._expected_rejections = [], 0, 0.0
