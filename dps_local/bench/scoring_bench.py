"""`ScoringBench`: how fast this machine scores, as ratios of what llama.cpp does by itself in the same run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from dps_local.engine.context import N_UBATCH, Context, Run
from dps_local.engine.model import Head, Model, head_mask
from dps_local.engine.stream import Stream, in_batches
from dps_local.errors import NoSlopesError
from dps_local.scoring.forked_sequences import ScoredText
from dps_local.scoring.head_ablation import HeadAblation
from dps_local.scoring.head_slopes import N_SEQ, HeadSlopes, longest_target
from dps_local.steering.mixing import nll
from dps_local.system.progress import Progress


@dataclass(frozen=True)
class ScoringTimes:
    """Seconds of one repeat: reading the prompt, all batches of heads, prompt processing, brute force for one head.

    brute: a full forward with logits at every position, as the paper's code does it. lean: with those of the target.
    slopes: one backward pass, None where the architecture has none. null_control: the largest effect of doing nothing.
    """

    read: float
    batches: float
    prompt: float
    brute: float
    lean: float
    slopes: float | None
    null_control: float


@dataclass(frozen=True)
class ScoringBench:
    """Times of `repeats`, taken in turn; what is derived is the median over them.

    heads_at_a_time: with the untouched sequence, and its targets, that makes the batch of prompt processing as well.
    most_heads_at_a_time: what memory and a micro-batch hold; fewer are taken where more are not exact on a device.
    slope_texts: with target_tokens each, that one backward pass differentiates.
    """

    model: str
    heads: int
    heads_at_a_time: int
    most_heads_at_a_time: int
    prompt_tokens: int
    target_tokens: int
    slope_texts: int
    repeats: list[ScoringTimes]

    def scored_tokens_per_s(self) -> float:
        """Target tokens of all heads by the time of the batches, the untouched one included."""
        return median(self.heads * self.target_tokens / t.batches for t in self.repeats)

    def prompt_tokens_per_s(self) -> float:
        """llama.cpp's own prompt processing with logits at every position, in a batch of as many tokens."""
        return median((self.heads_at_a_time + 1) * self.target_tokens / t.prompt for t in self.repeats)

    def null_control(self) -> float:
        """The largest effect that doing nothing had in any slot of a batch without a scaled head."""
        return max(t.null_control for t in self.repeats)

    def ratios(self) -> list[float]:
        work = self.heads / (self.heads_at_a_time + 1)
        return [work * t.prompt / t.batches for t in self.repeats]

    def speedups(self) -> list[float]:
        """A full forward for each head, by the time that all heads take here, reading the prompt included."""
        return [self.heads * t.brute / (t.read + t.batches) for t in self.repeats]

    def lean_speedups(self) -> list[float]:
        """The same, for a brute force that leaves the logits of the prompt out."""
        return [self.heads * t.lean / (t.read + t.batches) for t in self.repeats]

    def slope_tokens_per_s(self) -> float | None:
        """Tokens of a person's own that yield the slopes of all heads, by the time of the backward passes."""
        return self._median(self.slope_texts * self.target_tokens / t.slopes for t in self.repeats if t.slopes)

    def slope_ratio(self) -> float | None:
        """The same, as a share of prompt processing."""
        tokens = (self.heads_at_a_time + 1) * self.target_tokens
        work = self.slope_texts * self.target_tokens / tokens
        return self._median(work * t.prompt / t.slopes for t in self.repeats if t.slopes)

    def slope_speedup(self) -> float | None:
        """Tokens that yield the slopes of all heads, by those that yield the effects of all heads' ablation."""
        return self._median(self.slope_texts * t.batches / t.slopes for t in self.repeats if t.slopes)

    @staticmethod
    def _median(values: Iterator[float]) -> float | None:
        known = list(values)
        return median(known) if known else None

    def as_json(self) -> dict[str, Any]:
        return {
            **{k: v for k, v in asdict(self).items() if k != "repeats"},
            "null_control": self.null_control(),
            "scored_tokens_per_s": self.scored_tokens_per_s(),
            "prompt_tokens_per_s": self.prompt_tokens_per_s(),
            "ratio": median(self.ratios()),
            "ratios": self.ratios(),
            "brute_force_speedup": median(self.speedups()),
            "brute_force_speedups": self.speedups(),
            "lean_brute_force_speedup": median(self.lean_speedups()),
            "slope_tokens_per_s": self.slope_tokens_per_s(),
            "slope_ratio": self.slope_ratio(),
            "slope_speedup": self.slope_speedup(),
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
    """Time scoring of all heads, prompt processing, brute force and backward passes in turn, on random tokens."""
    tokens = np.random.default_rng(0).integers(0, model.n_vocab, prompt_tokens + target_tokens).tolist()
    text = ScoredText(tokens[:prompt_tokens], tokens[prompt_tokens:])
    texts = [text] * min(N_SEQ - 1, longest_target(model) // target_tokens)
    times = []
    for i in range(repeats):
        ablation = HeadAblation(model, len(tokens), target_tokens, parallel=parallel, n_threads=n_threads)
        try:
            read, batches, null = _scoring(ablation, text)
            size, most = ablation.heads_at_a_time, ablation.sequences.n - 1
        finally:
            ablation.close()
        prompt = _prompt_processing(model, (size + 1) * target_tokens, n_threads)
        brute, lean = (_brute_force(model, text, everywhere, n_threads) for everywhere in (True, False))
        times.append(ScoringTimes(read, batches, prompt, brute, lean, _backward(model, texts, n_threads), null))
        if progress:
            progress(i + 1, repeats)
    return ScoringBench(model.name, len(model.heads()), size, most, prompt_tokens, target_tokens, len(texts), times)


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _scoring(ablation: HeadAblation, text: ScoredText) -> tuple[float, float, float]:
    """Return the seconds of reading the prompt, and of all heads with the untouched batch; and the null control."""
    _, null = ablation.read(ScoredText(text.prompt[1:], text.target))
    null = max(null, ablation.null_control())  # touches memory that a run of many texts finds ready
    first = _seconds(lambda: ablation.read(text))
    untouched = _seconds(lambda: ablation.read(text))  # the prompt is there already
    heads, size = ablation.model.heads(), ablation.heads_at_a_time
    batches = [heads[i : i + size] for i in range(0, len(heads), size)]
    scored = sum(_seconds(partial(ablation.effects, batch)) for batch in batches)
    return first - untouched, untouched + scored, null


def _backward(model: Model, texts: Sequence[ScoredText], n_threads: int | None) -> float | None:
    """Return the median seconds of a backward pass for texts whose prompt is read already."""
    try:
        with HeadSlopes(model, len(texts[0].prompt) + len(texts[0].target), n_threads) as slopes:
            slopes.of(texts)  # reads the prompt, and touches memory that the others find ready
            return median(_seconds(partial(slopes.of, texts)) for _ in range(3))
    except NoSlopesError:
        return None


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
