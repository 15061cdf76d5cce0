"""Scoring: which attention heads carry a user's preferences, and whether steering by them is worth it.

Each head is scaled in turn (0 mutes it), and the user's own text says what that costs: PCS(l, h) = mean over
examples of NLL(y | x, u, head muted) - NLL(y | x, u), in nats per target token (arXiv 2604.22345). An example is a
history item, with the profile in the prompt as it was when the user wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dps_local.engine.model import Head, Model
from dps_local.errors import ModelError, ProfileError
from dps_local.maps.calibration import Calibration, Candidate
from dps_local.maps.head_map import HeadMap
from dps_local.maps.model_map import bound_to
from dps_local.maps.prior import Prior
from dps_local.maps.scored_heads import Scores, grid
from dps_local.maps.shipped_priors import shipped_priors
from dps_local.prompting.profile import Profile
from dps_local.prompting.prompt import Prompter
from dps_local.scoring.calibrate import by_user, calibrate, candidates
from dps_local.scoring.example import Example, make_example
from dps_local.scoring.head_effects import GAIN, PCS, VARIANCE, HeadEffects
from dps_local.scoring.held_out_losses import HeldOutLosses
from dps_local.scoring.options import ScoringOptions
from dps_local.scoring.own_steps import OwnSteps
from dps_local.scoring.statistics import choose, mean_stderr, split_half_reliability
from dps_local.scoring.successive_halving import SuccessiveHalving
from dps_local.system.progress import Notice, Progress

MIN_SPLIT = 12  # history items; with fewer, calibration is cross-validated (k-fold)
FOLDS = 4
HELD_OUT = 4  # times as many items as ablation scores, each held out of the step in turn


@dataclass(frozen=True)
class Split:
    """Which history items are scored, and which are held out of the choice of heads to calibrate it.

    folds[i] names the items that have no part in the choice when they calibrate. users: whose each of these is, where
    they are several people's.
    """

    scored: list[int]
    folds: list[list[int]]
    users: Mapping[int, str] = field(default_factory=dict)

    @property
    def cross_validated(self) -> bool:
        return len(self.folds) > 1

    @property
    def held_out(self) -> list[int]:
        return sorted(i for fold in self.folds for i in fold)

    @property
    def items_each(self) -> float:
        """How many more history items it takes to hold one more out."""
        return 1.0 if self.cross_validated else 2.0


def _need_own_items(profile: Profile) -> None:
    if not profile.history:
        raise ProfileError("the profile has no history: heads are scored on what the user wrote")
    if not profile.own_items():
        raise ProfileError(
            "all of the profile's history is of the kind 'kept', a model's words: heads are scored on what the user "
            "wrote or edited, so add texts of their own"
        )


def leave_one_out(items: Sequence[int], examples: int) -> Split:
    """Split history items, given oldest first, where a step can be made without any one of them.

    Ablation scores the newest, and has no part in the calibration.
    """
    return Split(list(items[-examples:]), [[i] for i in items])


def split_history(items: Sequence[int], examples: int) -> Split:
    """Split history items, given oldest first: the newest are held out, and the newest before them are scored.

    A short history is cross-validated: all are scored.
    """
    if len(items) < MIN_SPLIT:
        used = list(items[-examples:])
        return Split(used, [fold for k in range(min(FOLDS, len(used))) if (fold := used[k::FOLDS])])
    held_out = min(examples, len(items) // 2)
    return Split(list(items[-held_out - examples : -held_out]), [list(items[-held_out:])])


def score(
    model: Model,
    profile: Profile | Prompter,
    options: ScoringOptions | None = None,
    progress: Progress | None = None,
    notice: Notice | None = None,
    *,
    priors: Sequence[Prior] | None = None,
) -> HeadMap:
    """Score the heads of `model` on the profile's history, choose the best, and calibrate how to steer by them.

    profile: or a prompter, where prompts are to show it otherwise than an `Assistant` does by default. What was
    measured is cached after each batch, and a later run takes it up. priors: what others' texts tell of this model's
    heads; None takes those that come with the package. Raises ProfileError without history, ModelError when no layer
    of the architecture has heads that can be muted.
    """
    options = options or ScoringOptions()
    priors = shipped_priors(model.identity) if priors is None else priors
    prompter = profile if isinstance(profile, Prompter) else Prompter.of(model, profile)
    _need_own_items(prompter.profile)
    steps = None
    # slopes are those of the answer's tokens; another scale asks for slopes by ablation
    if options.scope == "generated" and options.ablation_scale == ScoringOptions.ablation_scale:
        steps = OwnSteps.measured(
            prompter, priors, k=options.top, n_threads=options.n_threads, progress=progress, notice=notice
        )
    newest = prompter.profile.own_items((HELD_OUT if steps else 2) * options.examples)
    examples = {i: example for i in newest if (example := make_example(prompter, i, options))}
    split = (leave_one_out if steps else split_history)(list(examples), options.examples)
    scoring = Scoring(model, examples, split, options, prompter.identity, progress, notice, steps)
    prompter.profile.cached.note(scoring.files)
    return scoring.head_map()


class Scoring:
    """The scoring of examples (by number): some choose heads, others calibrate. whose: tells them from others'.

    steps: give the amplification's weights, which else come from the ablation. Then no contrast is calibrated: the
    heads of highest gain were worth less everywhere, and a contrast by the step no more (models/RESULTS.md). files:
    where its numbers are kept.
    """

    def __init__(
        self,
        model: Model,
        examples: dict[int, Example],
        split: Split,
        options: ScoringOptions,
        whose: Sequence[object],
        progress: Progress | None = None,
        notice: Notice | None = None,
        steps: OwnSteps | None = None,
    ) -> None:
        if not examples:
            raise ProfileError("no history item has a token to score: raise examples and target_tokens above 0")
        self.model, self.options, self.examples, self.split, self.steps = model, options, examples, split, steps
        self.halving = SuccessiveHalving(
            model,
            [self.examples[i] for i in self.split.scored],
            options,
            # else elimination would have seen what is held out
            exhaustive=self.split.cross_validated and not steps,
            progress=progress,
            further_progress=len(self.split.held_out) * HeldOutLosses.streams,
        )
        what = [options.examples, options.target_tokens, options.contrast, options.ranking == "contrast"]
        known = self.halving.plan([*whose, what])
        self.files = [self.halving.store.plan_path([*whose, what]), *self.halving.files(self.halving.examples)]
        if notice and known:
            notice(known)

    def head_map(self) -> HeadMap:
        effects = self.halving.run()
        values = effects.ranked_by(self.options.ranking)
        selected = choose(values, self.halving.k)
        calibration = self._calibrate(effects, len(selected))
        off = Candidate("amplify" if self.steps else "contrast", None, 0.0)
        best = calibration.best if calibration and calibration.helps else off
        grids: dict[str, Any] = grids_of(self.model, effects, self.options.ablation_scale)
        if self.steps:
            step = self.steps.step()
            grids |= {"weights": step.weights, "slope": step.slopes, "step": step.evidence(best.gamma or step.gamma)}
        if np.isnan(grids["pcs"]).all():
            raise ModelError(
                f"muting heads has no effect in the architecture {self.model.architecture!r}: it cannot be steered"
            )
        texts = [self.examples[i].text for i in self.split.scored]
        return HeadMap(
            **bound_to(self.model),
            scope=self.options.scope,
            ranking=self.options.ranking,
            ablation_scale=self.options.ablation_scale,
            seed=self.options.seed,
            examples=len(texts),
            tokens=sum(len(text.target) for text in texts),
            evaluations=self.halving.evaluations,
            nll=float(effects.nll.mean()),
            **grids,
            null_control=effects.null,
            selected=tuple(self.halving.heads[i] for i in selected),
            mode=best.mode,
            gamma=best.gamma,
            reliability=split_half_reliability(values, self.halving.k, self.options.seed),
            calibration=calibration,
        )

    def _calibrate(self, effects: HeadEffects, n_selected: int) -> Calibration | None:
        """Try the candidates on each held-out item, with heads and weights that were chosen without it.

        None when there are fewer than two, or they are of fewer than two users.
        """
        held_out = [i for fold in self.split.folds for i in fold]
        users = [self.split.users.get(i, i) for i in held_out]
        if len(set(users)) < 2:
            return None
        tried = candidates(0 if self.steps else n_selected)
        texts = [self.examples[i].longer for i in held_out]
        held_out_losses = HeldOutLosses(self.model, texts, self.options.scope, self.options.n_threads)
        losses, ends = list[NDArray[np.float64]](), list[NDArray[np.float64]]()
        try:
            for fold in self.split.folds:
                chosen, weights = self._without(fold, effects)
                steerings = [c.steering(self.model, chosen, weights, self.options.scope) for c in tried]
                for i in fold:
                    by_token = held_out_losses.by_token(self.examples[i].longer, steerings)
                    losses.append(by_token.mean(axis=1))
                    if n_end := self.examples[i].n_end:
                        ends.append(by_token[:, -n_end:].sum(axis=1))
                    self.halving.advance(held_out_losses.streams)
        finally:
            held_out_losses.close()
        of_users, expected = by_user(np.array(losses), users), self._expected(tried)
        return calibrate(of_users, tried, self.split.items_each, expected, np.array(ends))

    def _without(self, fold: Sequence[int], effects: HeadEffects) -> tuple[list[Head], Scores]:
        """Return the heads of the contrast and the weights of the amplification as all but some items choose them."""
        if self.steps:
            (i,) = fold
            return [], self.steps.step(i).weights
        seen = effects.of([k for k, i in enumerate(self.split.scored) if i not in fold])
        chosen = choose(seen.ranked_by(self.options.ranking), self.halving.k)
        return [self.halving.heads[i] for i in chosen], grid(
            self.model.n_heads, seen.weights(self.options.ablation_scale)
        )

    def _expected(self, tried: Sequence[Candidate]) -> list[tuple[float, float] | None]:
        """Return what others' texts promise of each candidate but the first; nothing without priors.

        The person's own items had a part in the step, but not each in its own loss: they are measured, not expected.
        """
        if not self.steps or not self.steps.priors:
            return []
        before = self.steps.before_own()
        return [before.expected(c.gamma) if c.mode == "amplify" else None for c in tried[1:]]


def grids_of(model: Model, effects: HeadEffects, ablation_scale: float) -> dict[str, Scores]:
    """Return the arrays of the head map."""
    values = {"weights": effects.weights(ablation_scale)}
    measures = {
        "pcs": effects.with_profile[..., PCS],
        "gain": effects.with_profile[..., GAIN],
        "contrast": effects.contrast,
        "pairwise": effects.pairwise,
    }
    for name, measured in measures.items():
        values[name], values[f"{name}_stderr"], n = mean_stderr(measured)
        values.setdefault("counts", n.astype(np.float64))
    values["variance"] = mean_stderr(effects.with_profile[..., VARIANCE])[0]
    grids = {name: grid(model.n_heads, numbers) for name, numbers in values.items()}
    # a layer whose heads change nothing at all is not reached: recurrent, or attention of the architecture's own
    unreached = [bool((np.nan_to_num(row) == 0).all()) for row in grids["pcs"]]
    for scores in grids.values():
        scores[unreached] = np.nan
    return grids
