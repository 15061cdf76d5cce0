"""The steps of an answer: from one stream, or from a full and a muted one, of which the second may come late."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Generator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dps_local.context import KV_STEP
from dps_local.mixing import Logits, mix, plausible, probabilities
from dps_local.sampler import Sampler
from dps_local.steering import Steering
from dps_local.stream import Stream

Engine = Literal["auto", "eager", "late"]
Steps = Generator["Step", None, None]

WINDOW = 8  # steps that the muted stream may be late: LLAMA_MAX_TOKENS_ALONE of the patch
RISK = 0.03  # expected number of wrong guesses at which it catches up: a wrong one costs whole steps of the full stream
MAX_ROWS = 64  # plausible tokens whose logits alone are computed; for more of them all logits are
SPREAD, PRIOR = 1.0, 4  # before anything is known, f - m spreads by one nat among plausible tokens: as if in 4 steps


@dataclass(frozen=True)
class Step:
    """A sampled token, with its probability without, with muted, and with steered heads."""

    id: int
    p_plain: float | None  # None where heads were amplified in the one stream
    p_muted: float | None  # None where not all logits of the muted stream were needed
    p_steered: float


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


def no_room() -> bool:
    return False


def plain_steps(
    stream: Stream,
    sampler: Sampler,
    token: int,
    cancel: threading.Event,
    *,
    plain: bool = True,
    room: Callable[[], bool] = no_room,
) -> Steps:
    """Decode and sample one token after the other, from `token` on.

    plain: the heads are as they are. room: is called when the context is full, to shorten the stream; False when it
    cannot, and the answer ends.
    """
    while (stream.n < stream.context.n_ctx or room()) and not cancel.is_set():
        f = stream.decode([token], 1)[0]
        token = sampler.sample(f)
        p = float(probabilities(f)[token])
        yield Step(token, p if plain else None, None, p)


@dataclass(eq=False)
class _Late:
    """A step that the muted stream has not made yet. kept: plausible tokens, f: their logits, p: probabilities."""

    fed: int  # the token that is read in this step
    kept: NDArray[np.intp]
    f: Logits
    p: Logits
    gamma: float
    below: NDArray[np.float32] | None  # output [1, n_embd] of the layer below the first muted head
    end: int  # tokens in the full stream after it
    certain: bool  # whether the muted logits do not matter
    token: int = -1  # what was sampled or guessed
    before: Sampler | None = None  # as it was before the guess


@dataclass(frozen=True)
class _Muted:
    """Logits m of plausible tokens, and their probabilities where all logits are there."""

    m: Logits
    p: Logits | None = None


class Contrast:
    """An answer from f + γ·(f - m), where a stream of muted heads follows the full one.

    Where one token alone is plausible, m does not matter. Elsewhere the token may be guessed from f, and m comes late:
    then the muted stream makes several steps in one call. It computes the logits of plausible tokens only, and, in
    'generated' scope, starts above the layers in which both streams are the same. A guess that m refutes is taken
    back in both streams. The muted context computes each token as if it came alone, so on the CPU the answer is that
    of the eager engine, bit for bit.

    The eager engine makes each step in both streams, and computes everything. room: shortens both streams when the
    context is full, as in `plain_steps`. window: steps that the muted stream may be late. risk: the expected number
    of wrong guesses at which it catches up; 0 guesses nothing.
    """

    def __init__(
        self,
        full: Stream,
        muted: Stream,
        sampler: Sampler,
        steering: Steering,
        cancel: threading.Event,
        *,
        room: Callable[[], bool] = no_room,
        eager: bool = False,
        window: int | None = None,
        risk: float | None = None,
    ) -> None:
        self.full, self.muted, self.sampler = full, muted, sampler
        self.steering, self.cancel, self.room = steering, cancel, room
        self.eager, self.window = eager, 1 if eager else window or WINDOW
        self.risk = RISK if risk is None else risk
        self.counts = Counts()
        self._layer = 0 if eager or steering.scope == "all" else steering.first_layer
        self._squares, self._n = PRIOR * SPREAD**2, PRIOR  # of the differences of f - m among plausible tokens
        self._late: list[_Late] = []
        self._given = 0  # how many of these, from the first on, have been yielded
        self._wrong = 0.0  # expected wrong guesses among them

    def steps(self, token: int, n: int = -1) -> Steps:
        """Yield the steps of an answer from `token` on; the caller is expected to stop after n (-1: any number).

        The full stream may then be ahead of what was yielded, and the muted one behind. An end-of-generation token is
        the last step.
        """
        self.full.context.keep_layers(self._layer > 0)
        try:
            yield from self._steps(token, n)
        finally:
            self.full.context.keep_layers(False)
            guessed = (late.before for late in self._late[self._given :])
            if before := next(filter(None, guessed), None):
                self.sampler.become(before)
            self._forget()

    def _steps(self, token: int, n: int) -> Steps:
        is_eog = self.full.context.model.is_eog
        while not self.cancel.is_set():
            if self.full.n == self.full.context.n_ctx and not self.room():
                return
            late = self._read(token)
            self._late.append(late)
            settle = len(self._late) == self.window or self.full.n % KV_STEP == 0  # as at the end of the context
            if late.certain:
                late.token = self.sampler.sample(late.f, late.kept)
                if self._given == len(self._late) - 1:
                    yield self._give(late, late.f, None)
                    if is_eog(late.token):
                        return
            elif not (settle := settle or self._doubtful(late, n)):
                late.before = self.sampler.clone()
                late.token = self.sampler.sample(late.f, late.kept)
            if settle or is_eog(late.token):
                late = yield from self._settle()
                if is_eog(late.token):
                    return
            token = late.token

    def _read(self, token: int) -> _Late:
        """Make a step in the full stream."""
        context = self.full.context
        f = self.full.decode([token], 1)[0]
        kept = np.flatnonzero(plausible(f, self.steering.beta))
        below = context.layer_output(self._layer - 1, 1) if self._layer else None
        if below is None:
            self._layer = 0
        certain = kept.size == 1 and not self.eager
        gamma = 0.0 if certain else self.steering.gamma(f)
        return _Late(token, kept, f[kept], probabilities(f)[kept], gamma, below, self.full.n, certain)

    def _doubtful(self, late: _Late, n: int) -> bool:
        """Whether the muted stream is to catch up before this step is decided."""
        self._wrong += self._risk(late.f, late.gamma)
        return self._wrong > self.risk or self.counts.steps + len(self._late) - self._given == n

    def _risk(self, f: Logits, gamma: float) -> float:
        """Return about how probable it is that m changes the token: differences of f - m are taken as normal."""
        spread = abs(gamma) * math.sqrt(self._squares / self._n)
        if self.sampler.temp > 0:  # the expected total variation
            p = probabilities(f / np.float32(self.sampler.temp))
            return 0.4 * spread / self.sampler.temp * float((p * (1 - p)).sum())
        gaps = np.sort(f.max() - f)[1:]
        return sum(0.5 * math.erfc(gap / (math.sqrt(2) * spread + 1e-9)) for gap in gaps)

    def _settle(self) -> Generator[Step, None, _Late]:
        """Let the muted stream make all its steps, and decide those that are open; return the last one that stands."""
        late, all_muted = self._late[-1], self._mute()
        for late, muted in list(zip(self._late, all_muted, strict=True))[self._given :]:
            mixed, guess, refuted = late.f, late.token, False
            if muted:
                mixed = mix(late.f, muted.m, late.gamma, beta=0.0)
                sampler = late.before or self.sampler
                late.token = sampler.sample(mixed, late.kept)
                self._learn(late.f - muted.m)
                if refuted := sampler is late.before and late.token != guess:
                    self.counts.refuted += 1
                    self.sampler.become(sampler)
                    self.full.rewind(late.end)
                    self.muted.rewind(late.end)
                    del self._late[self._given + 1 :]
            yield self._give(late, mixed, muted)
            if refuted:
                break
        self._forget()
        return late

    def _mute(self) -> list[_Muted | None]:
        """Make all late steps in the muted stream; return the logits of those that are not certain."""
        doubtful = [late for late in self._late if not late.certain]
        n = len(self._late) - self._late.index(doubtful[0]) if doubtful else 0
        rows = np.unique(np.concatenate([late.kept for late in doubtful])) if doubtful else np.empty(0, np.intp)
        all_rows = self.eager or not 0 < rows.size <= MAX_ROWS
        below = [late.below for late in self._late if late.below is not None]
        with self.muted.context.above(self._layer, np.concatenate(below)) if below else nullcontext():
            tokens = [late.fed for late in self._late]
            logits = self.muted.decode(tokens, n, None if all_rows else rows)
        self.counts.muted_calls += 1
        self.counts.muted_tokens += len(tokens)
        found: list[_Muted | None] = [None] * len(self._late)
        for i, m in enumerate(logits, len(self._late) - n):
            kept = self._late[i].kept
            if not self._late[i].certain:
                found[i] = (
                    _Muted(m[kept], probabilities(m)[kept]) if all_rows else _Muted(m[np.searchsorted(rows, kept)])
                )
        return found

    def _learn(self, d: Logits) -> None:
        """Take note of how far f - m spreads among plausible tokens."""
        if d.size > 1:
            self._squares += 2 * float(d.var())  # the variance of the difference of two of them
            self._n += 1

    def _give(self, late: _Late, mixed: Logits, muted: _Muted | None) -> Step:
        self._given += 1
        self.counts.steps += 1
        self.counts.uncertain += late.kept.size > 1
        at = int(np.searchsorted(late.kept, late.token))
        p_muted = float(muted.p[at]) if muted and muted.p is not None else None
        return Step(late.token, float(late.p[at]), p_muted, float(probabilities(mixed)[at]))

    def _forget(self) -> None:
        self._late, self._given, self._wrong = [], 0, 0.0
