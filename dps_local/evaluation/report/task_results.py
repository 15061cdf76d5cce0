"""`TaskResults`: what an evaluation found for one task on one model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from dps_local.drawing.text import counted
from dps_local.evaluation.comparison import Estimate
from dps_local.evaluation.condition import METHODS, PEER_METHODS, Condition
from dps_local.evaluation.report.finding import Finding
from dps_local.evaluation.report.wording import direction_text, metric_label
from dps_local.maps.head_map import HeadMap

SweptSetting = Literal["gamma", "heads"]
Maps = Mapping[tuple[str, str], Mapping[str, HeadMap]]  # of (task, model), by whose they are

# the first of these that a task has says whether a condition helps: of text, a number, a choice
PRIMARY_METRICS = (
    "rouge_l",
    "mae_likelihood",
    "mae_answer",
    "accuracy_likelihood",
    "accuracy_answer",
    "nll_matched",
)
LIKELIHOOD_METRIC = "nll_matched"  # tells more from few queries than answers do, and less of what a user will read
CONTROL_METHODS = ("none", "profile", "random", *PEER_METHODS)
STEERED_METHODS = [m for m in METHODS if m not in (*CONTROL_METHODS, "calibrated")]


@dataclass(frozen=True)
class Curve:
    """The estimates of conditions that differ in one setting alone, in its order. condition: without that setting."""

    condition: Condition
    swept: SweptSetting
    estimates: tuple[Estimate, ...]

    def at(self, estimate: Estimate) -> str:
        return str(getattr(estimate.condition, self.swept))


@dataclass(frozen=True)
class TaskResults:
    """One task on one model."""

    task: str
    model: str
    estimates: tuple[Estimate, ...]
    maps: Mapping[str, HeadMap]

    @cached_property
    def by_condition(self) -> dict[tuple[Condition, str], Estimate]:
        return {(estimate.condition, estimate.metric): estimate for estimate in self.estimates}

    @property
    def conditions(self) -> list[Condition]:
        return list(dict.fromkeys(estimate.condition for estimate in self.estimates))

    @property
    def metrics(self) -> dict[str, int]:
        """Which side of each metric is better, the primary one first."""
        metrics = {estimate.metric: estimate.better for estimate in self.estimates}
        return {self.primary: metrics[self.primary]} | metrics

    @cached_property
    def primary(self) -> str:
        metrics = dict.fromkeys(estimate.metric for estimate in self.estimates)
        return next((metric for metric in PRIMARY_METRICS if metric in metrics), next(iter(metrics)))

    @property
    def best(self) -> Finding | None:
        """The condition that steers heads and did best against 'profile'; picked by looking at the results."""
        return self.best_by(self.primary)

    @property
    def calibrated(self) -> Finding | None:
        return self.calibrated_by(self.primary)

    @property
    def findings(self) -> list[Finding]:
        return self._findings(self.primary)

    @property
    def likelihood(self) -> list[Finding]:
        """The same by likelihood, where that is not the primary metric."""
        return [] if self.primary == LIKELIHOOD_METRIC else self._findings(LIKELIHOOD_METRIC)

    def best_by(self, metric: str) -> Finding | None:
        estimates = self._compared(STEERED_METHODS, metric)
        if not estimates:
            return None
        best = max(estimates, key=_gain)
        control = max(self._compared(CONTROL_METHODS, metric), key=_gain, default=None)
        return self._finding(best, len(estimates), control if control and _gain(control) > _gain(best) else None)

    def calibrated_by(self, metric: str) -> Finding | None:
        estimates = self._compared(["calibrated"], metric)
        return self._finding(estimates[0]) if estimates else None

    def _findings(self, metric: str) -> list[Finding]:
        return [finding for finding in (self.calibrated_by(metric), self.best_by(metric)) if finding]

    @property
    def heading(self) -> str:
        """The primary metric, and on how much everything rests."""
        direction = direction_text(self.metrics[self.primary])
        return f"{metric_label(self.primary)}{f' ({direction})' if direction else ''}; {self.size}"

    @property
    def size(self) -> str:
        """On how much all of it rests."""
        estimate = self.findings[0].estimate if self.findings else self.estimates[0]
        return f"{counted(estimate.users, 'user')}, {_queries(estimate.queries)}, intervals over {estimate.unit}"

    def condition_name(self, condition: Condition) -> str:
        """Return a condition's name, with the number of its queries where others answered more."""
        estimate = self.by_condition.get((condition, self.primary))
        if estimate is None or estimate.queries == max(r.queries for r in self.estimates if r.metric == self.primary):
            return str(condition)
        return f"{condition}; {_queries(estimate.queries)}"

    def curves(self, metric: str, swept: SweptSetting) -> list[Curve]:
        lines: dict[Condition, list[Estimate]] = defaultdict(list)
        for estimate in self.estimates:
            if estimate.metric == metric and getattr(estimate.condition, swept) is not None:
                lines[_without(estimate.condition, swept)].append(estimate)
        return [
            Curve(condition, swept, tuple(sorted(estimates, key=_sort_key)))
            for condition, estimates in lines.items()
            if len(estimates) > 1
        ]

    def random_control(self, estimate: Estimate) -> Estimate | None:
        """Return the estimate of random heads with the same settings."""
        condition = Condition("random", estimate.condition.gamma, estimate.condition.heads, estimate.condition.beta)
        return None if condition == estimate.condition else self.by_condition.get((condition, estimate.metric))

    def _compared(self, methods: Sequence[str], metric: str) -> list[Estimate]:
        return [r for r in self.estimates if r.metric == metric and r.condition.method in methods and r.verdict()]

    def _finding(
        self, estimate: Estimate, best_of: int | None = None, better_control: Estimate | None = None
    ) -> Finding:
        return Finding(estimate, self.by_condition.get((estimate.condition, "time")), best_of, better_control)


def results_by_task(estimates: Sequence[Estimate], maps: Maps) -> list[TaskResults]:
    by_task: dict[tuple[str, str], list[Estimate]] = defaultdict(list)
    for estimate in estimates:
        by_task[estimate.task, estimate.model].append(estimate)
    return [TaskResults(*key, tuple(task_estimates), maps.get(key, {})) for key, task_estimates in by_task.items()]


def _gain(estimate: Estimate) -> float:
    return estimate.better * estimate.against["profile"].value


def _queries(n: int) -> str:
    return f"{n} {'query' if n == 1 else 'queries'}"


def _without(condition: Condition, swept: SweptSetting) -> Condition:
    return replace(condition, gamma=None) if swept == "gamma" else replace(condition, heads=None)


def _sort_key(estimate: Estimate) -> tuple[bool, float, float, str]:
    """Numbers in their order, then each kind of entropy."""
    gamma = estimate.condition.gamma
    strength = (gamma.entropy, gamma.value, str(gamma)) if gamma else (False, 0.0, "")
    return strength[0], strength[1], estimate.condition.heads or 0, strength[2]
