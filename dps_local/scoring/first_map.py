"""The head map that a chat begins with: what others' texts and a few of the person's own tell, within seconds."""

from __future__ import annotations

from typing import Any

import numpy as np

from dps_local.maps.head_map import SCORES, HeadMap
from dps_local.maps.model_map import bound_to
from dps_local.maps.selection import top_k
from dps_local.maps.shipped_priors import shipped_priors
from dps_local.prompting.prompt import Prompter
from dps_local.scoring.options import ScoringOptions
from dps_local.scoring.own_steps import OwnSteps
from dps_local.system.progress import Notice, Progress


def first_map(
    prompter: Prompter, options: ScoringOptions, progress: Progress | None = None, notice: Notice | None = None
) -> HeadMap | None:
    """Return a map of the posterior step, from priors and the newest items; None where there are no priors.

    Own text alone promises too much before some of it was held out, which takes scoring. The map has no scores by
    ablation, and nothing is held out: what it promises is what others' texts and these items promise. Slopes are kept,
    so that a second start takes no time.
    """
    model = prompter.model
    priors = shipped_priors(model.identity)
    if not priors or options.scope != "generated":
        return None
    steps = OwnSteps.measured(
        prompter,
        priors,
        options.examples,
        k=options.top,
        n_threads=options.n_threads,
        progress=progress,
        notice=notice,
    )
    if steps is None:
        return None
    step = steps.step()
    evidence = step.evidence(step.gamma)
    unknown = np.full((model.n_layer, model.n_head_max), np.nan, np.float32)
    grids: dict[str, Any] = dict.fromkeys(SCORES, unknown) | {"weights": step.weights}
    return HeadMap(
        **bound_to(model),
        **grids,
        scope=options.scope,
        ranking=options.ranking,
        ablation_scale=options.ablation_scale,
        seed=options.seed,
        examples=evidence.texts,
        tokens=evidence.tokens,
        evaluations=0,
        nll=float(steps.own.nll.sum() / max(1, steps.own.n_tokens)),
        null_control=0.0,
        selected=tuple(step.heads(top_k(len(model.heads())) if options.top is None else options.top)),
        mode="amplify",
        gamma=step.gamma if evidence.helps else 0.0,
        slope=step.slopes,
        step=evidence,
    )
