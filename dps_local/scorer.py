"""`Scorer`: what the user's own text loses when a head is scaled, many heads at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dps_local import memory
from dps_local.context import KEEP_LAYERS, N_UBATCH, Context, Run
from dps_local.errors import NativeError
from dps_local.evidence import Effects, effects_of
from dps_local.model import Head, Model, head_mask
from dps_local.stream import Stream, in_batches

MAX_PARALLEL = 32  # sequences; more bring nothing on a CPU, and each holds a copy of the prompt's KV cache
MEMORY_SHARE = 0.5  # of what is free
ROWS = 4  # ggml's kernels take rows by four, and a remainder in another way, which rounds differently
MANY_ROWS = 8  # from which on K-quants are multiplied as in any larger batch
MAX_TARGET = N_UBATCH // ROWS  # tokens


@dataclass(frozen=True)
class Text:
    """What is scored: the tokens of a prompt, and of what the user wrote after it."""

    prompt: list[int]
    target: list[int]


class Scorer:
    """Evaluates many heads per llama_decode: one shared prefix, a sequence per head, each with its own scales.

    Sequence 0 keeps the prefix; sequences 1 to `parallel` branch off it. The first of them stays untouched, and the
    graph compares the others with it; slots that are left over stay untouched, too, and are a null control. Below
    the lowest layer that is scaled nothing changes: a first batch of ROWS sequences keeps every layer's output of a
    text, and the others start from there ('generated' scope only).

    length, target: of the longest text, in tokens. scale: of the head that is evaluated, 0 = muted. parallel: heads
    at a time; None for as many as fill a batch and fit into half of the memory that is free.
    """

    def __init__(
        self,
        model: Model,
        length: int,
        target: int,
        *,
        scope: Literal["generated", "all"] = "generated",
        scale: float = 0.0,
        parallel: int | None = None,
        n_threads: int | None = None,
    ) -> None:
        self.model, self.scope, self.scale = model, scope, scale
        self.parallel = parallel_sequences(model, length, target, parallel)
        while True:
            try:
                self.context = self._context(length, target, n_threads)
                break
            except NativeError:
                if self.parallel == ROWS:
                    raise
                self.parallel = max(ROWS, self.parallel // (2 * ROWS) * ROWS)
        self.prefix = Stream(self.context)

    def _context(self, length: int, target: int, n_threads: int | None) -> Context:
        return Context(
            self.model,
            length,
            n_seq=self.parallel + 1,
            n_outputs=self.parallel * target,
            n_threads=n_threads,
            flash_attn=False,  # ggml's tiled CPU kernel needs 64 queries a sequence, and targets are shorter
        )

    @property
    def heads_at_a_time(self) -> int:
        return self.parallel - 1

    def close(self) -> None:
        self.context.close()

    def read(self, text: Text) -> tuple[float, float]:
        """Put a text's prompt into all sequences, and evaluate it untouched.

        Return the NLL of its target, nats per token, and the largest effect in a slot that nothing was done to.
        """
        self.text = text
        shared = in_batches(text.prompt[:-1]) if self.scope == "generated" else []
        if self.prefix.calls != shared or not shared:
            self.prefix.clear()
            self.prefix.replay(shared)
            for seq in self._seqs:
                self.context.copy(0, seq)
        few = ROWS if ROWS * len(text.target) >= MANY_ROWS else self.parallel
        p, effects = self._compare([], KEEP_LAYERS if self.scope == "generated" else 0, few)
        return float(-np.log(p[0]).mean()), float(np.abs(effects).max())

    def null_control(self) -> float:
        """Return the largest effect that doing nothing has in any slot, with all layers computed; 0 on a CPU."""
        return float(np.abs(self._compare([], 0, self.parallel)[1]).max())

    def effects(self, heads: Sequence[Head]) -> tuple[Effects, float]:
        """Evaluate at most `heads_at_a_time` heads on the text that was read; return the null control, too.

        The layers below the lowest head are not computed: heads of the same layers should stand together.
        """
        start = min(layer for layer, _ in heads) if self.scope == "generated" else 0
        _, effects = self._compare(heads, start, self.parallel)
        return effects[: len(heads)], float(np.abs(effects[len(heads) :]).max(initial=0.0))

    @property
    def _seqs(self) -> range:
        return range(1, self.parallel + 1)

    def _compare(self, heads: Sequence[Head], layer_start: int, parallel: int) -> tuple[NDArray[np.float64], Effects]:
        """Return p [parallel, n_target] of each target token, and the effects of the slots after the first."""
        seqs = self._seqs[:parallel]
        prompt, target = self.text.prompt, self.text.target
        last = len(prompt) - 1
        start = last if self.scope == "generated" else 0
        for seq in seqs:
            if not self.context.truncate(seq, start):
                self.context.copy(0, seq)  # a recurrent state cannot be cut back
        scales = {seq: head_mask(self.model, [head], self.scale) for seq, head in enumerate(heads, 2)}
        with self.context.head_scales(scales):
            # 'all' scope: the prompt goes through every sequence, in equal parts that fill a batch
            step = max(1, N_UBATCH // parallel)
            for i in range(start, last, step):
                self.context.decode([Run(seq, i, prompt[i : min(i + step, last)]) for seq in seqs])
            tokens = [prompt[last], *target[:-1]]
            runs = [Run(seq, last, tokens, len(target)) for seq in seqs]
            compared = self.context.compare(runs, target, layer_start).astype(np.float64)
        p, d, mean, square = np.moveaxis(compared, -1, 0)
        return p, effects_of(p, d, mean, square)[1:]


def parallel_sequences(model: Model, length: int, target: int, wanted: int | None = None) -> int:
    """Return how many sequences to evaluate at a time, a multiple of ROWS: they must fit into one micro-batch.

    wanted: heads at a time; None for what fits into half of the free memory.
    """
    if wanted is None:
        layers = 4 * N_UBATCH * model.n_layer * model.n_embd  # their outputs are kept
        fits = int((MEMORY_SHARE * memory.available() - layers) / sequence_bytes(model, length, target)) - 1
    else:
        fits = wanted + ROWS
    return max(ROWS, min(MAX_PARALLEL, N_UBATCH // target, fits) // ROWS * ROWS)


def sequence_bytes(model: Model, length: int, target: int) -> int:
    """Return what one more sequence takes: its KV cache, its logits and their differences, its layers' outputs."""
    per_token = 3 * model.n_vocab + 2 * model.n_layer * model.n_embd
    return model.kv_bytes * (length + 256) + 4 * target * per_token
