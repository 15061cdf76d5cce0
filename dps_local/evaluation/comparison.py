"""`Estimate`: a condition's value by one metric, with intervals, alone and against other conditions."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dps_local.evaluation.condition import Condition
from dps_local.evaluation.metric import Metric, metrics_of
from dps_local.evaluation.record import Record
from dps_local.scoring.intervals import FEWEST, simultaneous_t

Unit = Literal["users", "queries"]  # of the intervals; queries where there is one user
Verdict = Literal["helps", "no difference shown", "hurts", "too few users", ""]


@dataclass(frozen=True)
class Difference:
    """A metric in a condition minus that in another, on the same queries; with a paired 95 % interval over units.

    helped, hurt: shares of users for whom the condition is better, and worse; None where the metric is neither, or
    there are fewer than FEWEST users.
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
class Estimate:
    """One number of an evaluation; low and high are infinite where one unit alone has it.

    by_user: the difference to 'profile' of each user, in the order of their names.
    """

    task: str
    model: str
    condition: Condition
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
        """Say what is sure about a condition against another: which side of 0 the whole interval lies on."""
        difference = self.against.get(other)
        if difference is None or not self.better:
            return ""
        if difference.users < FEWEST:
            return "too few users"
        low, high = sorted((self.better * difference.low, self.better * difference.high))
        return "helps" if low > 0 else "hurts" if high < 0 else "no difference shown"

    def as_json(self) -> dict[str, Any]:
        condition = self.condition.as_json()
        condition.pop("seed")
        return {
            "task": self.task,
            "model": self.model,
            **condition,
            "metric": self.metric,
            "value": self.value,
            "low": _finite(self.low),
            "high": _finite(self.high),
            "users": self.users,
            "queries": self.queries,
            "unit": self.unit,
            "against": {name: difference.as_json() for name, difference in self.against.items()},
        }


def compare(records: Iterable[Record]) -> list[Estimate]:
    """Return all estimates: by task, model, condition and metric, in the order in which they first appear."""
    by_task: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        by_task[record.task, record.model].append(record)
    return [estimate for task_records in by_task.values() for estimate in _TaskRecords(task_records).estimates()]


class _TaskRecords:
    """The records of one task on one model."""

    def __init__(self, records: list[Record]) -> None:
        self.records = records
        users = sorted({r.user for r in records})
        self.unit: Unit = "users" if len(users) > 1 else "queries"
        self.conditions: dict[Condition, list[Record]] = defaultdict(list)
        for record in records:
            self.conditions[record.condition.without_seed].append(record)

    def estimates(self) -> list[Estimate]:
        metrics = metrics_of(self.records)
        return [
            estimate
            for condition in self.conditions
            for metric in metrics
            if (estimate := self._estimate(condition, metric))
        ]

    def _estimate(self, condition: Condition, metric: Metric) -> Estimate | None:
        records = self._having(condition, metric)
        if not records:
            return None
        sums = self._sums(records, metric, self.unit)
        value, low, high = _interval(metric.value, np.array(list(sums.values())))
        against = {
            name: difference
            for name, other in self._baselines(condition).items()
            if (difference := self._difference(condition, other, metric))
        }
        first = records[0]
        return Estimate(
            task=first.task,
            model=first.model,
            condition=condition,
            metric=metric.name,
            better=metric.better,
            value=value,
            low=low,
            high=high,
            users=len({r.user for r in records}),
            queries=len({(r.user, r.query) for r in records}),
            unit=self.unit,
            against=against,
            by_user=tuple(self._by_user(condition, Condition("profile"), metric).tolist())
            if "profile" in against
            else (),
        )

    def _baselines(self, condition: Condition) -> dict[str, Condition]:
        """Return what a condition is compared with: the profile, and random heads with the same settings.

        A step by own texts is also compared with those without them: is it the person?
        """
        random = Condition("random", condition.gamma, condition.heads, condition.beta)
        baselines = {
            "profile": Condition("profile"),
            "random": random if random in self.conditions else self._first_random(),
        }
        if condition.method == "prior-own":
            baselines |= {"prior": replace(condition, method="prior"), "another": replace(condition, method="another")}
        return {name: other for name, other in baselines.items() if other in self.conditions and other != condition}

    def _first_random(self) -> Condition | None:
        """Return the first condition of random heads: for methods that have other settings."""
        return next((condition for condition in self.conditions if condition.method == "random"), None)

    def _having(self, condition: Condition, metric: Metric) -> list[Record]:
        return [r for r in self.conditions[condition] if metric.has(r)]

    def _sums(self, records: Sequence[Record], metric: Metric, unit: Unit) -> dict[tuple[str, ...], NDArray[Any]]:
        groups: dict[tuple[str, ...], list[Record]] = defaultdict(list)
        for r in records:
            groups[(r.user,) if unit == "users" else (r.user, r.query)].append(r)
        return {key: metric.sums(group) for key, group in sorted(groups.items())}

    def _pairs(
        self, condition: Condition, other: Condition, metric: Metric, unit: Unit
    ) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """Return the sums [n_units, n_sums] of two conditions over the queries that both have."""
        ours, theirs = self._having(condition, metric), self._having(other, metric)
        common = {(r.user, r.query) for r in ours} & {(r.user, r.query) for r in theirs}
        if not common:
            return None
        a, b = (self._sums([r for r in side if (r.user, r.query) in common], metric, unit) for side in (ours, theirs))
        return np.array(list(a.values())), np.array(list(b.values()))

    def _difference(self, condition: Condition, other: Condition, metric: Metric) -> Difference | None:
        pairs = self._pairs(condition, other, metric, self.unit)
        if pairs is None:
            return None
        width = pairs[0].shape[1]
        value, low, high = _interval(
            lambda sums: metric.value(sums[..., :width]) - metric.value(sums[..., width:]), np.hstack(pairs)
        )
        helped = hurt = None
        gains = metric.better * self._by_user(condition, other, metric)
        if metric.better and len(gains) >= FEWEST:
            helped, hurt = float((gains > 0).mean()), float((gains < 0).mean())
        return Difference(value, low, high, helped, hurt, len(gains))

    def _by_user(self, condition: Condition, other: Condition, metric: Metric) -> NDArray[np.float64]:
        pairs = self._pairs(condition, other, metric, "users")
        return np.empty(0) if pairs is None else np.asarray(metric.value(pairs[0]) - metric.value(pairs[1]))


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
