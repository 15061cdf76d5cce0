"""Decoding of a contrast whose two streams are sequences of one context: one call a token."""

from __future__ import annotations

import threading
from collections.abc import Callable

from dps_local.engine.sampler import Sampler
from dps_local.steering.contrast import Contrast, steered_logits
from dps_local.steering.decoding import Steps, no_room


def together_steps(
    contrast: Contrast,
    sampler: Sampler,
    token: int,
    cancel: threading.Event,
    *,
    make_room: Callable[[], bool] = no_room,
) -> Steps:
    """Decode and sample one token after the other, from `token` on, with both streams in each call.

    Where decoding is bound by memory, as on a GPU, the second stream is nearly free: the weights are read once.
    make_room: as in `plain_steps`.
    """
    full = contrast.full
    while (full.n < full.context.n_ctx or make_room()) and not cancel.is_set():
        step, muted = contrast.step_together(token, sampler)
        logits = steered_logits(step, muted)
        step.token = token = sampler.sample(logits, step.candidates)
        yield contrast.accept(step, logits, muted)
