"""`Measurement`: the effects of heads on examples, with as few evaluations as the choice of heads needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from dps_local.engine import native
from dps_local.engine.model import Model, Scope
from dps_local.errors import ModelError
from dps_local.maps.head_map import top_k
from dps_local.prompting import prompt
from dps_local.prompting.prompt import Prompter
from dps_local.scoring.calibration import GAMMAS, STEPS, TEMPERATURES
from dps_local.scoring.forked_sequences import Text, longest
from dps_local.scoring.head_ablation import Scorer
from dps_local.scoring.score_store import Measured, ScoreStore
from dps_local.scoring.statistics import Evidence, Ranking
from dps_local.system.files import cache_folder

BUDGET = 1 / 3  # of the evaluations that every head on every example would take
KEPT = 0.2  # of the heads that are evaluated on every example
Progress = Callable[[int, int], None]  # (done, total), in evaluations of a head on a text
Notice = Callable[[str], None]


@dataclass(frozen=True)
class ScoringOptions:
    """scope: which tokens are muted. examples: at most so many history items are scored, and held out.

    target_tokens: of one item, at most 128. top: how many heads may be chosen, None for about 4 %. ranking: what they
    are chosen by. contrast: measure PCS without the profile, too. probe: the scale that heads are evaluated at.
    exhaustive: every head on every example. parallel: heads at a time, None for what fits.
    """

    scope: Scope = "generated"
    examples: int = 12
    target_tokens: int = 32
    top: int | None = None
    ranking: Ranking = "gain"
    contrast: bool = False
    probe: float = 0.0
    exhaustive: bool = False
    seed: int = 0
    resume: bool = True
    parallel: int | None = None
    n_threads: int | None = None

    def key(self) -> list[object]:
        """Return what a head map depends on beside the model and the texts, for JSON."""
        options = asdict(replace(self, parallel=None, n_threads=None, resume=True))
        return [native.PATCH_VERSION, prompt.VERSION, options, GAMMAS, STEPS, TEMPERATURES]


@dataclass(frozen=True)
class Example:
    """A history item as it is scored: after the profile; after the request alone; the answer that was rejected."""

    text: Text
    bare: Text | None = None
    rejected: Text | None = None

    def texts(self) -> list[Text]:
        return [text for text in (self.text, self.rejected, self.bare) if text]


def make_example(prompter: Prompter, i: int, options: ScoringOptions) -> Example | None:
    """Return history item i as an example, None when it has no tokens."""
    request, target, rejected = prompter.example(i, options.target_tokens)
    if not target:
        return None
    bare = None
    if options.contrast or options.ranking == "contrast":
        bare = Text(prompter.example(i, options.target_tokens, bare=True)[0], target)
    return Example(Text(request, target), bare, Text(request, rejected) if rejected else None)


class Measurement:
    """Evaluates heads on examples, fewer heads from one example to the next, and keeps what it found.

    more: units of progress that the caller will add.
    """

    def __init__(
        self,
        model: Model,
        examples: Sequence[Example],
        options: ScoringOptions,
        *,
        exhaustive: bool = False,
        progress: Progress | None = None,
        more: int = 0,
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
        depends_on = [model.identity.digest, native.PATCH_VERSION, options.scope, options.probe]
        self.store = ScoreStore(cache_folder("scores"), len(self.heads), *depends_on)
        texts = [len(examples[i].texts()) for i in self.order]
        self._controlled = False  # whether doing nothing was tried in every slot
        self.done, self.total = 0, sum(n * t for n, t in zip(self.schedule, texts, strict=True)) + more

    @property
    def evaluations(self) -> int:
        """How many times a head is evaluated on an example."""
        return sum(self.schedule)

    def plan(self, name: Any) -> str:
        """Note that these examples are what is scored for `name`; say what is known of them already."""
        texts = [[t.prompt, t.target] for e in self.examples for t in e.texts()]
        plan = self.store.plan(name, texts)
        return str(plan) if self.options.resume else ""

    def evidence(self) -> Evidence:
        """Evaluate; what is stored is not evaluated again."""
        self.advance(0)  # the prompt of the first text may take a minute
        o = self.options
        evidence = Evidence.empty(len(self.examples), len(self.heads))
        texts = [text for example in self.examples for text in example.texts()]
        scorer = Scorer(
            self.model,
            *longest(texts),
            scope=o.scope,
            scale=o.probe,
            parallel=o.parallel,
            n_threads=o.n_threads,
        )
        alive = list(range(len(self.heads)))
        try:
            for step, i in enumerate(self.order):
                alive = survivors(evidence.of(self.order[:step]), o.ranking, alive, self.schedule[step])
                example = self.examples[i]
                measured = self._evaluate(scorer, example.text, alive)
                evidence.effects[i], evidence.nll[i] = measured.effects_of(alive), measured.nll
                evidence.null = max(evidence.null, measured.null)
                for text, effects in ((example.rejected, evidence.rejected), (example.bare, evidence.bare)):
                    if text:
                        effects[i] = self._evaluate(scorer, text, alive).effects_of(alive)
        finally:
            scorer.close()
        return evidence

    def _evaluate(self, scorer: Scorer, text: Text, heads: Sequence[int]) -> Measured:
        """Return what is known of a text once `heads` (numbers) are evaluated on it, as far as that is not stored."""
        key = [text.prompt, text.target]
        measured = self.store.load(key) if self.options.resume else Measured(len(self.heads))
        read = False
        for i in range(0, len(heads), scorer.heads_at_a_time):
            batch = list(heads[i : i + scorer.heads_at_a_time])
            if measured.missing(batch):
                if not read:
                    nll, null = scorer.read(text)
                    measured.nll, measured.null, read = nll, max(null, measured.null), True
                    if not self._controlled:
                        measured.null, self._controlled = max(measured.null, scorer.null_control()), True
                measured.effects[batch], null = scorer.effects([self.heads[h] for h in batch])
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


def survivors(evidence: Evidence, ranking: Ranking, alive: list[int], n: int) -> list[int]:
    """Return the n most promising of the heads that are still in, in their order."""
    if n >= len(alive):
        return alive
    promise = evidence.promise(ranking)[alive]
    return sorted(alive[i] for i in np.argsort(-promise, kind="stable")[:n])


def _digest(seed: int, text: Text) -> str:
    return hashlib.sha256(json.dumps([seed, text.prompt, text.target]).encode()).hexdigest()
