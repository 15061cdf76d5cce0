"""`Contrast`: what a stream of muted heads adds to a full one, f + γ·(f - m), where the second may come late."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dps_local.engine.context import KV_STEP
from dps_local.engine.sampler import Sampler
from dps_local.engine.stream import Stream
from dps_local.steering.mixing import Logits, mix, plausible, probabilities
from dps_local.steering.steering import Steering

WINDOW = 8  # steps that the muted stream may be late: LLAMA_MAX_TOKENS_ALONE of the patch
MAX_ROWS = 64  # plausible tokens whose logits alone are computed; for more of them all logits are


@dataclass
class Counts:
    """What an answer took.

    steps; those with more than one plausible token; calls and tokens of the muted stream; guesses that it refuted.
    """

    steps: int = 0
    uncertain: int = 0
    muted_calls: int = 0
    muted_tokens: int = 0
    refuted: int = 0


@dataclass(eq=False)
class Late:
    """A step that the muted stream has not made yet.

    kept: plausible tokens, f: their logits, p: their probabilities, where these are asked for.
    """

    fed: int  # the token that is read in this step
    kept: NDArray[np.intp]
    f: Logits
    p: Logits | None
    gamma: float
    below: NDArray[np.float32] | None  # output [1, n_embd] of the layer below the first muted head
    end: int  # tokens in the full stream after it
    certain: bool  # whether the muted logits do not matter
    token: int = -1  # what was sampled or guessed
    before: Sampler | None = None  # as it was before the guess


@dataclass(frozen=True)
class Muted:
    """Logits m of plausible tokens, and their probabilities where these are asked for and all logits are there."""

    m: Logits
    p: Logits | None = None


class Contrast:
    """Steps of a full stream, and the muted stream that follows it.

    Where one token alone is plausible, m does not matter, and the muted stream may make several steps in one call. It
    computes the logits of plausible tokens only, and, in 'generated' scope, starts above the layers in which both
    streams are the same. The muted context computes each token as if it came alone, so on the CPU the logits are those
    of the eager engine, bit for bit.

    The eager engine makes each step in both streams, and computes everything. window: steps that the muted stream may
    be late. probs: probabilities are asked for, which cost passes over the vocabulary.
    """

    def __init__(
        self,
        full: Stream,
        muted: Stream,
        steering: Steering,
        *,
        eager: bool = False,
        window: int | None = None,
        probs: bool = False,
    ) -> None:
        self.full, self.muted, self.steering, self.probs = full, muted, steering, probs
        self.eager, self.window = eager, 1 if eager else window or WINDOW
        self.counts = Counts()
        self.late: list[Late] = []
        self._layer = 0 if eager else full.context.model.layer_start(steering.first_layer)

    def keep_layers(self, keep: bool = True) -> None:
        """Let the full stream keep what the muted one starts from; or no more."""
        self.full.context.keep_layers(range(self._layer - 1, self._layer) if keep and self._layer else range(0))

    @property
    def due(self) -> bool:
        """Whether the muted stream may not be later than it is: no late step and no guess goes beyond a KV_STEP."""
        ends = (self.full.n, self.muted.n + len(self.late))
        return len(self.late) == self.window or any(n % KV_STEP == 0 for n in ends)

    def step(self, token: int, f: Logits) -> Late:
        """Take note of a step of the full stream, which has read `token` and then gave the logits f [n_vocab]."""
        kept = np.flatnonzero(plausible(f, self.steering.beta))
        below = self.full.context.layer_output(self._layer - 1, 1) if self._layer else None
        if below is None:
            self._layer = 0
        certain = kept.size == 1 and not self.eager
        gamma = 0.0 if certain else self.steering.gamma(f)
        p = probabilities(f)[kept] if self.probs else None
        late = Late(token, kept, f[kept], p, gamma, below, self.full.n, certain)
        self.late.append(late)
        return late

    def follow(self) -> list[Muted | None]:
        """Make all late steps in the muted stream; return the logits of those that are not certain."""
        doubtful = [late for late in self.late if not late.certain]
        n = len(self.late) - self.late.index(doubtful[0]) if doubtful else 0
        rows = np.unique(np.concatenate([late.kept for late in doubtful])) if doubtful else np.empty(0, np.intp)
        all_rows = self.eager or not 0 < rows.size <= MAX_ROWS
        below = [late.below for late in self.late if late.below is not None]
        with self.muted.context.above(self._layer, np.concatenate(below)) if below else nullcontext():
            tokens = [late.fed for late in self.late]
            logits = self.muted.decode(tokens, n, None if all_rows else rows)
        self.counts.muted_calls += 1
        self.counts.muted_tokens += len(tokens)
        found: list[Muted | None] = [None] * len(self.late)
        for i, m in enumerate(logits, len(self.late) - n):
            kept = self.late[i].kept
            if not self.late[i].certain:
                p = probabilities(m)[kept] if self.probs and all_rows else None
                found[i] = Muted(m[kept] if all_rows else m[np.searchsorted(rows, kept)], p)
        return found

    def rewind(self, late: Late) -> None:
        """Take back what both streams have read after a step."""
        behind = self.full.n - self.muted.n  # other prompts, other lengths
        self.full.rewind(late.end)
        self.muted.rewind(late.end - behind)

    def steered(self, token: int, f: Logits) -> tuple[NDArray[np.intp], Logits]:
        """Make a step as in `step`; return the plausible tokens after it and their steered logits."""
        late = self.step(token, f)
        if late.certain and not self.due:
            return late.kept, late.f
        muted = self.follow()[-1]
        self.late = []
        return late.kept, mixed(late, muted)


def mixed(late: Late, muted: Muted | None) -> Logits:
    """Return the steered logits of a step's plausible tokens."""
    return mix(late.f, muted.m, late.gamma, beta=0.0) if muted else late.f
