"""`HeldOutLosses`: the NLL of held-out text under each steering, from the logits of the whole vocabulary."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from dps_local.engine.context import Logits, default_threads
from dps_local.engine.model import HeadScales, Model, Scope
from dps_local.scoring.calibrate import TEMPERATURES
from dps_local.scoring.forked_sequences import KERNEL_ROWS, ForkedSequences, ScoredText, longest
from dps_local.steering.steering import Steering

Mix = Callable[[Logits, Logits], Logits]  # from a token's logits f and those of an own stream to steered ones


class HeldOutLosses:
    """Computes the NLL of held-out texts. texts: all that will be tried."""

    streams = KERNEL_ROWS  # evaluated at a time

    def __init__(
        self,
        model: Model,
        texts: Sequence[ScoredText],
        scope: Scope = "generated",
        n_threads: int | None = None,
    ) -> None:
        self.sequences = ForkedSequences(model, *longest(texts), KERNEL_ROWS, scope, n_threads)
        self.pool = ThreadPoolExecutor(n_threads or default_threads())  # numpy lets go of the interpreter

    def close(self) -> None:
        self.pool.shutdown()
        self.sequences.close()

    def of(self, text: ScoredText, steerings: Sequence[Steering]) -> NDArray[np.float64]:
        """Return the mean NLL of a text under each steering, at each temperature: [n_steerings, n_temperatures]."""
        return np.asarray(self.by_token(text, steerings).mean(axis=1))

    def by_token(self, text: ScoredText, steerings: Sequence[Steering]) -> NDArray[np.float64]:
        """Return the NLL of each token of a text's target: [n_steerings, n_target, n_temperatures].

        Steerings whose own streams have equal scales share one.
        """
        scales = [steering.own_scales for steering in steerings]
        keys = [scale.tobytes() for scale in scales]
        losses = np.empty((len(steerings), len(text.target), len(TEMPERATURES)))
        for full, own in self.compared(text, dict(zip(keys, scales, strict=True))):
            for i, key in enumerate(keys):
                if key in own:
                    losses[i] = self.token_losses(steerings[i].mix, full, own[key], text.target)
        return losses

    def compared(
        self, text: ScoredText, scales: dict[bytes, HeadScales]
    ) -> Iterator[tuple[Logits, dict[bytes, Logits]]]:
        """Yield logits [n_target, n_vocab] of the plain model, and under some of the scales, until all have been.

        Those that scale nothing are the plain model's. The arrays are llama.cpp's own buffer: the next step overwrites
        them.
        """
        keys = [key for key, scale in scales.items() if (scale != 1).any()]
        plain = scales.keys() - keys
        for start in range(0, len(keys) or len(plain), KERNEL_ROWS - 1):
            part = keys[start : start + KERNEL_ROWS - 1]
            full, *own = self._decode(text, [scales[key] for key in part])
            found = dict(zip(part, own, strict=False))  # sequences may be left over
            yield full, found if start else found | dict.fromkeys(plain, full)

    def plain(self, text: ScoredText) -> Logits:
        """Return the logits F32 [n_target, n_vocab] of the plain model."""
        return np.array(self._decode(text, [])[0])

    def _decode(self, text: ScoredText, scales: Sequence[HeadScales]) -> NDArray[np.float32]:
        """Return logits [KERNEL_ROWS, n_target, n_vocab] of the plain model and under each of the scales."""
        self.sequences.read(text)
        context = self.sequences.context
        with context.head_scales(dict(enumerate(scales, 2))):
            logits = context.decode(self.sequences.runs(text, KERNEL_ROWS))
        return logits.reshape(KERNEL_ROWS, len(text.target), -1)

    def token_losses(self, mix: Mix, full: Logits, own: Logits, target: Sequence[int]) -> NDArray[np.float64]:
        """Return the NLL [n_target, n_temperatures] of each token of the target; full, own: F32 [n_target, n_vocab]."""
        return np.array(list(self.pool.map(lambda f, o, y: _row_losses(mix(f, o), y), full, own, target)))


def _row_losses(steered: Logits, y: int) -> list[float]:
    """Return the NLL of token y at each temperature; steered: F32 [n_vocab]."""
    steered = steered - steered.max()
    scratch, losses = np.empty_like(steered), []
    for t in TEMPERATURES:
        np.exp(np.multiply(steered, np.float32(1 / t), out=scratch), out=scratch)
        losses.append(math.log(float(scratch.sum())) - float(steered[y]) / t)
    return losses
