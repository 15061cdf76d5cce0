"""`ScoringBench`: how fast this machine scores, as ratios of what llama.cpp does by itself in the same run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from dps_local.engine.context import N_UBATCH, Context, Run
from dps_local.engine.model import Head, Model, head_mask
from dps_local.engine.stream import Stream, in_batches
from dps_local.scoring.forked_sequences import ScoredText
from dps_local.scoring.head_ablation import HeadAblation
from dps_local.steering.mixing import nll
from dps_local.system.progress import Progress


@dataclass(frozen=True)
class ScoringTimes:
    """Seconds of one repeat: reading the prompt, all batches of heads, prompt processing, brute force for one head.

    brute: a full forward with logits at every position, as the paper's code does it. lean: with those of the target.
    """

    read: float
    batches: float
    prompt: float
    brute: float
    lean: float


@dataclass(frozen=True)
class ScoringBench:
    """Times of `repeats`, taken in turn; what is derived is the median over them.

    heads_at_a_time: with the untouched sequence, and its targets, that makes the batch of prompt processing as well.
    """

    model: str
    heads: int
    heads_at_a_time: int
    prompt_tokens: int
    target_tokens: int
    repeats: list[ScoringTimes]

    def scored_tokens_per_s(self) -> float:
        """Target tokens of all heads by the time of the batches, the untouched one included."""
        return median(self.heads * self.target_tokens / t.batches for t in self.repeats)

    def prompt_tokens_per_s(self) -> float:
        """llama.cpp's own prompt processing with logits at every position, in a batch of as many tokens."""
        return median((self.heads_at_a_time + 1) * self.target_tokens / t.prompt for t in self.repeats)

    def ratios(self) -> list[float]:
        work = self.heads / (self.heads_at_a_time + 1)
        return [work * t.prompt / t.batches for t in self.repeats]

    def speedups(self) -> list[float]:
        """A full forward for each head, by the time that all heads take here, reading the prompt included."""
        return [self.heads * t.brute / (t.read + t.batches) for t in self.repeats]

    def lean_speedups(self) -> list[float]:
        """The same, for a brute force that leaves the logits of the prompt out."""
        return [self.heads * t.lean / (t.read + t.batches) for t in self.repeats]

    def as_json(self) -> dict[str, Any]:
        return {
            **{k: v for k, v in asdict(self).items() if k != "repeats"},
            "scored_tokens_per_s": self.scored_tokens_per_s(),
            "prompt_tokens_per_s": self.prompt_tokens_per_s(),
            "ratio": median(self.ratios()),
            "ratios": self.ratios(),
            "brute_force_speedup": median(self.speedups()),
            "brute_force_speedups": self.speedups(),
            "lean_brute_force_speedup": median(self.lean_speedups()),
            "repeats": [asdict(t) for t in self.repeats],
        }


def bench_scoring(
    model: Model,
    prompt_tokens: int = 250,
    target_tokens: int = 25,
    repeats: int = 3,
    parallel: int | None = None,
    n_threads: int | None = None,
    progress: Progress | None = None,
) -> ScoringBench:
    """Time scoring of all heads, prompt processing and brute force in turn, on random tokens."""
    tokens = np.random.default_rng(0).integers(0, model.n_vocab, prompt_tokens + target_tokens).tolist()
    text = ScoredText(tokens[:prompt_tokens], tokens[prompt_tokens:])
    times = []
    for i in range(repeats):
        ablation = HeadAblation(model, len(tokens), target_tokens, parallel=parallel, n_threads=n_threads)
        size = ablation.heads_at_a_time
        try:
            read, batches = _scoring(ablation, text)
        finally:
            ablation.close()
        prompt = _prompt_processing(model, (size + 1) * target_tokens, n_threads)
        brute, lean = (_brute_force(model, text, everywhere, n_threads) for everywhere in (True, False))
        times.append(ScoringTimes(read, batches, prompt, brute, lean))
        if progress:
            progress(i + 1, repeats)
    return ScoringBench(model.name, len(model.heads()), size, prompt_tokens, target_tokens, times)


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _scoring(ablation: HeadAblation, text: ScoredText) -> tuple[float, float]:
    """Return the seconds of reading the prompt, and of evaluating all heads, the untouched batch included."""
    ablation.read(ScoredText(text.prompt[1:], text.target))
    ablation.null_control()  # touches memory that a run of many texts finds ready
    first = _seconds(lambda: ablation.read(text))
    untouched = _seconds(lambda: ablation.read(text))  # the prompt is there already
    heads, size = ablation.model.heads(), ablation.heads_at_a_time
    batches = [heads[i : i + size] for i in range(0, len(heads), size)]
    return first - untouched, untouched + sum(_seconds(partial(ablation.effects, batch)) for batch in batches)


def _prompt_processing(model: Model, n: int, n_threads: int | None) -> float:
    """Return the median seconds that llama.cpp takes for a batch of n tokens with all their logits."""
    context = Context(model, n, n_outputs=n, n_threads=n_threads)
    tokens = np.random.default_rng(1).integers(0, model.n_vocab, n).tolist()

    def once() -> float:
        context.truncate(0, 0)
        return _seconds(lambda: context.decode([Run(0, 0, tokens, n)]))

    try:
        once()  # the first touches memory that the others find ready
        return median(once() for _ in range(3))
    finally:
        context.close()


def _brute_force(model: Model, text: ScoredText, everywhere: bool, n_threads: int | None) -> float:
    """Return the median seconds of a full forward with one head muted, up to the NLL of the target.

    everywhere: with the logits of the prompt, too. The head is muted from the last prompt token on.
    """
    n = len(text.target)
    context = Context(model, len(text.prompt) + n, n_outputs=N_UBATCH if everywhere else n, n_threads=n_threads)
    stream = Stream(context)

    def once(head: Head) -> None:
        stream.clear()
        for part in in_batches(text.prompt[:-1]):
            stream.decode(part, len(part) if everywhere else 0)
        with context.head_scales({0: head_mask(model, [head])}):
            logits = stream.decode([text.prompt[-1], *text.target[:-1]], n)
        sum(nll(row, y) for row, y in zip(logits, text.target, strict=True))

    try:
        heads = model.heads()
        once(heads[0])
        return median(_seconds(partial(once, head)) for head in (heads[0], heads[len(heads) // 2], heads[-1]))
    finally:
        context.close()
