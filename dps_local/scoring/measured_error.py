"""`measured_error`: what steps are worth to people that had no part in them, against what the quadratic model says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dps_local.engine.model import Model
from dps_local.maps.fisher import Vector
from dps_local.maps.quadratic_error import QuadraticError
from dps_local.maps.scored_heads import grid
from dps_local.scoring.calibrate import STEPS
from dps_local.scoring.forked_sequences import MAX_TARGET, ScoredText
from dps_local.scoring.held_out_losses import HeldOutLosses
from dps_local.scoring.people import population_of
from dps_local.scoring.slopes import Slopes
from dps_local.steering.mixing import Gamma
from dps_local.steering.steering import Steering, amplified
from dps_local.system.progress import Progress

TRIED = 3  # texts of a person, the newest


@dataclass(frozen=True, eq=False)
class MeasuredPerson:
    """texts: of one person; slopes: theirs, in the same order."""

    texts: Sequence[ScoredText]
    slopes: Slopes

    @property
    def tried(self) -> tuple[list[ScoredText], Slopes]:
        """The newest texts that are not too long for several streams at once; where all are, the newest, cut."""
        short = [i for i, text in enumerate(self.texts) if len(text.target) <= MAX_TARGET][-TRIED:]
        chosen = short or [len(self.texts) - 1]
        return [_cut(self.texts[i]) for i in chosen], self.slopes.those(chosen)


def _cut(text: ScoredText) -> ScoredText:
    return ScoredText(text.prompt, text.target[:MAX_TARGET])


def measured_error(
    model: Model, people: Sequence[MeasuredPerson], n_threads: int | None = None, progress: Progress | None = None
) -> QuadraticError:
    """Try on each person the step of all others, at each length of STEPS.

    As in `calibrate`, every length is compared with the plain model, each at its own best temperature. At least 4
    people, since a step takes 3. progress: counts people.
    """
    losses, promised = list[NDArray[np.float64]](), list[NDArray[np.float64]]()
    for i, (person, direction) in enumerate(zip(people, _directions(people), strict=True)):
        texts, slopes = person.tried
        losses.append(_losses(model, texts, direction, n_threads))
        lengths = np.array(STEPS)
        promised.append(lengths * float(slopes.mean @ direction) - lengths**2 / 2 * bool(direction.any()))
        if progress:
            progress(i + 1, len(people))
    of_all = np.array(losses)  # [n_people, 1 + n_lengths, n_temperatures]
    best = of_all.mean(axis=0).argmin(axis=1)
    at_best = of_all[:, np.arange(of_all.shape[1]), best]
    error = at_best[:, :1] - at_best[:, 1:] - np.array(promised)
    means, deviations = error.mean(axis=0), error.std(axis=0, ddof=1)
    return QuadraticError(*(np.asarray(part, np.float32) for part in (STEPS, means, deviations)))


def _directions(people: Sequence[MeasuredPerson]) -> Iterator[Vector]:
    """Yield for each person the step of all others, at length 1."""
    for person in people:
        others = population_of([other.slopes for other in people if other is not person])
        yield others.fisher.scaled_to(others.step, 1.0)


def _losses(model: Model, texts: Sequence[ScoredText], direction: Vector, n_threads: int | None) -> NDArray[np.float64]:
    """Return the NLL per token [1 + n_lengths, n_temperatures] of one person's texts, the plain model first."""
    weights = grid(model.n_heads, direction)
    steerings = [Steering(amplified(weights, gamma), Gamma(1.0), mode="amplify") for gamma in (0.0, *STEPS)]
    held_out = HeldOutLosses(model, texts, "generated", n_threads)
    try:
        tokens = np.array([len(text.target) for text in texts])
        return np.tensordot(tokens / tokens.sum(), [held_out.of(text, steerings) for text in texts], axes=1)
    finally:
        held_out.close()
