"""`Explanation`: how far steering moved each token of an answer, what it replaced, and which heads did it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dps_local.chat.session import Session
from dps_local.chat.turn import Token, Turn
from dps_local.engine.context import KV_STEP, MAX_INVARIANT_BATCH
from dps_local.engine.model import Head, HeadScales, Model, Scope
from dps_local.engine.stream import Stream
from dps_local.errors import Remedy, SettingsError
from dps_local.steering.mixing import Logits, log_softmax, plausible, probabilities
from dps_local.steering.steering import Steering, SteeringMode
from dps_local.system.progress import Progress

MAX_AMPLIFIED_HEADS = (
    16  # an amplification scales all heads: those with the largest weights are left out, one at a time
)


@dataclass(frozen=True)
class HeadShare:
    """What a head did to a token: its shift, minus the shift with all steered heads but this one, in nats."""

    layer: int
    head: int
    share: float


@dataclass(frozen=True)
class HeadTotal:
    """What a head did to all tokens of an answer: the sums of its |share| and of its share, in nats."""

    layer: int
    head: int
    moved: float
    net: float


@dataclass(frozen=True)
class ReplacedToken:
    """The plain model's most likely token, where it is neither the steered model's nor the one that was drawn."""

    id: int
    text: str
    p_plain: float
    p_steered: float


@dataclass(frozen=True)
class ExplainedToken:
    """A token of an answer; p_plain and p_steered are those of `Token`.

    p_plausible: the plain probability of all tokens that the plausibility mask leaves; 1 for an amplification.
    shift: ln p_steered - ln(p_plain / p_plausible) in nats, which is what heads did; the mask alone shifts nothing.
    heads: largest |share| first. Shares need not add up to the shift, as heads work on each other.
    """

    id: int
    text: str
    p_plain: float
    p_plausible: float
    p_steered: float
    shift: float
    replaced: ReplacedToken | None = None
    heads: tuple[HeadShare, ...] = ()


@dataclass(frozen=True)
class Explanation:
    """An answer, token by token. steered: how many heads steer; `heads` are those that were left out one at a time."""

    model: str
    question: str
    mode: SteeringMode
    gamma: str
    beta: float
    steered: int
    heads: tuple[Head, ...]
    tokens: tuple[ExplainedToken, ...]

    def totals(self) -> list[HeadTotal]:
        """Return what each head did in total, the one that moved most first."""
        by_head: dict[Head, list[float]] = {head: [] for head in self.heads}
        for share in (share for token in self.tokens for share in token.heads):
            by_head[share.layer, share.head].append(share.share)
        totals = [HeadTotal(*head, sum(map(abs, shares)), sum(shares)) for head, shares in by_head.items()]
        return sorted(totals, key=lambda total: -total.moved)


def steering_of(session: Session) -> Steering:
    """Return what steers a chat; raises SettingsError where there is nothing to explain."""
    if session.steering is None or session.steering.gamma.off:
        raise SettingsError("nothing steers the answer, so there is nothing to explain", Remedy.STEER)
    if session.steering.mode == "cad":
        raise SettingsError(
            "an explanation tells of heads, and CAD steers by none: steer by a contrast or an amplification"
        )
    return session.steering


def explain(session: Session, progress: Progress | None = None, *, shares: bool = True) -> Explanation:
    """Explain the last answer of a chat.

    Its own tokens are read again: by the plain model, under the session's steering, and with each steered head left
    out; of an amplification, the MAX_AMPLIFIED_HEADS heads of largest |weight|. On the CPU the logits are those that
    the answer was drawn from, bit for bit. progress: called with (done, total) tokens. shares: False leaves the heads'
    shares out, and with them most of the time.
    """
    turn, steering = session.turns[-1], steering_of(session)
    heads = _left_out(steering) if shares else []
    tried = [steering, *(_without(steering, head) for head in heads)]
    tokens, shifts = _read_again(session, turn, tried, progress)
    head_shares = shifts[0] - shifts[1:]
    return Explanation(
        session.model.name,
        turn.user,
        steering.mode,
        str(steering.gamma),
        steering.beta if steering.mode == "contrast" else 0.0,
        len(steering.heads),
        tuple(heads),
        tuple(replace(token, heads=_ranked(heads, own)) for token, own in zip(tokens, head_shares.T, strict=True)),
    )


def _left_out(steering: Steering) -> list[Head]:
    away = np.abs(steering.scales - 1)
    order = np.argsort(-away, axis=None, kind="stable")[: np.count_nonzero(away)]
    layers, heads = np.unravel_index(order, away.shape)
    steered = list(zip(layers.tolist(), heads.tolist(), strict=True))
    return steered[:MAX_AMPLIFIED_HEADS] if steering.mode == "amplify" else steered


def _without(steering: Steering, head: Head) -> Steering:
    scales = steering.scales.copy()
    scales[head] = 1
    return replace(steering, scales=scales)


def _ranked(heads: Sequence[Head], shares: NDArray[np.float64]) -> tuple[HeadShare, ...]:
    head_shares = [HeadShare(*head, float(share)) for head, share in zip(heads, shares, strict=True)]
    return tuple(sorted(head_shares, key=lambda share: -abs(share.share)))


def _read_again(
    session: Session, turn: Turn, tried: Sequence[Steering], progress: Progress | None
) -> tuple[list[ExplainedToken], NDArray[np.float64]]:
    """Return the tokens under tried[0], without heads, and the shifts [n_tried, n_tokens] under each of them."""
    n = len(turn.tokens)
    explained, shifts = list[ExplainedToken](), np.empty((len(tried), n))
    with closing(_Reader(session, turn, tried[0].scope)) as reader:
        steps = [AnswerStep(*read, tried[0]) for read in zip(turn.tokens, reader.logits(None), strict=True)]
        for i, steering in enumerate(tried):
            for t, (step, own) in enumerate(zip(steps, reader.logits(steering.own_scales), strict=True)):
                shifts[i, t] = step.shift(own)
                if i == 0:
                    explained.append(step.explained(own, session.model))
                if progress:
                    progress(i * n + t + 1, len(tried) * n)
    return explained, shifts


class _Reader:
    """Reads the tokens of an answer again, in a stream of its own."""

    def __init__(self, session: Session, turn: Turn, scope: Scope) -> None:
        self.scope, self.start = scope, turn.answer
        self.tokens = [turn.pending[-1], *(token.id for token in turn.tokens)][: len(turn.tokens)]
        self.stream = Stream(session.context(batch_invariant=True))
        self.stream.copy_from(session.full)
        self.stream.rewind(self.start)
        self.prompt = self.stream.calls

    def close(self) -> None:
        self.stream.context.close()

    def logits(self, scales: HeadScales | None) -> Iterator[Logits]:
        """Yield the logits F32 [n_vocab] that each token of the answer was drawn from, when heads have these scales."""
        stream, at = self.stream, 0
        stream.scale(scales)
        if self.scope == "generated":
            stream.rewind(self.start)
        else:
            stream.clear()
            stream.replay(self.prompt)
        while batch := self.tokens[at : at + min(MAX_INVARIANT_BATCH, KV_STEP - stream.n % KV_STEP)]:
            yield from stream.decode(batch, len(batch))
            at += len(batch)


class AnswerStep:
    """A step of the plain model, in which the token y was drawn; full: F32 [n_vocab].

    Of the logits it keeps those of plausible tokens, and for an amplification none.
    """

    def __init__(self, token: Token, full: Logits, steering: Steering) -> None:
        self.token, self.steering, contrast = token, steering, steering.mode == "contrast"
        self.kept, self.y = _plausible(full, token.id, steering.beta if contrast else 0.0)
        p, f = probabilities(full), full[self.kept].copy()
        self.p_plain, self.p_plausible = float(p[token.id]), min(float(p[self.kept].sum()), 1.0)
        self.best, self.best_token, self.p_best = int(f.argmax()), int(full.argmax()), float(p.max())
        self.logprob = float(log_softmax(f)[self.y])
        self.gamma, self.full = steering.gamma(full), f if contrast else f[:0].copy()

    def steered(self, own: Logits) -> NDArray[np.float64]:
        """Return ln p of the plausible tokens when the muted, or amplified, stream gives the logits `own` [n_vocab]."""
        return log_softmax(self.steering.mix(self.full, own[self.kept], self.gamma))

    def shift(self, own: Logits) -> float:
        return float(self.steered(own)[self.y]) - self.logprob

    def explained(self, own: Logits, model: Model) -> ExplainedToken:
        p = np.exp(self.steered(own))
        all_p = self.p_plain, self.p_plausible, float(p[self.y])
        return ExplainedToken(self.token.id, self.token.text, *all_p, self.shift(own), self._replaced(p, model))

    def _replaced(self, p_steered: NDArray[np.float64], model: Model) -> ReplacedToken | None:
        if self.best in (int(p_steered.argmax()), self.y):
            return None
        text = model.detokenize([self.best_token]) or model.token_text(self.best_token)  # that of an end token
        return ReplacedToken(self.best_token, text, self.p_best, float(p_steered[self.best]))


def _plausible(full: Logits, y: int, beta: float) -> tuple[NDArray[np.intp] | slice, int]:
    """Return the plausible tokens, and the place of y among them."""
    if beta <= 0:
        return slice(None), y
    mask = plausible(full, beta)
    mask[y] = True  # it was when it was drawn: rounding on a GPU shall not rule it out
    kept = np.flatnonzero(mask)
    return kept, int(np.searchsorted(kept, y))
