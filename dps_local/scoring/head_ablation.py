"""`HeadAblation`: what the user's own text loses when a head is scaled, many heads at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
from numpy.typing import NDArray

from dps_local.engine.context import KV_STEP, N_UBATCH, Logits
from dps_local.engine.model import Head, Model, Scope, head_mask
from dps_local.errors import NativeError
from dps_local.scoring.forked_sequences import KERNEL_ROWS, ForkedSequences, ScoredText
from dps_local.scoring.head_effects import Effects, effects_of

MAX_PARALLEL = 32  # sequences; more bring nothing on a CPU, and each holds a copy of the prompt's KV cache
MEMORY_SHARE = 0.5  # of what is free
MANY_ROWS = 8  # from which on K-quants are multiplied as in any larger batch


class HeadAblation:
    """Evaluates many heads per llama_decode: a sequence for each, forked from one prompt, with scales of its own.

    The first sequence stays untouched, and the graph compares the others with it; slots that are left over stay
    untouched, too, and are a null control. Below the lowest layer that is scaled nothing changes: of a first batch of
    KERNEL_ROWS sequences every layer's output is kept, and the others start from there ('generated' scope only).

    A device may compute equal tokens of one batch differently: there, the batch of each length of target is the largest
    in which doing nothing changes exactly nothing, found by trying; where there is none, it is the largest of all.

    length, target: of the longest text, in tokens. scale: of the head that is evaluated, 0 = muted. parallel: heads
    at a time; None for as many as fill a batch and fit into half of the memory that is free.
    """

    def __init__(
        self,
        model: Model,
        length: int,
        target: int,
        *,
        scope: Scope = "generated",
        scale: float = 0.0,
        parallel: int | None = None,
        n_threads: int | None = None,
    ) -> None:
        self.model, self.length, self.target, self.scope, self.scale = model, length, target, scope, scale
        self.n_threads = n_threads
        self.outputs: dict[int, Logits] = {}  # of each layer, F32 [n_tokens, n_embd], for the text that was read
        self.parallel = parallel_sequences(model, length, target, parallel)
        self._rehearsed = False  # whether the largest batch is known to fit into memory
        self._shapes: dict[int, tuple[int, float]] = {}  # by length of target: sequences of a batch, null control
        self.sequences = self._fork()

    @property
    def heads_at_a_time(self) -> int:
        """How many heads a batch evaluates; another number for each text, on a device."""
        return self.parallel - 1

    def close(self) -> None:
        self.sequences.close()

    def read(self, text: ScoredText) -> tuple[float, float]:
        """Put a text's prompt into all sequences, and evaluate it untouched.

        Return the NLL of its target, nats per token, and the largest effect in a slot that nothing was done to.
        """
        null = 0.0 if self._rehearsed else self._rehearse(text)
        self.text = text
        self.sequences.read(text)
        if self.model.offloads:
            if len(text.target) not in self._shapes:
                self._shapes[len(text.target)] = self._most_exact()
            self.parallel, null = self._shapes[len(text.target)]
        nll, untouched = self._read()
        return nll, max(null, untouched)

    def _fork(self) -> ForkedSequences:
        """Return so many sequences, or fewer where memory does not hold them."""
        while True:
            try:
                return ForkedSequences(self.model, self.length, self.target, self.parallel, self.scope, self.n_threads)
            except NativeError as exc:
                self._take_fewer(exc)

    def _rehearse(self, text: ScoredText) -> float:
        """Compute the largest batch there will be, with fewer sequences where it does not fit; return its null control.

        What compares the sequences is not in the memory that llama.cpp reserves for a context.
        """
        target = max(len(text.target), min(self.target, self.length - len(text.prompt)))
        self.text = ScoredText(text.prompt, (text.target * target)[:target])
        while True:
            try:
                self.sequences.read(self.text)
                null = self.null_control()
                break
            except NativeError as exc:
                self.sequences.close()
                self._take_fewer(exc)
                self.sequences = self._fork()
        self._rehearsed = True
        return null

    def _take_fewer(self, error: NativeError) -> None:
        """Halve the sequences; raise the error where there are no fewer."""
        fewer = halved(self.parallel, self.model.offloads)
        if fewer == self.parallel:
            raise error
        self.parallel = fewer

    def _most_exact(self) -> tuple[int, float]:
        """Return in how many sequences the text is computed most exactly, and the null control there."""
        self.parallel, tried = self.sequences.n, list[tuple[int, float]]()
        while True:
            null = max(self._read()[1], self.null_control())
            tried.append((self.parallel, null))
            fewer = halved(self.parallel, self.model.offloads)
            if null == 0:
                return tried[-1]
            if fewer == self.parallel:
                return tried[0]
            self.parallel = fewer

    def _read(self) -> tuple[float, float]:
        """Evaluate the text untouched, and keep what layers put out; return as `read`."""
        few = math.gcd(KERNEL_ROWS, self.parallel)  # the others start from whole copies of these
        if few * len(self.text.target) < MANY_ROWS:
            few = self.parallel
        layers = range(self.model.n_layer if self.scope == "generated" else 0)
        with self.sequences.context.keep_layers(layers):
            p, effects = self._compare([], few)
        outputs = {layer: self.sequences.context.layer_output(layer, few * len(self.text.target)) for layer in layers}
        self.outputs = {layer: output for layer, output in outputs.items() if output is not None}
        return float(-np.log(p[0]).mean()), float(np.abs(effects).max(initial=0.0))

    def null_control(self) -> float:
        """Return the largest effect that doing nothing has in any slot, with all layers computed; 0 on a CPU."""
        return float(np.abs(self._compare([], self.parallel)[1]).max())

    def effects(self, heads: Sequence[Head]) -> tuple[Effects, float]:
        """Evaluate at most `heads_at_a_time` heads on the text that was read; return the null control, too.

        The layers below the lowest head are not computed: heads of the same layers should stand together.
        """
        _, effects = self._compare(heads, self.parallel)
        return effects[: len(heads)], float(np.abs(effects[len(heads) :]).max(initial=0.0))

    def _compare(self, heads: Sequence[Head], parallel: int) -> tuple[NDArray[np.float64], Effects]:
        """Return p [parallel, n_target] of each target token, and the effects of the slots after the first."""
        scales = {seq: head_mask(self.model, [head], self.scale) for seq, head in enumerate(heads, 2)}
        context = self.sequences.context
        with context.head_scales(scales):
            runs = self.sequences.runs(self.text, parallel)
            with self._above_what_stays(heads):
                compared = context.compare(runs, self.text.target).astype(np.float64)
        p, d, mean, square = np.moveaxis(compared, -1, 0)
        return p, effects_of(p, d, mean, square)[1:]

    def _above_what_stays(self, heads: Sequence[Head]) -> AbstractContextManager[None]:
        """Start above the layers that none of these heads changes, from what was kept of them."""
        start = self.model.layer_start(min((layer for layer, _ in heads), default=0))
        while start and start - 1 not in self.outputs:
            start = self.model.layer_start(start - 1)
        return self.sequences.context.start_at(start, self.outputs[start - 1]) if start else nullcontext()


def parallel_sequences(model: Model, length: int, target: int, wanted: int | None = None) -> int:
    """Return how many sequences to evaluate at a time, a multiple of KERNEL_ROWS: they must fit into one micro-batch.

    wanted: heads at a time; None for what fits into half of the memory that is free, of the host and of GPUs.
    """
    if wanted is None:
        layers = (
            3 * 4 * KERNEL_ROWS * target * model.n_layer * model.n_embd
        )  # their outputs, here and twice in llama.cpp
        fits = int((MEMORY_SHARE * model.free_memory() - layers) / sequence_bytes(model, length, target)) - 1
    else:
        fits = wanted + KERNEL_ROWS
    return max(KERNEL_ROWS, min(MAX_PARALLEL, N_UBATCH // target, fits) // KERNEL_ROWS * KERNEL_ROWS)


def halved(parallel: int, on_device: bool) -> int:
    """Return half as many sequences, rounded down; the same where there can be no fewer.

    On the CPU they are a multiple of KERNEL_ROWS; on a device they are at least two, one of them untouched.
    """
    step, least = (1, 2) if on_device else (KERNEL_ROWS, KERNEL_ROWS)
    return max(least, parallel // (2 * step) * step)


def sequence_bytes(model: Model, length: int, target: int) -> int:
    """Return what one more sequence takes: KV cells in steps of KV_STEP, its logits, and how they differ."""
    cells = -(-length // KV_STEP) * KV_STEP
    return model.kv_bytes * cells + 4 * target * 2 * model.n_vocab
