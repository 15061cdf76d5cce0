"""Preference Contribution Scores: each head is muted in turn, and the user's own text says what that costs.

PCS(l, h) = mean over examples of NLL(y | x, u, head muted) - NLL(y | x, u), in nats per target token
(arXiv 2604.22345). Each history item is an example, and is left out of the profile that the model sees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dps_local.context import N_UBATCH, Context, Run
from dps_local.errors import ModelError, ProfileError
from dps_local.head_map import Head, HeadMap, select, top_k
from dps_local.mixing import nll
from dps_local.model import Model, head_mask
from dps_local.prompt import Prompter
from dps_local.stream import Stream, in_batches

KV_BYTES = 1 << 30  # what the parallel sequences' KV cache may take
LOGIT_BYTES = 256 << 20  # what the logits of one batch may take
MAX_PARALLEL = 16
Progress = Callable[[int, int], None]  # (done, total), in head-evaluations


@dataclass(frozen=True)
class ScoringOptions:
    """scope: which tokens are muted. examples: at most so many history items, the newest. target_tokens: of one item.

    top: how many heads are chosen, None for about 4 %. parallel: sequences at a time, None for what fits.
    """

    scope: Literal["generated", "all"] = "generated"
    examples: int = 12
    target_tokens: int = 32
    top: int | None = None
    gamma: float = 0.5
    parallel: int | None = None
    n_threads: int | None = None


@dataclass(frozen=True)
class Example:
    prompt: list[int]
    target: list[int]


def make_examples(prompter: Prompter, options: ScoringOptions) -> list[Example]:
    """Return the newest history items as (prompt, target) tokens, oldest first."""
    n = len(prompter.profile.history)
    if n == 0:
        raise ProfileError("the profile has no history: heads are scored on what the user wrote")
    pairs = (prompter.example(i) for i in range(max(0, n - options.examples), n))
    examples = [Example(prompt, target[: options.target_tokens]) for prompt, target in pairs]
    if not (examples := [e for e in examples if e.target]):
        raise ProfileError("no history item has a token to score: raise examples and target_tokens above 0")
    return examples


class Scorer:
    """Evaluates many heads per llama_decode: one shared prefix, a sequence per head, each with its own scales.

    Sequence 0 keeps the prefix; sequences 1 to `parallel` branch off it. Every batch of an example has the same
    shape, a short one is filled up with untouched sequences, so the KV cells and kernels of a slot are the same
    with its head muted and without.
    """

    def __init__(self, model: Model, examples: Sequence[Example], options: ScoringOptions) -> None:
        self.model, self.options = model, options
        length = max(len(e.prompt) + len(e.target) for e in examples)
        target = max(len(e.target) for e in examples)
        self.parallel = options.parallel or parallel_sequences(model, length, target)
        self.context = Context(
            model,
            length,
            n_seq=self.parallel + 1,
            n_batch=max(N_UBATCH, self.parallel * target),
            n_outputs=self.parallel * target,
            n_threads=options.n_threads,
            flash_attn=False,  # ggml's tiled CPU kernel needs 64 queries a sequence, and targets are shorter
        )
        self.prefix = Stream(self.context)

    def close(self) -> None:
        self.context.close()

    def losses(
        self, example: Example, heads: Sequence[Head | None], scale: float = 0.0
    ) -> Iterator[NDArray[np.float64]]:
        """Yield the NLL (nats) of each target token with each head scaled in turn: [n, n_target], `parallel` at a time.

        None stands for no head: the untouched model.
        """
        self._read(example)
        for i in range(0, len(heads), self.parallel):
            yield self._batch(example, heads[i : i + self.parallel], scale)

    def _read(self, example: Example) -> None:
        """Put what all sequences share into sequence 0."""
        self.prefix.clear()
        if self.options.scope == "generated":
            self.prefix.replay(in_batches(example.prompt[:-1]))
        for seq in range(1, self.parallel + 1):
            self.context.copy(0, seq)

    def _batch(self, example: Example, heads: Sequence[Head | None], scale: float) -> NDArray[np.float64]:
        scales = {seq: head_mask(self.model, [head], scale) for seq, head in enumerate(heads, 1) if head is not None}
        with self.context.head_scales(scales):
            logits = self._decode(example)
        n_target = len(example.target)
        logits = logits.reshape(self.parallel, n_target, -1)[: len(heads)]
        return np.array([[nll(row, y) for row, y in zip(rows, example.target, strict=True)] for rows in logits])

    def _decode(self, example: Example) -> NDArray[np.float32]:
        """Return logits F32 [parallel * n_target, n_vocab] of the target tokens."""
        seqs = range(1, self.parallel + 1)
        start = len(example.prompt) - 1 if self.options.scope == "generated" else 0
        for seq in seqs:
            if not self.context.truncate(seq, start):
                self.context.copy(0, seq)  # a recurrent state cannot be cut back
        tokens, n_target = [*example.prompt, *example.target[:-1]], len(example.target)
        last = len(example.prompt) - 1
        # 'all' scope: the prompt goes through every sequence, in equal parts that fill a batch
        step = max(1, N_UBATCH // self.parallel)
        for i in range(start, last, step):
            self.context.decode([Run(seq, i, tokens[i : min(i + step, last)]) for seq in seqs])
        return self.context.decode([Run(seq, last, tokens[last:], n_target) for seq in seqs])


def parallel_sequences(model: Model, length: int, target: int) -> int:
    """Return how many sequences to evaluate at a time: enough to fill a batch, no more than memory allows."""
    fits = min(KV_BYTES // max(1, model.kv_bytes * (length + 256)) - 1, LOGIT_BYTES // (4 * model.n_vocab * target))
    return int(max(1, min(MAX_PARALLEL, N_UBATCH // target, fits)))


def score(
    model: Model,
    prompter: Prompter,
    options: ScoringOptions | None = None,
    progress: Progress | None = None,
) -> HeadMap:
    """Score every head of `model` on the profile's history, and choose the best.

    progress is called with (done, total) head-evaluations. Raises ProfileError without history, ModelError when
    no layer of the architecture has heads that can be muted.
    """
    options = options or ScoringOptions()
    heads = model.heads()
    if not heads:
        raise ModelError(f"{model.name}: the architecture {model.architecture!r} has no attention heads to score")
    examples = make_examples(prompter, options)
    scorer = Scorer(model, examples, options)
    try:
        deltas, base, null = _evaluate(scorer, examples, heads, progress)
    finally:
        scorer.close()
    pcs, stderr = _aggregate(model, heads, deltas)
    if np.isnan(pcs).all():
        raise ModelError(f"muting heads has no effect in the architecture {model.architecture!r}: it cannot be steered")
    k = options.top if options.top is not None else top_k(int((~np.isnan(pcs)).sum()))
    return HeadMap(
        model=model.name,
        architecture=model.architecture,
        fingerprint=model.fingerprint,
        scope=options.scope,
        examples=len(examples),
        tokens=sum(len(e.target) for e in examples),
        nll=float(np.mean(base)),
        pcs=pcs,
        pcs_stderr=stderr,
        null_control=null,
        selected=select(pcs, k),
        gamma=options.gamma,
    )


def _evaluate(
    scorer: Scorer, examples: Sequence[Example], heads: Sequence[Head], progress: Progress | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return the change of mean NLL [n_examples, n_heads], the untouched NLL [n_examples] and the null control."""
    deltas, base, null = np.empty((len(examples), len(heads))), np.empty(len(examples)), 0.0
    # the first batch is the untouched model; the slots that the last one has left over are a null control
    fill = -len(heads) % scorer.parallel
    slots: list[Head | None] = [*[None] * scorer.parallel, *heads, *[None] * fill]
    for i, example in enumerate(examples):
        means = []
        for batch in scorer.losses(example, slots):
            means.append(batch.mean(axis=1))
            done = min((len(means) - 1) * scorer.parallel, len(heads))
            if progress and done:
                progress(i * len(heads) + done, deltas.size)
        # each slot is compared with itself: a slot's cells and kernels never differ, another's may
        changes = np.concatenate(means[1:]) - np.tile(means[0], len(means) - 1)
        deltas[i], base[i] = changes[: len(heads)], means[0][0]
        null = max(null, *np.abs(means[0] - means[0][0]), *np.abs(changes[len(heads) :]))
    return deltas, base, float(null)


def _aggregate(
    model: Model, heads: Sequence[Head], deltas: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and standard error over examples [n_layer, n_head_max], NaN where there is nothing to mute."""
    pcs = np.full((model.n_layer, model.n_head_max), np.nan, np.float32)
    stderr = pcs.copy()
    n = len(deltas)
    for column, head in enumerate(heads):
        pcs[head] = deltas[:, column].mean()
        stderr[head] = deltas[:, column].std(ddof=1) / np.sqrt(n) if n > 1 else np.nan
    # a layer whose heads change nothing at all is not reached: recurrent, or attention of the architecture's own
    unreached = [(np.nan_to_num(row) == 0).all() for row in pcs]
    pcs[unreached], stderr[unreached] = np.nan, np.nan
    return pcs, stderr
