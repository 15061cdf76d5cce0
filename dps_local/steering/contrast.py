"""`Contrast`: f + γ·(f - m) from two streams, one with all heads and one with some muted."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dps_local.engine.sampler import Sampler
from dps_local.engine.stream import Stream
from dps_local.steering.mixing import Logits, mix, plausible, probabilities
from dps_local.steering.steering import Steering

MAX_ROWS = 64  # candidates whose logits alone are computed; for more of them all logits are


@dataclass
class DecodingCounts:
    """What an answer took.

    steps; those with more than one candidate; calls and tokens of the muted stream; draft tokens that it rejected.
    """

    steps: int = 0
    uncertain: int = 0
    muted_calls: int = 0
    muted_tokens: int = 0
    rejected: int = 0


@dataclass(eq=False)
class DraftStep:
    """A step that the full stream has made, and the muted one has not verified yet.

    candidates: the plausible tokens, in rising order. f: their logits. p: their probabilities, where asked for.
    """

    input_token: int  # that is read in this step
    candidates: NDArray[np.intp]
    f: Logits
    p: Logits | None
    gamma: float
    layer_input: NDArray[np.float32] | None  # F32 [1, n_embd], of the first layer with a muted head
    n_full: int  # tokens in the full stream after it
    needs_verification: bool  # False where the only candidate is sampled whatever m is
    token: int = -1  # that is sampled or drafted
    sampler_before: Sampler | None = None  # as it was before it drew a draft token


@dataclass(frozen=True)
class MutedLogits:
    """Logits m of the candidates, and their probabilities where these are asked for and all logits are there."""

    m: Logits
    p: Logits | None = None


class Contrast:
    """The full stream, which drafts, and the muted stream, which verifies several steps in one call.

    The muted stream computes the logits of candidates only, and, in 'generated' scope, starts above the layers in which
    both streams are the same. Its context is batch-invariant, so on the CPU the logits are those of the eager engine,
    bit for bit.

    eager: each step is made in both streams, and everything is computed. probs: probabilities are asked for, which
    cost passes over the vocabulary. n_top: of `Step.top`.
    """

    def __init__(
        self,
        full: Stream,
        muted: Stream,
        steering: Steering,
        *,
        eager: bool = False,
        probs: bool = False,
        n_top: int = 0,
    ) -> None:
        self.full, self.muted, self.steering, self.eager = full, muted, steering, eager
        self.probs, self.n_top = probs, n_top
        self.counts = DecodingCounts()
        self._first_layer = 0 if eager else full.context.model.layer_start(steering.first_layer)

    def keep_layer_inputs(self) -> AbstractContextManager[None]:
        """Let the full stream keep what the muted one starts from, within a block."""
        first = self._first_layer
        return self.full.context.keep_layers(range(first - 1, first) if first else range(0))

    def draft_step(self, token: int, f: Logits, allowed: Logits | None = None) -> DraftStep:
        """Return the step of the full stream that has read `token` and then gave the logits f [n_vocab].

        allowed: f with -inf for tokens that may not be drawn; None allows all.
        """
        candidates = np.flatnonzero(plausible(f if allowed is None else allowed, self.steering.beta))
        layer_input = self.full.context.layer_output(self._first_layer - 1, 1) if self._first_layer else None
        if layer_input is None:
            self._first_layer = 0
        needs_verification = candidates.size > 1 or self.eager
        gamma = self.steering.gamma(f) if needs_verification else 0.0
        p = probabilities(f)[candidates] if self.probs else None
        return DraftStep(token, candidates, f[candidates], p, gamma, layer_input, self.full.n, needs_verification)

    def verify(self, steps: list[DraftStep]) -> list[MutedLogits | None]:
        """Make steps in the muted stream in one call; return the logits of those that need verification."""
        unverified = [step for step in steps if step.needs_verification]
        n = len(steps) - steps.index(unverified[0]) if unverified else 0
        rows = np.unique(np.concatenate([np.empty(0, np.intp), *(step.candidates for step in unverified)]))
        all_rows = self.eager or not 0 < rows.size <= MAX_ROWS
        inputs = [step.layer_input for step in steps if step.layer_input is not None]
        with self.muted.context.start_at(self._first_layer, np.concatenate(inputs)) if inputs else nullcontext():
            logits = self.muted.decode([step.input_token for step in steps], n, None if all_rows else rows)
        self.counts.muted_calls += 1
        self.counts.muted_tokens += len(steps)
        muted: list[MutedLogits | None] = [None] * len(steps)
        for i, m in enumerate(logits, len(steps) - n):
            candidates = steps[i].candidates
            if steps[i].needs_verification:
                p = probabilities(m)[candidates] if self.probs and all_rows else None
                muted[i] = MutedLogits(m[candidates] if all_rows else m[np.searchsorted(rows, candidates)], p)
        return muted

    def rewind(self, step: DraftStep) -> None:
        """Take back what both streams have read after a step."""
        behind = self.full.n - self.muted.n  # other prompts, other lengths
        self.full.rewind(step.n_full)
        self.muted.rewind(step.n_full - behind)


def steered_logits(step: DraftStep, muted: MutedLogits | None) -> Logits:
    """Return the steered logits of a step's candidates."""
    return mix(step.f, muted.m, step.gamma, beta=0.0) if muted else step.f
