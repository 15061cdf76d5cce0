"""`Trial`: held-out text under each way of steering; unlike scoring, this needs the logits of the whole vocabulary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dps_local.calibration import TEMPERATURES, Candidate
from dps_local.context import N_UBATCH, Context, HeadScales, Run, default_threads
from dps_local.model import Model
from dps_local.scorer import ROWS, Text
from dps_local.stream import Stream, in_batches


class Trial:
    """Runs candidates on held-out texts. texts: all that will be tried."""

    streams = ROWS  # evaluated at a time

    def __init__(
        self,
        model: Model,
        texts: Sequence[Text],
        scope: Literal["generated", "all"] = "generated",
        n_threads: int | None = None,
    ) -> None:
        self.scope = scope
        length = max(len(text.prompt) + len(text.target) for text in texts)
        target = max(len(text.target) for text in texts)
        self.context = Context(
            model, length, n_seq=ROWS + 1, n_outputs=ROWS * target, n_threads=n_threads, flash_attn=False
        )
        self.prefix = Stream(self.context)

    def close(self) -> None:
        self.context.close()

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
                    found[i] = _losses(full, own[keys.index(key)], candidate, text.target)
        return found

    def _decode(self, text: Text, scales: Sequence[HeadScales]) -> NDArray[np.float32]:
        """Return logits [ROWS, n_target, n_vocab] of the plain model and under each of the scales."""
        last, seqs = len(text.prompt) - 1, range(1, ROWS + 1)
        shared = in_batches(text.prompt[:-1])
        if self.scope == "all":
            for seq in seqs:
                self.context.truncate(seq, 0)
        else:
            if self.prefix.calls != shared:
                self.prefix.clear()
                self.prefix.replay(shared)
            for seq in seqs:
                self.context.copy(0, seq)
        tokens = [text.prompt[last], *text.target[:-1]]
        with self.context.head_scales(dict(enumerate(scales, 2))):
            if self.scope == "all":
                step = N_UBATCH // ROWS
                for i in range(0, last, step):
                    self.context.decode([Run(seq, i, text.prompt[i : min(i + step, last)]) for seq in seqs])
            logits = self.context.decode([Run(seq, last, tokens, len(tokens)) for seq in seqs])
        return logits.reshape(ROWS, len(tokens), -1)


def _losses(
    full: NDArray[np.float32], own: NDArray[np.float32], candidate: Candidate, target: Sequence[int]
) -> NDArray[np.float64]:
    """Return the mean NLL [n_temperatures] of the target under a candidate whose stream gave the logits `own`."""
    contrast = candidate.mode == "contrast"

    def row(i: int) -> list[float]:
        mixed = full[i] + np.float32(candidate.gamma) * (full[i] - own[i]) if contrast else own[i]
        mixed = mixed - mixed.max()
        y, scratch = float(mixed[target[i]]), np.empty_like(mixed)
        found = []
        for t in TEMPERATURES:
            np.exp(np.multiply(mixed, np.float32(1 / t), out=scratch), out=scratch)
            found.append(math.log(float(scratch.sum())) - y / t)
        return found

    with ThreadPoolExecutor(default_threads()) as pool:  # numpy lets go of the interpreter
        rows = list(pool.map(row, range(len(target))))
    return np.asarray(np.mean(rows, axis=0))
