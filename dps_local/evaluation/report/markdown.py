"""The report as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from dps_local.drawing.overlap import overlap_lines
from dps_local.drawing.text import printable
from dps_local.evaluation.comparison import Estimate
from dps_local.evaluation.condition import METHOD_MEANINGS, Condition
from dps_local.evaluation.report.head_maps import sparseness
from dps_local.evaluation.report.tally import tallies
from dps_local.evaluation.report.task_results import TaskResults
from dps_local.evaluation.report.wording import (
    NOTHING,
    READING_NOTES,
    TITLE,
    difference_text,
    direction_text,
    metric_label,
    shares_text,
    value_text,
)
from dps_local.maps.overlap import overlap

VERDICT_MARKS = {"helps": "**{}**", "hurts": "{} ▼"}


def markdown(task_results: Sequence[TaskResults], about: Mapping[str, str]) -> str:
    blocks = [
        f"# {TITLE}",
        "\n\n".join(map(str, tallies(task_results))) or NOTHING,
        "## At a glance",
        *(_glance(results) for results in task_results if results.findings),
        "The figures are in `report.html`.",
        *(block for results in task_results for block in _section(results)),
        "## What the conditions do",
        "\n".join(f"- **{method}**: {meaning}" for method, meaning in METHOD_MEANINGS.items()),
        "## How to read the numbers",
        *READING_NOTES,
        "## About",
        "\n".join(f"- {_escaped(name)}: {_escaped(text)}" for name, text in about.items()),
    ]
    return "\n\n".join(blocks) + "\n"


def _glance(results: TaskResults) -> str:
    lines = [f"- **{_name(results)}**: {results.heading}"]
    findings = (*results.findings, *results.likelihood)
    lines += [f"  - **{finding.estimate.verdict()}**: {finding}" for finding in findings]
    return "\n".join(lines)


def _section(results: TaskResults) -> Iterator[str]:
    yield f"## {_name(results)}"
    yield f"{results.heading}. Bold: the interval is on the better side of 0; ▼: on the worse side."
    yield _table(
        [
            "condition",
            metric_label(results.primary),
            "minus 'profile'",
            "minus 'random'",
            "users helped / hurt",
            "time a token",
        ],
        [_line(results, condition) for condition in results.conditions],
    )
    yield "<details><summary>All metrics</summary>"
    yield _table(
        ["condition", *(_column_name(metric, better) for metric, better in results.metrics.items())],
        [_all_metrics(results, condition) for condition in results.conditions],
    )
    yield "</details>"
    yield from _heads_in_words(results)


def _column_name(metric: str, better: int) -> str:
    return f"{metric_label(metric)}{f', {direction_text(better)}' if better else ''}"


def _all_metrics(results: TaskResults, condition: Condition) -> list[str]:
    estimates = (results.by_condition.get((condition, metric)) for metric in results.metrics)
    return [results.condition_name(condition), *map(_marked_value, estimates)]


def _line(results: TaskResults, condition: Condition) -> list[str]:
    estimate = results.by_condition.get((condition, results.primary))
    time = results.by_condition.get((condition, "time"))
    against = [_marked_difference(estimate, other) for other in ("profile", "random")]
    users = shares_text(estimate.against.get("profile")) if estimate else ""
    value, time_text = value_text(estimate) if estimate else "", value_text(time) if time else ""
    return [results.condition_name(condition), value, *against, users, time_text]


def _marked_difference(estimate: Estimate | None, other: str) -> str:
    if estimate is None or other not in estimate.against:
        return ""
    mark = VERDICT_MARKS.get(estimate.verdict(other), "{}")
    return mark.format(difference_text(estimate.metric, estimate.against[other]))


def _marked_value(estimate: Estimate | None) -> str:
    return VERDICT_MARKS.get(estimate.verdict(), "{}").format(value_text(estimate)) if estimate else ""


def _heads_in_words(results: TaskResults) -> Iterator[str]:
    if results.maps and (sentence := sparseness(results.maps)):
        yield sentence
    if len(results.maps) > 1:
        yield "Do the maps share heads? " + "; ".join(overlap_lines(overlap(results.maps))) + "."


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *lines))


def _name(results: TaskResults) -> str:
    return _escaped(f"{results.task}, {results.model}")


def _escaped(text: str) -> str:
    """Return text that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]<>#|~&$])", r"\\\1", printable(text))
