"""`SuccessiveHalving`: ablates all heads on one example, and on each further one fewer, those that were promoted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dps_local.engine import native
from dps_local.engine.model import Model
from dps_local.errors import ModelError
from dps_local.maps.selection import Ranking, top_k
from dps_local.scoring.example import Example
from dps_local.scoring.forked_sequences import ScoredText, longest
from dps_local.scoring.head_ablation import HeadAblation
from dps_local.scoring.head_effects import HeadEffects
from dps_local.scoring.options import ScoringOptions
from dps_local.scoring.score_store import Measured, ScoreStore
from dps_local.system.files import cache_folder
from dps_local.system.progress import Progress

BUDGET = 1 / 3  # of the evaluations that every head on every example would take
KEPT = 0.2  # of the heads that are evaluated on every example


class SuccessiveHalving:
    """Evaluates heads on examples, fewer heads from one example to the next; a later run goes on where this one ends.

    progress: in evaluations of a head on a text. further_progress: units of it that the caller will add.
    """

    def __init__(
        self,
        model: Model,
        examples: Sequence[Example],
        options: ScoringOptions,
        *,
        exhaustive: bool = False,
        progress: Progress | None = None,
        further_progress: int = 0,
    ) -> None:
        self.model, self.options, self.progress = model, options, progress
        self.heads = model.heads()
        if not self.heads:
            raise ModelError(f"{model.name}: the architecture {model.architecture!r} has no attention heads to score")
        # a random order, but one in which new examples leave the others where they are
        self.order = sorted(range(len(examples)), key=lambda i: _digest(options.seed, examples[i].text))
        self.examples = examples
        self.k = options.top if options.top is not None else top_k(len(self.heads))  # heads that are to be chosen
        self.schedule = schedule(len(self.heads), len(examples), self.k, exhaustive or options.exhaustive)
        depends_on = [model.identity.digest, native.PATCH_VERSION, options.scope, options.ablation_scale]
        self.store = ScoreStore(cache_folder("scores"), len(self.heads), *depends_on)
        texts = [len(examples[i].texts()) for i in self.order]
        self.done, self.total = 0, sum(n * t for n, t in zip(self.schedule, texts, strict=True)) + further_progress

    @property
    def evaluations(self) -> int:
        """How many times a head is evaluated on an example."""
        return sum(self.schedule)

    def plan(self, name: Any) -> str:
        """Keep in the store that these examples are scored for `name`; return what to say of those known already."""
        texts = [[t.prompt, t.target] for e in self.examples for t in e.texts()]
        plan = self.store.plan(name, texts)
        return str(plan) if self.options.resume else ""

    def files(self, examples: Sequence[Example]) -> list[Path]:
        """Return where the numbers of examples are kept."""
        return [self.store.path([text.prompt, text.target]) for example in examples for text in example.texts()]

    def run(self) -> HeadEffects:
        """Evaluate; what is stored is not evaluated again."""
        self.advance(0)  # the prompt of the first text may take a minute
        o = self.options
        effects = HeadEffects.empty(len(self.examples), len(self.heads))
        texts = [text for example in self.examples for text in example.texts()]
        ablation = HeadAblation(
            self.model,
            *longest(texts),
            scope=o.scope,
            scale=o.ablation_scale,
            parallel=o.parallel,
            n_threads=o.n_threads,
        )
        heads = list(range(len(self.heads)))
        try:
            for step, i in enumerate(self.order):
                heads = promoted(effects.of(self.order[:step]), o.ranking, heads, self.schedule[step])
                example = self.examples[i]
                measured = self._evaluate(ablation, example.text, heads)
                effects.with_profile[i], effects.nll[i] = measured.effects_of(heads), measured.nll
                effects.null = max(effects.null, measured.null)
                if example.rejected:
                    effects.rejected[i] = self._evaluate(ablation, example.rejected, heads).effects_of(heads)
                if alone := example.without_profile:
                    effects.without_profile[i] = self._evaluate(ablation, alone, heads).effects_of(heads)
        finally:
            ablation.close()
        return effects

    def _evaluate(self, ablation: HeadAblation, text: ScoredText, heads: Sequence[int]) -> Measured:
        """Return what is known of a text once `heads` (numbers) are evaluated on it, as far as that is not stored."""
        key = [text.prompt, text.target]
        measured = self.store.load(key) if self.options.resume else Measured(len(self.heads))
        if not measured.missing(heads):
            self.advance(len(heads))
            return measured
        measured.nll, null = ablation.read(text)
        measured.null = max(null, measured.null)
        for i in range(0, len(heads), ablation.heads_at_a_time):
            batch = list(heads[i : i + ablation.heads_at_a_time])
            if measured.missing(batch):
                measured.effects[batch], null = ablation.effects([self.heads[h] for h in batch])
                measured.null = max(null, measured.null)
                self.store.save(key, measured)
            self.advance(len(batch))
        return measured

    def advance(self, n: int) -> None:
        self.done += n
        if self.progress:
            self.progress(self.done, self.total)


def schedule(n_heads: int, n_examples: int, k: int, exhaustive: bool) -> list[int]:
    """Return how many heads to evaluate on each example in turn: all on the first, then fewer and fewer.

    The sum is at most BUDGET of all heads on all examples, but no example has less than KEPT of the heads, or 3 times
    the k that are to be chosen.
    """
    everything = [n_heads] * n_examples
    if exhaustive:
        return everything
    floor = min(n_heads, max(3 * k, int(KEPT * n_heads)))

    def sizes(rate: float) -> list[int]:
        return [max(floor, int(n_heads * rate**i)) for i in range(n_examples)]

    rates = [rate for rate in np.linspace(1, 0, 1001) if sum(sizes(rate)) <= BUDGET * sum(everything)]
    return sizes(rates[0] if rates else 0.0)


def promoted(effects: HeadEffects, ranking: Ranking, heads: list[int], n: int) -> list[int]:
    """Return the n of these heads that are likeliest to be chosen, in their order."""
    if n >= len(heads):
        return heads
    scores = effects.promotion_scores(ranking)[heads]
    return sorted(heads[i] for i in np.argsort(-scores, kind="stable")[:n])


def _digest(seed: int, text: ScoredText) -> str:
    return hashlib.sha256(json.dumps([seed, text.prompt, text.target]).encode()).hexdigest()
