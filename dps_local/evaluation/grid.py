"""`Grid`: the settings that an experiment tries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dps_local.evaluation.condition import (
    AMPLIFY_METHODS,
    METHODS_WITHOUT_SETTINGS,
    SPARSE_METHODS,
    TOP_K_METHODS,
    Condition,
    Method,
)
from dps_local.scoring.calibrate import GAMMAS, STEPS
from dps_local.steering.mixing import Gamma


@dataclass(frozen=True)
class Grid:
    """The settings to try; the first of each are the main ones, and the others change one of them at a time.

    amplify_gammas, vector_gammas, cache_gammas: strengths of the amplification, of the style vector and of the n-gram
    cache. items: how many profile items to show to the plain model, beside as many as in the other conditions. seeds:
    how many choices of random heads. step_heads: of how many heads to try the prior's step, beside all of them.
    """

    gammas: tuple[Gamma, ...] = (Gamma(GAMMAS[0]),)
    heads: tuple[int, ...] = (8,)
    betas: tuple[float, ...] = (0.1,)
    amplify_gammas: tuple[Gamma, ...] = (Gamma(STEPS[0]),)
    items: tuple[int, ...] = ()
    seeds: int = 3
    vector_gammas: tuple[Gamma, ...] = (Gamma(0.03),)
    cache_gammas: tuple[Gamma, ...] = (Gamma(0.2),)
    step_heads: tuple[int, ...] = ()

    def conditions(self, methods: Sequence[Method]) -> list[Condition]:
        return [condition for method in methods for condition in self._conditions(method)]

    def _conditions(self, method: Method) -> list[Condition]:
        if method == "profile":
            return [Condition(method), *(Condition(method, items=items) for items in self.items)]
        if method in METHODS_WITHOUT_SETTINGS:
            return [Condition(method)]
        if method in AMPLIFY_METHODS:
            of_heads = (None, *self.step_heads) if method in SPARSE_METHODS else (None,)
            return [Condition(method, gamma, heads) for heads in of_heads for gamma in self.amplify_gammas]
        if method in ("style-vector", "cache"):
            gammas = self.vector_gammas if method == "style-vector" else self.cache_gammas
            return [Condition(method, gamma) for gamma in gammas]
        has_top_k = method in TOP_K_METHODS
        main = Condition(method, self.gammas[0], self.heads[0] if has_top_k else None, self.betas[0])
        conditions = [main]
        conditions += [replace(main, gamma=gamma) for gamma in self.gammas[1:]]
        conditions += [replace(main, heads=heads) for heads in self.heads[1:] if has_top_k]
        conditions += [replace(main, beta=beta) for beta in self.betas[1:]]
        if method == "random":
            return [replace(condition, seed=seed) for condition in conditions for seed in range(self.seeds)]
        return conditions
