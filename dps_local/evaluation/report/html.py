"""The report as one HTML page; its template stands with those of other drawings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dps_local.drawing.colour import page_colours
from dps_local.drawing.head_map import SCORE_NAMES, heat_map_data
from dps_local.drawing.overlap import matrix_rows, overlap_lines
from dps_local.drawing.text import printable
from dps_local.evaluation.comparison import Estimate
from dps_local.evaluation.condition import METHOD_MEANINGS, Condition
from dps_local.evaluation.report.figures import Panel, panels, tone_of, user_gain_charts, whiskers
from dps_local.evaluation.report.head_maps import mean_map, sparseness
from dps_local.evaluation.report.tally import tallies
from dps_local.evaluation.report.task_results import SweptSetting, TaskResults
from dps_local.evaluation.report.wording import (
    NOTHING,
    READING_NOTES,
    TITLE,
    VERDICTS,
    difference_text,
    direction_text,
    formatted,
    interval_text,
    metric_label,
    shares_text,
    signed,
)
from dps_local.maps.overlap import overlap

VERDICT_TONES = dict(zip(VERDICTS, (17, 10, 3, 10), strict=True))  # places among TONES
SETTING_SYMBOLS: dict[SweptSetting, str] = {"gamma": "γ", "heads": "K"}


def page(task_results: Sequence[TaskResults], about: Mapping[str, str]) -> dict[str, object]:
    return page_colours() | {
        "title": TITLE,
        "nothing": NOTHING,
        "tallies": tallies(task_results),
        "tones": VERDICT_TONES,
        "results_by_task": [_results_data(results) for results in task_results],
        "meanings": METHOD_MEANINGS,
        "reading_notes": READING_NOTES,
        "about": {printable(name): printable(text) for name, text in about.items()},
    }


def _results_data(results: TaskResults) -> dict[str, object]:
    return {
        "task": printable(results.task),
        "model": printable(results.model),
        "heading": results.heading,
        "findings": [*whiskers(results.findings), *whiskers(results.likelihood)],
        "metrics": [(metric_label(metric), direction_text(better)) for metric, better in results.metrics.items()],
        "best": results.condition_name(results.best.estimate.condition) if results.best else None,
        "conditions": [(results.condition_name(c), _cells(results, c)) for c in results.conditions],
        "comparisons": [_comparison(results, metric) for metric in results.metrics],
        "gains": user_gain_charts(results.findings),
        "better": metric_label(results.primary),
        "figures": list(_figures(results)),
        "heat": heat_map_data(mean_map(results.maps)) if results.maps else None,
        "maps": len(results.maps),
        "sparse": sparseness(results.maps) if results.maps else "",
        **_overlap(results),
    }


@dataclass(frozen=True)
class _Cell:
    """A number, what stands below it, and its place among TONES where it is surely better or worse."""

    text: str
    small: str = ""
    tone: int | None = None


def _cells(results: TaskResults, condition: Condition) -> list[_Cell]:
    return [_cell(results, results.by_condition.get((condition, metric))) for metric in results.metrics]


def _cell(results: TaskResults, estimate: Estimate | None) -> _Cell:
    if estimate is None:
        return _Cell("")
    metric, difference = estimate.metric, estimate.against.get("profile")
    text = f"{formatted(metric, estimate.value)}{f' ({signed(metric, difference.value)})' if difference else ''}"
    return _Cell(text, interval_text(estimate.metric, estimate.low, estimate.high), _tone(results, estimate, "profile"))


def _tone(results: TaskResults, estimate: Estimate, other: str) -> int | None:
    """Return the colour of a difference, by the largest that any condition makes in the same metric."""
    if estimate.verdict(other) not in ("helps", "hurts"):
        return None
    same_metric = [e for e in results.estimates if e.metric == estimate.metric and other in e.against]
    largest = max(abs(e.against[other].value) for e in same_metric)
    return tone_of(estimate.better * estimate.against[other].value, largest)


@dataclass(frozen=True)
class _Comparison:
    """A metric: of each condition, the difference to 'profile' and to 'random', users helped / hurt and the time."""

    label: str
    direction: str
    lines: list[tuple[str, list[_Cell]]]


def _comparison(results: TaskResults, metric: str) -> _Comparison:
    estimates = [results.by_condition.get((condition, metric)) for condition in results.conditions]
    lines = [_comparison_line(results, estimate) for estimate in estimates if estimate and estimate.against]
    return _Comparison(metric_label(metric), direction_text(results.metrics[metric]), lines)


def _comparison_line(results: TaskResults, estimate: Estimate) -> tuple[str, list[_Cell]]:
    shares = _Cell(shares_text(estimate.against.get("profile")))
    return results.condition_name(estimate.condition), [*_differences(results, estimate), shares]


def _differences(results: TaskResults, estimate: Estimate) -> Iterator[_Cell]:
    for other in ("profile", "random"):
        if difference := estimate.against.get(other):
            yield _Cell(difference_text(estimate.metric, difference), tone=_tone(results, estimate, other))
        else:
            yield _Cell("")


@dataclass(frozen=True)
class _Figure:
    """A metric against a setting, a panel for each method."""

    label: str
    symbol: str
    direction: str
    profile: str
    panels: list[Panel]


def _figures(results: TaskResults) -> Iterator[_Figure]:
    metrics = results.metrics
    for metric in dict.fromkeys(m for m in (results.primary, "nll_matched") if m in metrics):
        plain = results.by_condition.get((Condition("profile"), metric))
        for swept, symbol in SETTING_SYMBOLS.items():
            if curves := results.curves(metric, swept):
                value = formatted(metric, plain.value) if plain else ""
                drawings = panels(results, curves)
                yield _Figure(metric_label(metric), symbol, direction_text(metrics[metric]), value, drawings)


def _overlap(results: TaskResults) -> dict[str, object]:
    if len(results.maps) < 2:
        return {"overlap": None}
    shared = overlap(results.maps)
    ranking = SCORE_NAMES[next(iter(results.maps.values())).ranking]
    return {"overlap": matrix_rows(shared), "overlaps": overlap_lines(shared), "ranking": ranking}
