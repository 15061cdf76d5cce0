"""`Contrast`: f + γ·(f - m) from two streams, one with all heads and one with some muted."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dps_local.engine.context import N_TOP, Run
from dps_local.engine.sampler import Sampler
from dps_local.engine.stream import Stream
from dps_local.steering.decoding import Step, most_probable
from dps_local.steering.mixing import Logits, mix, plausible, probabilities
from dps_local.steering.steering import Steering

MAX_ROWS = 64  # candidates whose logits alone are computed in the muted stream; for more of them all are


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
    candidates: NDArray[np.integer]
    f: Logits
    p: Logits | None
    gamma: float
    layer_input: NDArray[np.float32] | None  # F32 [1, n_embd], of the first layer with a muted head
    n_full: int  # tokens in the full stream after it
    needs_verification: bool  # False where the only candidate is sampled whatever m is
    token: int = -1  # that is sampled or drafted
    sampler_before: Sampler | None = None  # as it was before it drew a draft token


class Plausible(NamedTuple):
    """The plausible tokens of a step, in rising order, and their logits F32 [n_streams, n], f first.

    all_logits: F32 [n_streams, n_vocab]; None where only the largest were picked.
    """

    tokens: NDArray[np.integer]
    logits: Logits
    all_logits: Logits | None


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
        picks = full.context.model.offloads_output and steering.beta > 0 and not steering.gamma.entropy
        self.picks = picks and not probs and not eager  # the largest logits, where they are computed

    def keep_layer_inputs(self) -> AbstractContextManager[None]:
        """Let the full stream keep what the muted one starts from, within a block."""
        first = self._first_layer
        return self.full.context.keep_layers(range(first - 1, first) if first else range(0))

    def step(self, token: int, sampler: Sampler) -> DraftStep:
        """Make the next step in the full stream; sampler: rules tokens out where it has a grammar."""
        return self.draft_step(token, self._decode(token, sampler, self.full))

    def step_together(self, token: int, sampler: Sampler) -> tuple[DraftStep, MutedLogits]:
        """Make the next step in both streams, sequences of one context, in one call."""
        found = self._decode(token, sampler, self.full, self.muted)
        self.counts.muted_calls += 1
        self.counts.muted_tokens += 1
        p = None
        if self.probs and found.all_logits is not None:
            p = probabilities(found.all_logits[1])[found.tokens]
        return self.draft_step(token, found), MutedLogits(found.logits[1], p)

    def _decode(self, token: int, sampler: Sampler, *streams: Stream) -> Plausible:
        """Append a token to streams of one context, in one call."""
        found = self._call([stream.run([token], 1) for stream in streams], sampler)
        for stream in streams:
            stream.record([token])
        return found

    def _call(self, runs: list[Run], sampler: Sampler) -> Plausible:
        context = self.full.context
        if not self.picks or sampler.grammar:
            return self.plausible(context.decode(runs), sampler)
        tokens, logits = context.decode_top(runs, N_TOP)
        mask = plausible(logits[0], self.steering.beta)
        if mask.all() and tokens.size < context.model.n_vocab:  # there may be more of them
            return self.plausible(context.fetch_logits(len(runs)), sampler)
        return Plausible(tokens[mask], logits[:, mask], None)

    def plausible(self, logits: Logits, sampler: Sampler | None = None) -> Plausible:
        """Return the plausible tokens by the logits F32 [n_streams, n_vocab] of a step, f first."""
        allowed = sampler.allowed(logits[0]) if sampler else logits[0]
        tokens = np.flatnonzero(plausible(allowed, self.steering.beta))
        return Plausible(tokens, logits[:, tokens], logits)

    def draft_step(self, token: int, found: Plausible) -> DraftStep:
        """Return the step of the full stream that has read `token` and then gave these logits."""
        candidates, f = found.tokens, found.logits[0]
        all_f = f if found.all_logits is None else found.all_logits[0]
        layer_input = self.full.context.layer_output(self._first_layer - 1, 1) if self._first_layer else None
        if layer_input is None:
            self._first_layer = 0
        needs_verification = candidates.size > 1 or self.eager
        gamma = self.steering.gamma(all_f) if needs_verification else 0.0
        p = probabilities(all_f)[candidates] if self.probs else None
        return DraftStep(token, candidates, f, p, gamma, layer_input, self.full.n, needs_verification)

    def accept(self, step: DraftStep, logits: Logits, muted: MutedLogits | None) -> Step:
        """Count a step whose token has been sampled from these steered logits, and return it."""
        self.counts.steps += 1
        self.counts.uncertain += step.candidates.size > 1
        if step.p is None:
            return Step(step.token, None, None, None)
        at = int(np.searchsorted(step.candidates, step.token))
        p_muted = float(muted.p[at]) if muted and muted.p is not None else None
        p, p_plausible = probabilities(logits), min(float(step.p.sum()), 1.0)
        top = most_probable(p, self.n_top, step.candidates) if self.n_top else ()
        return Step(step.token, float(step.p[at]), p_muted, float(p[at]), top=top, p_plausible=p_plausible)

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
