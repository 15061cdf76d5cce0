"""`Step`: a sampled token of an answer; and the steps of one stream alone."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Literal

from dps_local.engine.sampler import Sampler
from dps_local.engine.stream import Stream
from dps_local.steering.mixing import probabilities

Engine = Literal["auto", "eager", "speculative"]
Steps = Generator["Step", None, None]


@dataclass(frozen=True)
class Step:
    """A sampled token, with its probability without, with muted, and with steered heads; None where not asked for.

    p_plausible: of a contrast, the plain probability of all tokens that the plausibility mask leaves.
    """

    id: int
    p_plain: float | None  # None too where heads were amplified in the one stream
    p_muted: float | None  # None too where not all logits of the muted stream were needed
    p_steered: float | None
    p_plausible: float | None = field(default=None, kw_only=True)

    @property
    def shift(self) -> float | None:
        """How far heads moved the token, in nats, as in an explanation: the mask alone moves nothing."""
        if not (self.p_plain and self.p_plausible and self.p_steered):
            return None
        return math.log(self.p_steered) - math.log(self.p_plain / self.p_plausible)


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
    make_room: Callable[[], bool] = no_room,
) -> Steps:
    """Decode and sample one token after the other, from `token` on.

    plain: the heads are as they are. probs: probabilities are asked for. make_room: is called when the context is
    full, to shorten the stream; False when it cannot, and the answer ends.
    """
    while (stream.n < stream.context.n_ctx or make_room()) and not cancel.is_set():
        f = stream.decode([token], 1)[0]
        token = sampler.sample_last(stream.context, f)
        p = float(probabilities(f)[token]) if probs else None
        yield Step(token, p if plain else None, None, p)
