"""`UserSteps`: steps of all heads, by what users of the other half wrote, by a user's own items, or by both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from dps_local.engine.model import HeadScales, Model
from dps_local.evaluation.condition import StepMethod
from dps_local.evaluation.task_prompter import TaskPrompter
from dps_local.maps.population import Population
from dps_local.maps.scored_heads import grid
from dps_local.scoring.own_slopes import OwnSlopes
from dps_local.scoring.people import population_of
from dps_local.scoring.posterior import Posterior, own_alone, posterior
from dps_local.scoring.slopes import Slopes
from dps_local.scoring.sparse import sparse
from dps_local.system.progress import Progress

ITEMS = 16  # of a user, the newest
SAMPLES = 1  # of each item


@dataclass
class UserSteps:
    """Makes steps when they are asked for. others: of a user, those of the other half, in a random order.

    companion: of a user, another one of the same half, whose own items stand in for the user's.
    """

    others: Callable[[str], Sequence[TaskPrompter]]
    companion: Callable[[str], str]
    prompters: Mapping[str, TaskPrompter]
    n_threads: int | None = None
    progress: Progress | None = None
    _slopes: dict[str, Slopes] = field(default_factory=dict)
    _populations: dict[tuple[str, ...], Population] = field(default_factory=dict)

    def weights(self, method: StepMethod, user: str, model: Model, heads: int | None = None) -> HeadScales:
        """Return a step at length 1, F32 [n_layer, n_head_max]; NaN where there is no head. heads: so many alone."""
        found = self._posterior(method, user)
        step = found.step if heads is None else sparse(found.step, found.fisher, heads)[1]
        return grid(model.n_heads, found.fisher.scaled_to(step, 1.0))

    def _posterior(self, method: StepMethod, user: str) -> Posterior:
        if method == "own":
            return own_alone(self._measured(self.prompters[user]))
        if method in ("prior", "prior-contrast"):
            return posterior(self._population(user))
        whose = user if method == "prior-own" else self.companion(user)
        return posterior(self._population(user), self._measured(self.prompters[whose]))

    def _population(self, user: str) -> Population:
        others = self.others(user)
        key = tuple(other.profile.name for other in others)
        if key not in self._populations:
            people = list[Slopes]()
            for i, other in enumerate(others, 1):
                people.append(self._measured(other))
                if self.progress:
                    self.progress(i, len(others))
            self._populations[key] = population_of(people)
        return self._populations[key]

    def _measured(self, prompter: TaskPrompter) -> Slopes:
        name = prompter.profile.name
        if name not in self._slopes:
            own = OwnSlopes(prompter, SAMPLES, self.n_threads, ITEMS)
            self._slopes[name] = own.of(list(own.texts))
        return self._slopes[name]
