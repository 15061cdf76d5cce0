"""`Tally`: what was found in all tasks on all models together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dps_local.evaluation.report.finding import Finding
from dps_local.evaluation.report.task_results import LIKELIHOOD_METRIC, TaskResults
from dps_local.evaluation.report.wording import TOO_FEW, VERDICTS


@dataclass(frozen=True)
class Tally:
    """What was found in all tasks on all models together."""

    name: str
    findings: tuple[Finding, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many of each verdict; of TOO_FEW where there are any."""
        counts = {verdict: sum(f.estimate.verdict() == verdict for f in self.findings) for verdict in VERDICTS}
        return {verdict: n for verdict, n in counts.items() if n or verdict != TOO_FEW}

    @property
    def cost(self) -> str:
        """The shares of users helped, and the time: each where it is known."""
        helped = [100 * share for f in self.findings if (share := f.estimate.against["profile"].helped) is not None]
        times = [f.time.value for f in self.findings if f.time]
        clauses = [f"{_span(helped, 0)} % of users helped"] if helped else []
        return "; ".join([*clauses, *([f"a token takes {_span(times, 2)} times as long"] if times else [])])

    def __str__(self) -> str:
        verdicts = ", ".join(f"{verdict} in {n}" for verdict, n in self.counts.items())
        return "; ".join(filter(None, (f"{self.name}: {verdicts}, of {len(self.findings)}", self.cost))) + "."


def _span(values: Sequence[float], digits: int) -> str:
    return " to ".join(dict.fromkeys(f"{end:.{digits}f}" for end in (min(values), max(values))))


def tallies(task_results: Sequence[TaskResults]) -> list[Tally]:
    all_tallies = [
        Tally("Calibrated, so chosen without these queries", tuple(r.calibrated for r in task_results if r.calibrated)),
        Tally(
            "The same by the likelihood of the users’ own text",
            tuple(f for r in task_results if r.likelihood and (f := r.calibrated_by(LIKELIHOOD_METRIC))),
        ),
        Tally("The best condition each time, picked by these results", tuple(r.best for r in task_results if r.best)),
    ]
    return [tally for tally in all_tallies if tally.findings]
