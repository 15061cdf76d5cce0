"""What the report of an evaluation says: whom steering helps, by how much, at what cost; data and sentences."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from dps_local.drawing.drawing import count, percent
from dps_local.evaluation.arms import METHODS, Arm
from dps_local.evaluation.comparison import Row
from dps_local.maps.head_map import HeadMap
from dps_local.maps.overlap import sparsity
from dps_local.scoring.intervals import DRAWS, FEWEST
from dps_local.scoring.statistics import mean_stderr

Over = Literal["gamma", "heads"]
Write = Callable[[str, float], str]  # a metric's value as text
Maps = Mapping[tuple[str, str], Mapping[str, HeadMap]]  # of (task, model), by whose they are

# the first of these that a task has says whether an arm helps: of text, a number, a choice
PRIMARY = (
    "rouge_l",
    "mae_likelihood",
    "mae_answer",
    "accuracy_likelihood",
    "accuracy_answer",
    "nll_matched",
)
LIKELIHOOD = "nll_matched"  # tells more from few queries than answers do, and less of what a user will read
STEERED = [m for m in METHODS if m not in ("none", "profile", "cad", "random", "calibrated")]
CONTROLS = ("none", "profile", "cad", "random")
TOO_FEW = "too few users"
VERDICTS = ("helps", "no difference shown", "hurts", TOO_FEW)
LABELS = {
    "nll": "NLL",
    "nll_matched": "NLL at the best temperature",
    "rouge_1": "ROUGE-1",
    "rouge_l": "ROUGE-L",
    "meteor": "METEOR",
    "meteor_stem": "METEOR of stems",
    "accuracy_likelihood": "accuracy by likelihood",
    "accuracy_answer": "accuracy by answer",
    "macro_f1_likelihood": "macro F1 by likelihood",
    "macro_f1_answer": "macro F1 by answer",
    "mae_likelihood": "MAE by likelihood",
    "mae_answer": "MAE by answer",
    "rmse_likelihood": "RMSE by likelihood",
    "rmse_answer": "RMSE by answer",
    "answer_perplexity": "perplexity of the answer",
    "time": "time a token",
    "length": "length ratio",
}
DIGITS = {"nll": 4, "nll_matched": 4, "time": 2, "answer_perplexity": 1}
INTERVALS = (
    f"Numbers in square brackets are 95 % intervals over users, by bootstrap-t: {DRAWS} times, as many users as there "
    "are are drawn with replacement, and the interval is as many standard errors wide as it takes to hold for 95 % of "
    "such draws, and never less than Student’s t. Differences are paired: both arms answer the same queries. Where a "
    f"task has fewer than {FEWEST} users there is no verdict; the interval of one user is over the queries, and says "
    "nothing of others.",
    "An arm helps, or hurts, where the whole interval of its difference lies on that side of 0. Of many arms that "
    "change nothing, about one in twenty would look as if it did, and the best of many looks better than it is. Only "
    "‘calibrated’ was chosen without the queries that it is judged by. The best arm is looked for among those that "
    "steer by heads measured on the user or the user’s cluster.",
    "A user is helped, or hurt, where the arm is better, or worse, over all of that user’s queries, by however little. "
    "Random heads are drawn several times and taken together. The time a token is divided by that of ‘profile’.",
)


def label(metric: str) -> str:
    return LABELS.get(metric, metric.replace("_", " "))


def direction(better: int) -> str:
    return {1: "higher is better", -1: "lower is better", 0: ""}[better]


def number(metric: str, value: float) -> str:
    return f"{value:.{DIGITS.get(metric, 3)}f}"


def told(metric: str, value: float, low: float, high: float, write: Write = number) -> str:
    return f"{write(metric, value)} {bounds(metric, low, high, write)}".rstrip()


def bounds(metric: str, low: float, high: float, write: Write = number) -> str:
    """Return an interval in brackets; "" for an infinite one."""
    return f"[{write(metric, low)}, {write(metric, high)}]" if math.isfinite(high - low) else ""


@dataclass(frozen=True)
class Finding:
    """What an arm is worth against 'profile' by the primary metric.

    among: how many arms it is the best of; None where it was not picked by these results. ahead: the control that did
    better still.
    """

    row: Row
    time: Row | None
    among: int | None = None
    ahead: Row | None = None

    def __str__(self) -> str:
        said = (self._worth(), self.users, self._cost(), self.chance, self._ahead())
        return "; ".join(part for part in said if part)

    @property
    def bounds(self) -> tuple[float, float, float]:
        """The difference and its interval, turned so that above 0 is better."""
        found, better = self.row.against["profile"], self.row.better
        low, high = sorted((better * found.low, better * found.high))
        return better * found.value, low, high

    def _worth(self) -> str:
        metric = self.row.metric
        name = f"{self.row.arm}{self.rank}: {label(metric)} {number(metric, self.row.value)}"
        gain, low, high = self.bounds
        if not (low or high):
            return f"{name}, as with the profile alone"
        by = f"{'worse' if gain < 0 else 'better'} by {number(metric, abs(gain))}"
        return f"{name}, {by} than with the profile alone{_range(metric, low, high)}"

    @property
    def rank(self) -> str:
        return "" if self.among is None else f", best of {count(self.among, 'arm')}"

    @property
    def users(self) -> str:
        against = self.row.against["profile"]
        if against.helped is None or against.hurt is None:
            return TOO_FEW
        return f"{percent(against.helped)} of users helped, {percent(against.hurt)} hurt"

    def _cost(self) -> str:
        return f"a token takes {number('time', self.time.value)} times as long" if self.time else ""

    @property
    def chance(self) -> str:
        said = {
            "helps": "beats random heads",
            "hurts": "worse than random heads",
            "no difference shown": "not shown to beat random heads",
        }
        return said.get(self.row.verdict("random"), "")

    def _ahead(self) -> str:
        return f"'{self.ahead.arm}' does better ({number(self.row.metric, self.ahead.value)})" if self.ahead else ""


def _range(metric: str, low: float, high: float) -> str:
    if not math.isfinite(high - low):
        return ""
    ends = [number(metric, abs(end)) for end in (low, high)]
    sides = ["worse" if end < 0 else "better" for end in (low, high)]
    if sides[0] == sides[1]:
        return f" (95 %: {' to '.join(sorted(ends, key=float))} {sides[0]})"
    return f" (95 %: {ends[0]} worse to {ends[1]} better)"


@dataclass(frozen=True)
class Curve:
    """The rows of arms that differ in one setting alone, in its order. arm: without that setting."""

    arm: Arm
    over: Over
    rows: tuple[Row, ...]

    def at(self, row: Row) -> str:
        return str(getattr(row.arm, self.over))


@dataclass(frozen=True)
class Part:
    """One task on one model."""

    task: str
    model: str
    rows: tuple[Row, ...]
    maps: Mapping[str, HeadMap]

    @cached_property
    def by(self) -> dict[tuple[Arm, str], Row]:
        return {(row.arm, row.metric): row for row in self.rows}

    @property
    def arms(self) -> list[Arm]:
        return list(dict.fromkeys(row.arm for row in self.rows))

    @property
    def metrics(self) -> dict[str, int]:
        """Which side of each metric is better, the primary one first."""
        found = {row.metric: row.better for row in self.rows}
        return {self.primary: found[self.primary]} | found

    @cached_property
    def primary(self) -> str:
        found = dict.fromkeys(row.metric for row in self.rows)
        return next((metric for metric in PRIMARY if metric in found), next(iter(found)))

    @property
    def best(self) -> Finding | None:
        """The arm that steers heads and did best against 'profile'; picked by looking at the results."""
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
        return [] if self.primary == LIKELIHOOD else self._findings(LIKELIHOOD)

    def best_by(self, metric: str) -> Finding | None:
        rows = self._compared(STEERED, metric)
        if not rows:
            return None
        best = max(rows, key=_gain)
        ahead = max(self._compared(CONTROLS, metric), key=_gain, default=None)
        return self._finding(best, len(rows), ahead if ahead and _gain(ahead) > _gain(best) else None)

    def calibrated_by(self, metric: str) -> Finding | None:
        rows = self._compared(["calibrated"], metric)
        return self._finding(rows[0]) if rows else None

    def _findings(self, metric: str) -> list[Finding]:
        return [finding for finding in (self.calibrated_by(metric), self.best_by(metric)) if finding]

    @property
    def size(self) -> str:
        """On how much all of it rests."""
        row = self.findings[0].row if self.findings else self.rows[0]
        return f"{count(row.users, 'user')}, {_queries(row.queries)}, intervals over {row.unit}"

    def named(self, arm: Arm) -> str:
        """Return an arm's name, with the number of its queries where others answered more."""
        row = self.by.get((arm, self.primary))
        if row is None or row.queries == max(r.queries for r in self.rows if r.metric == self.primary):
            return str(arm)
        return f"{arm}; {_queries(row.queries)}"

    def curves(self, metric: str, over: Over) -> list[Curve]:
        lines: dict[Arm, list[Row]] = defaultdict(list)
        for row in self.rows:
            if row.metric == metric and getattr(row.arm, over) is not None:
                lines[_without(row.arm, over)].append(row)
        return [Curve(arm, over, tuple(sorted(rows, key=_place))) for arm, rows in lines.items() if len(rows) > 1]

    def chance(self, row: Row) -> Row | None:
        """Return the row of random heads with the same settings."""
        arm = Arm("random", row.arm.gamma, row.arm.heads, row.arm.beta)
        return None if arm == row.arm else self.by.get((arm, row.metric))

    def _compared(self, methods: Sequence[str], metric: str) -> list[Row]:
        return [r for r in self.rows if r.metric == metric and r.arm.method in methods and r.verdict()]

    def _finding(self, row: Row, among: int | None = None, ahead: Row | None = None) -> Finding:
        return Finding(row, self.by.get((row.arm, "time")), among, ahead)


def parts_of(rows: Sequence[Row], maps: Maps) -> list[Part]:
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        found[row.task, row.model].append(row)
    return [Part(*key, tuple(part), maps.get(key, {})) for key, part in found.items()]


def _gain(row: Row) -> float:
    return row.better * row.against["profile"].value


def _queries(n: int) -> str:
    return f"{n} {'query' if n == 1 else 'queries'}"


def _without(arm: Arm, over: Over) -> Arm:
    return replace(arm, gamma=None) if over == "gamma" else replace(arm, heads=None)


def _place(row: Row) -> tuple[bool, float, float, str]:
    """Numbers in their order, then each kind of entropy."""
    gamma = row.arm.gamma
    strength = (gamma.entropy, gamma.value, str(gamma)) if gamma else (False, 0.0, "")
    return strength[0], strength[1], row.arm.heads or 0, strength[2]


@dataclass(frozen=True)
class Tally:
    """What was found in all tasks on all models together."""

    name: str
    findings: tuple[Finding, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many of each verdict; of TOO_FEW where there are any."""
        found = {verdict: sum(f.row.verdict() == verdict for f in self.findings) for verdict in VERDICTS}
        return {verdict: n for verdict, n in found.items() if n or verdict != TOO_FEW}

    @property
    def cost(self) -> str:
        """The shares of users helped, and the time: each where it is known."""
        helped = [100 * share for f in self.findings if (share := f.row.against["profile"].helped) is not None]
        times = [f.time.value for f in self.findings if f.time]
        said = [f"{_span(helped, 0)} % of users helped"] if helped else []
        return "; ".join([*said, *([f"a token takes {_span(times, 2)} times as long"] if times else [])])

    def __str__(self) -> str:
        verdicts = ", ".join(f"{verdict} in {n}" for verdict, n in self.counts.items())
        return "; ".join(filter(None, (f"{self.name}: {verdicts}, of {len(self.findings)}", self.cost))) + "."


def _span(values: Sequence[float], digits: int) -> str:
    return " to ".join(dict.fromkeys(f"{end:.{digits}f}" for end in (min(values), max(values))))


def tallies(parts: Sequence[Part]) -> list[Tally]:
    found = [
        Tally("Calibrated, so chosen without these queries", tuple(p.calibrated for p in parts if p.calibrated)),
        Tally(
            "The same by the likelihood of the users’ own text",
            tuple(f for p in parts if p.likelihood and (f := p.calibrated_by(LIKELIHOOD))),
        ),
        Tally("The best arm each time, picked by these results", tuple(p.best for p in parts if p.best)),
    ]
    return [tally for tally in found if tally.findings]


def mean_map(maps: Mapping[str, HeadMap]) -> HeadMap:
    """Return a map of the mean PCS of maps, with its standard error over them."""
    one = next(iter(maps.values()))
    mean, stderr, _ = mean_stderr(np.array([m.pcs.ravel() for m in maps.values()], np.float64))
    pcs, error = (x.reshape(one.pcs.shape).astype(np.float32) for x in (mean, stderr))
    return replace(one, ranking="pcs", pcs=pcs, pcs_stderr=error, selected=())


def sparseness(maps: Mapping[str, HeadMap]) -> str:
    """Say how few heads hold the positive PCS; nothing where no map has any."""
    found = [sparse for head_map in maps.values() if (sparse := sparsity(head_map.pcs))]
    if not found:
        return ""
    share, gini = np.mean([s.share for s in found]), np.mean([s.gini for s in found])
    of = f"means of {len(found)} maps" if len(found) > 1 else "one map"
    return (
        f"The best {found[0].k} of {count(found[0].heads, 'head')} hold {percent(float(share))} of all positive "
        f"PCS; Gini coefficient {gini:.2f} ({of})."
    )
