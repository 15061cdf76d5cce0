"""`OwnSteps`: the steps that a person's history gives, with all items and with one held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from dps_local.errors import NoSlopesError
from dps_local.maps.prior import Prior
from dps_local.prompting.prompt import Prompter
from dps_local.scoring.intervals import FEWEST
from dps_local.scoring.mixture import mixed, with_something_else
from dps_local.scoring.own_slopes import OwnSlopes
from dps_local.scoring.personal_step import PersonalStep
from dps_local.scoring.slopes import Slopes
from dps_local.system.progress import Notice, Progress

NEWEST = 200  # items that are measured: each takes seconds, and more hardly change a step
SAMPLES = 2  # of each text, where there is no prior that tells the Fisher matrix


@dataclass(frozen=True, eq=False)
class OwnSteps:
    """items: numbers of history items, in the order of the slopes. k: heads of a step, None for all."""

    prompter: Prompter
    priors: Sequence[Prior]
    items: Sequence[int]
    own: Slopes
    k: int | None = None

    @classmethod
    def measured(
        cls,
        prompter: Prompter,
        priors: Sequence[Prior],
        newest: int = NEWEST,
        *,
        k: int | None = None,
        n_threads: int | None = None,
        progress: Progress | None = None,
        notice: Notice | None = None,
    ) -> OwnSteps | None:
        """Measure the slopes of the newest items; what is known is not measured again.

        None where nothing can be known: the architecture has no backward pass, of which `notice` is told, or there is
        no prior, and fewer than FEWEST texts.
        """
        own = OwnSlopes(prompter, 0 if priors else SAMPLES, n_threads, newest)
        items = list(own.texts)
        if not priors and len(items) < FEWEST:
            return None
        try:
            return cls(prompter, priors, items, own.of(items, progress), k)
        except NoSlopesError as exc:
            if notice:
                notice(f"{prompter.model.name}: {exc.why}; heads are scored by ablation alone")
            return None

    def before_own(self) -> PersonalStep:
        """Return the step of all items, with the posterior that others' texts give it: own ones tell the kind alone."""
        step = self.step()
        everything = with_something_else([prior.population for prior in self.priors])
        return replace(step, posterior=mixed(everything, np.array(step.shares), None))

    def step(self, without: int | None = None) -> PersonalStep:
        """Return the step of all items, or of all but one, by its number in the history."""
        return self._step(self.own.without(self.items.index(without))) if without in self.items else self._of_all

    @cached_property
    def _of_all(self) -> PersonalStep:
        return self._step(self.own)

    def _step(self, own: Slopes) -> PersonalStep:
        step = PersonalStep.of(self.prompter.model, self.priors, own)
        return step if self.k is None else step.sparse(self.k)
