"""The steps of an answer: from one stream, or from a full and a muted one that may come late."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dps_local.engine.sampler import Sampler
from dps_local.engine.stream import Stream
from dps_local.steering.contrast import Contrast, Late, Muted, mixed
from dps_local.steering.mixing import Logits, probabilities

Engine = Literal["auto", "eager", "late"]
Steps = Generator["Step", None, None]

RISK = 0.03  # expected number of wrong guesses at which it catches up: a wrong one costs whole steps of the full stream
SPREAD, PRIOR = 1.0, 4  # before anything is known, f - m spreads by one nat among plausible tokens: as if in 4 steps


@dataclass(frozen=True)
class Step:
    """A sampled token, with its probability without, with muted, and with steered heads; None where not asked for."""

    id: int
    p_plain: float | None  # None too where heads were amplified in the one stream
    p_muted: float | None  # None too where not all logits of the muted stream were needed
    p_steered: float | None


def no_room() -> bool:
    return False


def plain_steps(
    stream: Stream,
    sampler: Sampler,
    token: int,
    cancel: threading.Event,
    *,
    plain: bool = True,
    probs: bool = False,
    room: Callable[[], bool] = no_room,
) -> Steps:
    """Decode and sample one token after the other, from `token` on.

    plain: the heads are as they are. probs: probabilities are asked for. room: is called when the context is full, to
    shorten the stream; False when it cannot, and the answer ends.
    """
    while (stream.n < stream.context.n_ctx or room()) and not cancel.is_set():
        f = stream.decode([token], 1)[0]
        token = sampler.sample_last(stream.context, f)
        p = float(probabilities(f)[token]) if probs else None
        yield Step(token, p if plain else None, None, p)


class Answer:
    """An answer from a contrast of two streams, of which the muted one may come late.

    Where several tokens are plausible, the next one may be guessed from f alone. A guess that m refutes is taken back
    in both streams, so the answer is the same as without guesses. Nothing is guessed where a stream cannot go back.

    room: shortens both streams when the context is full, as in `plain_steps`. risk: the expected number of wrong
    guesses at which the muted stream catches up; 0 guesses nothing.
    """

    def __init__(
        self,
        contrast: Contrast,
        sampler: Sampler,
        cancel: threading.Event,
        *,
        room: Callable[[], bool] = no_room,
        risk: float | None = None,
    ) -> None:
        self.contrast, self.sampler, self.cancel, self.room = contrast, sampler, cancel, room
        self.full, self.muted, self.counts = contrast.full, contrast.muted, contrast.counts
        self.risk = RISK if risk is None else risk
        self._guesses = self.full.context.model.rewinds  # else a wrong guess would cost the whole chat
        self._squares, self._n = PRIOR * SPREAD**2, PRIOR  # of the differences of f - m among plausible tokens
        self._given = 0  # how many of the late steps, from the first on, have been yielded
        self._wrong = 0.0  # expected wrong guesses among them

    def steps(self, token: int, n: int = -1) -> Steps:
        """Yield the steps of an answer from `token` on; the caller is expected to stop after n (-1: any number).

        The full stream may then be ahead of what was yielded, and the muted one behind. An end-of-generation token is
        the last step.
        """
        self.contrast.keep_layers()
        try:
            yield from self._steps(token, n)
        finally:
            self.contrast.keep_layers(False)
            guessed = (late.before for late in self.contrast.late[self._given :])
            if before := next(filter(None, guessed), None):
                self.sampler.become(before)
            self._forget()

    def _steps(self, token: int, n: int) -> Steps:
        is_eog = self.full.context.model.is_eog
        while not self.cancel.is_set():
            if self.full.n == self.full.context.n_ctx and not self.room():
                return
            late = self.contrast.step(token, self.full.decode([token], 1)[0])
            made = self.counts.steps + len(self.contrast.late) - self._given
            settle = self.contrast.due or made == n
            if late.certain:
                late.token = self.sampler.sample(late.f, late.kept)
                if self._given == len(self.contrast.late) - 1:
                    yield self._give(late, late.f, None)
                    if is_eog(late.token):
                        return
            elif not (settle := settle or self._doubtful(late)):
                late.before = self.sampler.clone()
                late.token = self.sampler.sample(late.f, late.kept)
            if settle or is_eog(late.token):
                late = yield from self._settle()
                if is_eog(late.token):
                    return
            token = late.token

    def _doubtful(self, late: Late) -> bool:
        """Whether the muted stream is to catch up before this step is decided."""
        self._wrong += self._risk(late.f, late.gamma)
        return self._wrong > self.risk or not self._guesses

    def _risk(self, f: Logits, gamma: float) -> float:
        """Return about how probable it is that m changes the token: differences of f - m are taken as normal."""
        spread = abs(gamma) * math.sqrt(self._squares / self._n)
        if self.sampler.temp > 0:  # the expected total variation
            p = probabilities(f / np.float32(self.sampler.temp))
            return 0.4 * spread / self.sampler.temp * float((p * (1 - p)).sum())
        gaps = np.sort(f.max() - f)[1:]
        return sum(0.5 * math.erfc(gap / (math.sqrt(2) * spread + 1e-9)) for gap in gaps)

    def _settle(self) -> Generator[Step, None, Late]:
        """Let the muted stream make all its steps, and decide those that are open; return the last one that stands."""
        late, all_muted = self.contrast.late[-1], self.contrast.follow()
        for late, muted in list(zip(self.contrast.late, all_muted, strict=True))[self._given :]:
            logits, guess, refuted = mixed(late, muted), late.token, False
            if muted:
                sampler = late.before or self.sampler
                late.token = sampler.sample(logits, late.kept)
                self._learn(late.f - muted.m)
                if refuted := sampler is late.before and late.token != guess:
                    self.counts.refuted += 1
                    self.sampler.become(sampler)
                    self.contrast.rewind(late)
                    del self.contrast.late[self._given + 1 :]
            yield self._give(late, logits, muted)
            if refuted:
                break
        self._forget()
        return late

    def _learn(self, d: Logits) -> None:
        """Take note of how far f - m spreads among plausible tokens."""
        if d.size > 1:
            self._squares += 2 * float(d.var())  # the variance of the difference of two of them
            self._n += 1

    def _give(self, late: Late, logits: Logits, muted: Muted | None) -> Step:
        self._given += 1
        self.counts.steps += 1
        self.counts.uncertain += late.kept.size > 1
        if late.p is None:
            return Step(late.token, None, None, None)
        at = int(np.searchsorted(late.kept, late.token))
        p_muted = float(muted.p[at]) if muted and muted.p is not None else None
        return Step(late.token, float(late.p[at]), p_muted, float(probabilities(logits)[at]))

    def _forget(self) -> None:
        self.contrast.late, self._given, self._wrong = [], 0, 0.0
