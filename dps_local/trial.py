"""`Trial`: held-out text under each way of steering; unlike scoring, this needs the logits of the whole vocabulary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from dps_local.branches import ROWS, Branches, Text, longest
from dps_local.calibration import TEMPERATURES, Candidate
from dps_local.context import Logits, default_threads
from dps_local.model import HeadScales, Model, Scope


class Trial:
    """Runs candidates on held-out texts. texts: all that will be tried."""

    streams = ROWS  # evaluated at a time

    def __init__(
        self,
        model: Model,
        texts: Sequence[Text],
        scope: Scope = "generated",
        n_threads: int | None = None,
    ) -> None:
        self.branches = Branches(model, *longest(texts), ROWS, scope, n_threads)
        self.pool = ThreadPoolExecutor(n_threads or default_threads())  # numpy lets go of the interpreter

    def close(self) -> None:
        self.pool.shutdown()
        self.branches.close()

    def losses(self, text: Text, tried: Sequence[Candidate], scales: Sequence[HeadScales]) -> NDArray[np.float64]:
        """Return the NLL of a text under each candidate, at each temperature: [n_candidates, n_temperatures].

        scales: of the heads in each candidate's own stream; candidates with equal scales share one.
        """
        streams = {scale.tobytes(): scale for scale in scales}
        found = np.empty((len(tried), len(TEMPERATURES)))
        for start in range(0, len(streams), ROWS - 1):
            keys = list(streams)[start : start + ROWS - 1]
            full, *own = self._decode(text, [streams[key] for key in keys])
            for i, (candidate, scale) in enumerate(zip(tried, scales, strict=True)):
                if (key := scale.tobytes()) in keys:
                    found[i] = self._losses(full, own[keys.index(key)], candidate, text.target)
        return found

    def _decode(self, text: Text, scales: Sequence[HeadScales]) -> NDArray[np.float32]:
        """Return logits [ROWS, n_target, n_vocab] of the plain model and under each of the scales."""
        self.branches.read(text)
        context = self.branches.context
        with context.head_scales(dict(enumerate(scales, 2))):
            logits = context.decode(self.branches.runs(text, ROWS))
        return logits.reshape(ROWS, len(text.target), -1)

    def _losses(self, full: Logits, own: Logits, candidate: Candidate, target: Sequence[int]) -> NDArray[np.float64]:
        """Return the mean NLL [n_temperatures] of the target under a candidate whose stream gave the logits `own`.

        full, own: F32 [n_target, n_vocab].
        """
        rows = self.pool.map(lambda f, o, y: _row_losses(f, o, candidate, y), full, own, target)
        return np.asarray(np.mean(list(rows), axis=0))


def _row_losses(full: Logits, own: Logits, candidate: Candidate, y: int) -> list[float]:
    """Return the NLL of token y at each temperature; full, own: F32 [n_vocab]."""
    contrast = candidate.mode == "contrast"
    mixed = full + np.float32(candidate.gamma) * (full - own) if contrast else own
    mixed = mixed - mixed.max()
    scratch, found = np.empty_like(mixed), []
    for t in TEMPERATURES:
        np.exp(np.multiply(mixed, np.float32(1 / t), out=scratch), out=scratch)
        found.append(math.log(float(scratch.sum())) - float(mixed[y]) / t)
    return found
