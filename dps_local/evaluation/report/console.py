"""The report in short, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dps_local.drawing.console import ConsoleText
from dps_local.drawing.text import printable
from dps_local.evaluation.comparison import Estimate
from dps_local.evaluation.report.finding import Finding
from dps_local.evaluation.report.tally import tallies
from dps_local.evaluation.report.task_results import LIKELIHOOD_METRIC, TaskResults, results_by_task
from dps_local.evaluation.report.wording import NOTHING, VERDICTS, difference_text, formatted, metric_label, shares_text

VERDICT_STYLES = dict(zip(VERDICTS, ("bold green", "", "bold red", ""), strict=True))


def summary_table(estimates: Sequence[Estimate]) -> RenderableType:
    """In each task on each model, what the calibrated condition and the best one gain against 'profile'."""
    task_results = [results for results in results_by_task(estimates, {}) if results.findings]
    if not task_results:
        return ConsoleText(Text(NOTHING))
    tables = (drawing for results in task_results for drawing in (*_title(results), *_summaries(results)))
    return Group(*tables, *(ConsoleText(Text(str(tally))) for tally in tallies(task_results)))


def _title(results: TaskResults) -> Iterator[RenderableType]:
    yield ConsoleText(Text(printable(f"{results.task}, {results.model}"), style="bold"))
    yield ConsoleText(Text(results.heading, style="dim"))
    yield Text()


def _summaries(results: TaskResults) -> Iterator[RenderableType]:
    yield _summary(results.findings)
    yield Text()
    if results.likelihood:
        yield ConsoleText(Text(f"by {metric_label(LIKELIHOOD_METRIC)}", style="dim"))
        yield _summary(results.likelihood)
        yield Text()


def _summary(findings: Sequence[Finding]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("condition", overflow="fold")
    table.add_column("minus 'profile'", justify="right", no_wrap=True)
    table.add_column("users helped / hurt", justify="right", min_width=11)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("verdict")
    for finding in findings:
        estimate, difference = finding.estimate, finding.estimate.against["profile"]
        time = formatted("time", finding.time.value) if finding.time else ""
        verdict = "; ".join(filter(None, (estimate.verdict(), finding.against_random)))
        name, gain = f"{estimate.condition}{finding.rank}", difference_text(estimate.metric, difference)
        cells = [Text(cell) for cell in (name, gain, shares_text(difference), time)]
        cells.append(Text(verdict, style=VERDICT_STYLES[estimate.verdict()]))
        table.add_row(*map(ConsoleText, cells))
    return table
