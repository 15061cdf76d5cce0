"""Scoring: which attention heads carry a user's preferences, and whether steering by them is worth it.

Each head is scaled in turn (0 mutes it), and the user's own text says what that costs: PCS(l, h) = mean over
examples of NLL(y | x, u, head muted) - NLL(y | x, u), in nats per target token (arXiv 2604.22345). An example is a
history item, with the profile in the prompt as it was when the user wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dps_local.engine.model import HeadScales, Model
from dps_local.errors import ModelError, ProfileError
from dps_local.maps.head_map import HeadMap, Scores
from dps_local.prompting.prompt import Prompter
from dps_local.scoring.ablation import Example, Measurement, Notice, Progress, ScoringOptions, make_example
from dps_local.scoring.calibration import Calibration, Candidate, by_user, calibrate, candidates
from dps_local.scoring.held_out import Trial
from dps_local.scoring.statistics import GAIN, PCS, VARIANCE, Evidence, choose, mean_stderr, stability

MIN_SPLIT = 12  # history items; with fewer, calibration takes turns (k-fold)
FOLDS = 4


@dataclass(frozen=True)
class Split:
    """Which history items are scored, and which are held out of the choice of heads to calibrate it.

    The newest items are held out, and the newest before them are scored. A short history takes turns: all are scored,
    and folds[i] names the items that have no part in the choice when they calibrate. users: whose each of these is,
    where they are several people's.
    """

    scored: list[int]
    folds: list[list[int]]
    users: Mapping[int, str] = field(default_factory=dict)

    @property
    def takes_turns(self) -> bool:
        return len(self.folds) > 1

    @property
    def held_out(self) -> list[int]:
        return sorted(i for fold in self.folds for i in fold)

    @property
    def items_each(self) -> float:
        """How many more history items it takes to hold one more out."""
        return 1.0 if self.takes_turns else 2.0


def split_history(items: Sequence[int], examples: int) -> Split:
    """Split history items, given oldest first."""
    if len(items) < MIN_SPLIT:
        used = list(items[-examples:])
        return Split(used, [fold for k in range(min(FOLDS, len(used))) if (fold := used[k::FOLDS])])
    held_out = min(examples, len(items) // 2)
    return Split(list(items[-held_out - examples : -held_out]), [list(items[-held_out:])])


def score(
    model: Model,
    prompter: Prompter,
    options: ScoringOptions | None = None,
    progress: Progress | None = None,
    notice: Notice | None = None,
) -> HeadMap:
    """Score the heads of `model` on the profile's history, choose the best, and calibrate how to steer by them.

    What was measured is cached after each batch, and a later run takes it up. Raises ProfileError without history,
    ModelError when no layer of the architecture has heads that can be muted.
    """
    options = options or ScoringOptions()
    if not prompter.profile.history:
        raise ProfileError("the profile has no history: heads are scored on what the user wrote")
    n = len(prompter.profile.history)
    newest = range(max(0, n - 2 * options.examples), n)
    examples = {i: example for i in newest if (example := make_example(prompter, i, options))}
    split = split_history(list(examples), options.examples)
    return Scoring(model, examples, split, options, prompter.whose, progress, notice).head_map()


class Scoring:
    """The scoring of examples (by number): some choose heads, others calibrate. whose: tells them from others'."""

    def __init__(
        self,
        model: Model,
        examples: dict[int, Example],
        split: Split,
        options: ScoringOptions,
        whose: Sequence[object],
        progress: Progress | None = None,
        notice: Notice | None = None,
    ) -> None:
        if not examples:
            raise ProfileError("no history item has a token to score: raise examples and target_tokens above 0")
        self.model, self.options, self.examples, self.split = model, options, examples, split
        self.measurement = Measurement(
            model,
            [self.examples[i] for i in self.split.scored],
            options,
            exhaustive=self.split.takes_turns,  # elimination would have seen what is held out
            progress=progress,
            more=len(self.split.held_out) * Trial.streams,
        )
        what = [options.examples, options.target_tokens, options.contrast, options.ranking == "contrast"]
        news = self.measurement.plan([*whose, what])
        if notice and news:
            notice(news)

    def head_map(self) -> HeadMap:
        evidence = self.measurement.evidence()
        values = evidence.ranked_by(self.options.ranking)
        selected = choose(values, self.measurement.k)
        calibration = self._calibrate(evidence, len(selected))
        best = calibration.best if calibration and calibration.helps else Candidate("contrast", None, 0.0)
        grids: dict[str, Any] = grids_of(self.model, evidence, self.options.probe)
        if np.isnan(grids["pcs"]).all():
            raise ModelError(
                f"muting heads has no effect in the architecture {self.model.architecture!r}: it cannot be steered"
            )
        texts = [self.examples[i].text for i in self.split.scored]
        return HeadMap(
            model=self.model.name,
            architecture=self.model.architecture,
            **asdict(self.model.identity),
            scope=self.options.scope,
            ranking=self.options.ranking,
            probe=self.options.probe,
            seed=self.options.seed,
            examples=len(texts),
            tokens=sum(len(text.target) for text in texts),
            evaluations=self.measurement.evaluations,
            nll=float(evidence.nll.mean()),
            **grids,
            null_control=evidence.null,
            selected=tuple(self.measurement.heads[i] for i in selected),
            mode=best.mode,
            gamma=best.gamma,
            stability=stability(values, self.measurement.k, self.options.seed),
            calibration=calibration,
        )

    def _calibrate(self, evidence: Evidence, n_selected: int) -> Calibration | None:
        """Try the candidates on each held-out item, with heads and weights that were chosen without it.

        None when there are fewer than two, or they are of fewer than two users.
        """
        held_out = [i for fold in self.split.folds for i in fold]
        users = [self.split.users.get(i, i) for i in held_out]
        if len(set(users)) < 2:
            return None
        tried = candidates(n_selected)
        texts = [self.examples[i].text for i in held_out]
        trial = Trial(self.model, texts, self.options.scope, self.options.n_threads)
        losses = []
        try:
            for fold in self.split.folds:
                seen = [k for k, i in enumerate(self.split.scored) if i not in fold]
                scales = self._scales(evidence.of(seen), tried)
                for i in fold:
                    losses.append(trial.losses(self.examples[i].text, [c.mix for c in tried], scales))
                    self.measurement.advance(trial.streams)
        finally:
            trial.close()
        return calibrate(by_user(np.array(losses), users), tried, self.split.items_each)

    def _scales(self, evidence: Evidence, tried: Sequence[Candidate]) -> list[HeadScales]:
        """Return the scales of each candidate's stream, as this evidence has it."""
        chosen = [
            self.measurement.heads[i] for i in choose(evidence.ranked_by(self.options.ranking), self.measurement.k)
        ]
        weights = grid(self.model, evidence.weights(self.options.probe))
        return [c.scales(self.model, chosen, weights) for c in tried]


def grid(model: Model, values: NDArray[np.floating]) -> Scores:
    """Return one number of each head as [n_layer, n_head_max], NaN where a layer has fewer heads."""
    scores = np.full((model.n_layer, model.n_head_max), np.nan, np.float32)
    for head, value in zip(model.heads(), values, strict=True):
        scores[head] = value
    return scores


def grids_of(model: Model, evidence: Evidence, probe: float) -> dict[str, Scores]:
    """Return the arrays of the head map."""
    found = {"weights": evidence.weights(probe)}
    measures = {
        "pcs": evidence.effects[..., PCS],
        "gain": evidence.effects[..., GAIN],
        "contrast": evidence.contrast,
        "pairwise": evidence.pairwise,
    }
    for name, values in measures.items():
        found[name], found[f"{name}_stderr"], n = mean_stderr(values)
        found.setdefault("counts", n.astype(np.float64))
    found["variance"] = mean_stderr(evidence.effects[..., VARIANCE])[0]
    grids = {name: grid(model, values) for name, values in found.items()}
    # a layer whose heads change nothing at all is not reached: recurrent, or attention of the architecture's own
    unreached = [bool((np.nan_to_num(row) == 0).all()) for row in grids["pcs"]]
    for scores in grids.values():
        scores[unreached] = np.nan
    return grids
