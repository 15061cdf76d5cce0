"""`Step`: a sampled token of an answer; and the steps of one stream alone."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dps_local.engine.context import N_TOP
from dps_local.engine.sampler import Sampler
from dps_local.engine.stream import Stream
from dps_local.steering.mixing import Logits, probabilities

Engine = Literal["auto", "eager", "speculative", "together"]
Steps = Generator["Step", None, None]


class TopToken(NamedTuple):
    """A token that might have been sampled, and its steered probability. piece: its bytes, in a `Token`."""

    id: int
    p: float
    piece: bytes = b""


@dataclass(frozen=True)
class Step:
    """A sampled token, with its probability without, with muted, and with steered heads; None where not asked for.

    top: the most probable tokens, as many as were asked for, best first; those that the plausibility mask rules out
    are none of them. p_plausible: of a contrast, the plain probability of all tokens that the mask leaves.
    """

    id: int
    p_plain: float | None  # None too where heads were amplified in the one stream
    p_muted: float | None  # None too where not all logits of the muted stream were needed
    p_steered: float | None
    top: tuple[TopToken, ...] = field(default=(), kw_only=True)
    p_plausible: float | None = field(default=None, kw_only=True)

    @property
    def shift(self) -> float | None:
        """How far heads moved the token, in nats, as in an explanation: the mask alone moves nothing."""
        if not (self.p_plain and self.p_plausible and self.p_steered):
            return None
        return math.log(self.p_steered) - math.log(self.p_plain / self.p_plausible)


def most_probable(p: Logits, n: int, ids: NDArray[np.integer] | None = None) -> tuple[TopToken, ...]:
    """Return the n most probable tokens. p: probabilities of all, or of those in `ids`."""
    best = np.argsort(-p, kind="stable")[:n]
    return tuple(TopToken(int(i if ids is None else ids[i]), float(p[i])) for i in best)


def no_room() -> bool:
    """Leave a full context as it is."""
    return False


def plain_steps(
    stream: Stream,
    sampler: Sampler,
    token: int,
    cancel: threading.Event,
    *,
    plain: bool = True,
    probs: bool = False,
    n_top: int = 0,
    make_room: Callable[[], bool] = no_room,
) -> Steps:
    """Decode and sample one token after the other, from `token` on.

    plain: the heads are as they are. probs: probabilities are asked for. n_top: of `Step.top`. make_room: is called
    when the context is full, to shorten the stream; False when it cannot, and the answer ends.
    """
    picks = stream.context.model.offloads_output and not probs and sampler.needs_few(N_TOP)
    while (stream.n < stream.context.n_ctx or make_room()) and not cancel.is_set():
        if picks:
            top = stream.context.decode_top([stream.run([token], 1)], N_TOP)
            stream.record([token])
            token = sampler.sample(top.logits[0], top.tokens)
            yield Step(token, None, None, None)
            continue
        f = stream.decode([token], 1)[0]
        token = sampler.sample_last(stream.context, f)
        if not probs:
            yield Step(token, None, None, None)
            continue
        all_p = probabilities(f)
        p = float(all_p[token])
        yield Step(token, p if plain else None, None, p, top=most_probable(all_p, n_top) if n_top else ())
