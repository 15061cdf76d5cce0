"""`Row`: what an arm is worth by one measure, with intervals, alone and against other arms."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dps_local.evaluation.arms import Arm
from dps_local.evaluation.measures import Measure, measures_of
from dps_local.evaluation.records import Record
from dps_local.scoring.intervals import FEWEST, simultaneous_t

Unit = Literal["users", "queries"]  # of the intervals; queries where there is one user
Verdict = Literal["helps", "no difference shown", "hurts", "too few users", ""]


@dataclass(frozen=True)
class Difference:
    """A measure in an arm minus that in another, on the same queries; with a paired 95 % interval over units.

    helped, hurt: shares of users for whom the arm is better, and worse; None where the measure is neither, or there
    are fewer than FEWEST users.
    """

    value: float
    low: float
    high: float
    helped: float | None
    hurt: float | None
    users: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"low": _finite(self.low), "high": _finite(self.high)}


@dataclass(frozen=True)
class Row:
    """One number of an evaluation; low and high are infinite where one unit alone has it.

    by_user: the difference to 'profile' of each user, in the order of their names.
    """

    task: str
    model: str
    arm: Arm
    metric: str
    better: int
    value: float
    low: float
    high: float
    users: int
    queries: int
    unit: Unit
    against: dict[str, Difference]
    by_user: tuple[float, ...] = ()

    def verdict(self, other: str = "profile") -> Verdict:
        """Say what is sure about an arm against another: which side of 0 the whole interval lies on."""
        difference = self.against.get(other)
        if difference is None or not self.better:
            return ""
        if difference.users < FEWEST:
            return "too few users"
        low, high = sorted((self.better * difference.low, self.better * difference.high))
        return "helps" if low > 0 else "hurts" if high < 0 else "no difference shown"

    def as_json(self) -> dict[str, Any]:
        arm = self.arm.as_json()
        arm.pop("seed")
        return {
            "task": self.task,
            "model": self.model,
            **arm,
            "metric": self.metric,
            "value": self.value,
            "low": _finite(self.low),
            "high": _finite(self.high),
            "users": self.users,
            "queries": self.queries,
            "unit": self.unit,
            "against": {name: difference.as_json() for name, difference in self.against.items()},
        }


def compare(records: Iterable[Record]) -> list[Row]:
    """Return all rows: by task, model, arm and measure, in the order in which they first appear."""
    parts: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        parts[record.task, record.model].append(record)
    return [row for part in parts.values() for row in _Part(part).rows()]


class _Part:
    """The records of one task on one model."""

    def __init__(self, records: list[Record]) -> None:
        self.records = records
        users = sorted({r.user for r in records})
        self.unit: Unit = "users" if len(users) > 1 else "queries"
        self.arms: dict[Arm, list[Record]] = defaultdict(list)
        for record in records:
            self.arms[record.arm.seedless].append(record)

    def rows(self) -> list[Row]:
        measures = measures_of(self.records)
        return [row for arm in self.arms for measure in measures if (row := self._row(arm, measure))]

    def _row(self, arm: Arm, measure: Measure) -> Row | None:
        found = self._having(arm, measure)
        if not found:
            return None
        sums = self._sums(found, measure, self.unit)
        value, low, high = _interval(measure.value, np.array(list(sums.values())))
        against = {
            name: difference
            for name, other in self._baselines(arm).items()
            if (difference := self._difference(arm, other, measure))
        }
        first = found[0]
        return Row(
            task=first.task,
            model=first.model,
            arm=arm,
            metric=measure.name,
            better=measure.better,
            value=value,
            low=low,
            high=high,
            users=len({r.user for r in found}),
            queries=len({(r.user, r.query) for r in found}),
            unit=self.unit,
            against=against,
            by_user=tuple(self._by_user(arm, Arm("profile"), measure).tolist()) if "profile" in against else (),
        )

    def _baselines(self, arm: Arm) -> dict[str, Arm]:
        """Return what an arm is compared with: the profile, and random heads with the same settings."""
        random = Arm("random", arm.gamma, arm.heads, arm.beta)
        found = {"profile": Arm("profile"), "random": random if random in self.arms else self._random()}
        return {name: other for name, other in found.items() if other in self.arms and other != arm}

    def _random(self) -> Arm | None:
        """Return the first arm of random heads: for methods that have other settings."""
        return next((arm for arm in self.arms if arm.method == "random"), None)

    def _having(self, arm: Arm, measure: Measure) -> list[Record]:
        return [r for r in self.arms[arm] if measure.has(r)]

    def _sums(self, records: Sequence[Record], measure: Measure, unit: Unit) -> dict[tuple[str, ...], NDArray[Any]]:
        groups: dict[tuple[str, ...], list[Record]] = defaultdict(list)
        for r in records:
            groups[(r.user,) if unit == "users" else (r.user, r.query)].append(r)
        return {key: measure.sums(group) for key, group in sorted(groups.items())}

    def _pairs(self, arm: Arm, other: Arm, measure: Measure, unit: Unit) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """Return the sums [n_units, n_sums] of two arms over the queries that both have."""
        ours, theirs = self._having(arm, measure), self._having(other, measure)
        common = {(r.user, r.query) for r in ours} & {(r.user, r.query) for r in theirs}
        if not common:
            return None
        a, b = (self._sums([r for r in side if (r.user, r.query) in common], measure, unit) for side in (ours, theirs))
        return np.array(list(a.values())), np.array(list(b.values()))

    def _difference(self, arm: Arm, other: Arm, measure: Measure) -> Difference | None:
        pairs = self._pairs(arm, other, measure, self.unit)
        if pairs is None:
            return None
        width = pairs[0].shape[1]
        value, low, high = _interval(
            lambda sums: measure.value(sums[..., :width]) - measure.value(sums[..., width:]), np.hstack(pairs)
        )
        helped = hurt = None
        gains = measure.better * self._by_user(arm, other, measure)
        if measure.better and len(gains) >= FEWEST:
            helped, hurt = float((gains > 0).mean()), float((gains < 0).mean())
        return Difference(value, low, high, helped, hurt, len(gains))

    def _by_user(self, arm: Arm, other: Arm, measure: Measure) -> NDArray[np.float64]:
        pairs = self._pairs(arm, other, measure, "users")
        return np.empty(0) if pairs is None else np.asarray(measure.value(pairs[0]) - measure.value(pairs[1]))


def _interval(value: Any, sums: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the value of units with sums [n_units, n_sums], and its interval, infinite for one unit.

    What a unit adds to a value that is no mean is found by leaving it out (the jackknife).
    """
    n, whole = len(sums), float(value(sums.mean(axis=0)))
    if n == 1:
        return whole, -math.inf, math.inf
    added = n * whole - (n - 1) * value((sums.sum(axis=0) - sums) / (n - 1))
    stderr = float(added.std(ddof=1)) / math.sqrt(n)
    below, above = simultaneous_t(added[:, None])
    return whole, whole - below * stderr, whole + above * stderr


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None
