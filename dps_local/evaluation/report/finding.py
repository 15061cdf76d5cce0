"""`Finding`: what a condition gains against 'profile', in a sentence."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dps_local.drawing.text import counted, percent
from dps_local.evaluation.comparison import Estimate
from dps_local.evaluation.report.wording import TOO_FEW, formatted, metric_label


@dataclass(frozen=True)
class Finding:
    """What a condition gains against 'profile' by one metric.

    best_of: of how many conditions it is the best; None where it was not picked by these results. better_control: the
    control that did better still.
    """

    estimate: Estimate
    time: Estimate | None
    best_of: int | None = None
    better_control: Estimate | None = None

    def __str__(self) -> str:
        clauses = (self._gain_text(), self.users, self._time_text(), self.against_random, self._control_text())
        return "; ".join(clause for clause in clauses if clause)

    @property
    def gain(self) -> tuple[float, float, float]:
        """The difference and its interval, turned so that above 0 is better."""
        difference, better = self.estimate.against["profile"], self.estimate.better
        low, high = sorted((better * difference.low, better * difference.high))
        return better * difference.value, low, high

    def _gain_text(self) -> str:
        metric = self.estimate.metric
        name = f"{self.estimate.condition}{self.rank}: {metric_label(metric)} {formatted(metric, self.estimate.value)}"
        gain, low, high = self.gain
        if not (low or high):
            return f"{name}, as with the profile alone"
        by = f"{'worse' if gain < 0 else 'better'} by {formatted(metric, abs(gain))}"
        return f"{name}, {by} than with the profile alone{_range(metric, low, high)}"

    @property
    def rank(self) -> str:
        return "" if self.best_of is None else f", best of {counted(self.best_of, 'condition')}"

    @property
    def users(self) -> str:
        against = self.estimate.against["profile"]
        if against.helped is None or against.hurt is None:
            return TOO_FEW
        return f"{percent(against.helped)} of users helped, {percent(against.hurt)} hurt"

    def _time_text(self) -> str:
        return f"a token takes {formatted('time', self.time.value)} times as long" if self.time else ""

    @property
    def against_random(self) -> str:
        texts = {
            "helps": "beats random heads",
            "hurts": "worse than random heads",
            "no difference shown": "not shown to beat random heads",
        }
        return texts.get(self.estimate.verdict("random"), "")

    def _control_text(self) -> str:
        control = self.better_control
        return f"'{control.condition}' does better ({formatted(control.metric, control.value)})" if control else ""


def _range(metric: str, low: float, high: float) -> str:
    if not math.isfinite(high - low):
        return ""
    ends = [formatted(metric, abs(end)) for end in (low, high)]
    sides = ["worse" if end < 0 else "better" for end in (low, high)]
    if sides[0] == sides[1]:
        return f" (95 %: {' to '.join(sorted(ends, key=float))} {sides[0]})"
    return f" (95 %: {ends[0]} worse to {ends[1]} better)"
