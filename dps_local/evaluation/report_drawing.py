"""The report of an evaluation: as Markdown, as one HTML page with figures, and in short for the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dps_local.drawing.drawing import Spelled, page_colours, percent, printable, write_page
from dps_local.drawing.head_map_drawing import NAMES, drawn
from dps_local.drawing.overlap_drawing import matrix_rows, overlap_findings
from dps_local.evaluation.arms import MEANINGS, Arm
from dps_local.evaluation.comparison import Difference, Row
from dps_local.evaluation.report import (
    INTERVALS,
    LIKELIHOOD,
    VERDICTS,
    Finding,
    Maps,
    Over,
    Part,
    bounds,
    direction,
    label,
    mean_map,
    number,
    parts_of,
    sparseness,
    tallies,
    told,
)
from dps_local.evaluation.report_figures import Panel, gains_by_user, panels, signed, tone, whiskers
from dps_local.maps.overlap import overlap
from dps_local.system.files import atomic_write

TITLE = "Does steering help?"
NOTHING = "No arm that steers heads was compared with the profile alone; the tables show what was measured."
TONES_OF = dict(zip(VERDICTS, (17, 10, 3, 10), strict=True))  # places among drawing.TONES
STYLES = dict(zip(VERDICTS, ("bold green", "", "bold red", ""), strict=True))
MARKS = {"helps": "**{}**", "hurts": "{} ▼"}
SYMBOLS: dict[Over, str] = {"gamma": "γ", "heads": "K"}


def write_report(folder: Path, rows: Sequence[Row], maps: Maps, about: Mapping[str, str]) -> None:
    """Write report.md and report.html. maps: by whose they are; about: settings, versions and the date, for the end."""
    parts = parts_of(rows, maps)
    markdown = _markdown(parts, about)
    write_page(folder / "report.html", "evaluation.html", _page(parts, about))
    with atomic_write(folder / "report.md") as stream:
        stream.write(markdown.encode(errors="replace"))


def _value(row: Row) -> str:
    return told(row.metric, row.value, row.low, row.high)


def _difference(metric: str, found: Difference) -> str:
    return told(metric, found.value, found.low, found.high, signed)


def _users(found: Difference | None) -> str:
    if found is None or found.helped is None or found.hurt is None:
        return ""
    return f"{percent(found.helped)} / {percent(found.hurt)}"


def _heading(part: Part) -> str:
    """Return the primary metric, and on how much everything rests."""
    better = direction(part.metrics[part.primary])
    return f"{label(part.primary)}{f' ({better})' if better else ''}; {part.size}"


# --- terminal ---


def summary_table(rows: Sequence[Row]) -> RenderableType:
    """In each task on each model, what the calibrated arm and the best one are worth against 'profile'."""
    parts = [part for part in parts_of(rows, {}) if part.findings]
    if not parts:
        return Spelled(Text(NOTHING))
    tables = (drawing for part in parts for drawing in (*_title(part), *_summaries(part)))
    return Group(*tables, *(Spelled(Text(str(tally))) for tally in tallies(parts)))


def _title(part: Part) -> Iterator[RenderableType]:
    yield Spelled(Text(printable(f"{part.task}, {part.model}"), style="bold"))
    yield Spelled(Text(_heading(part), style="dim"))
    yield Text()


def _summaries(part: Part) -> Iterator[RenderableType]:
    yield _summary(part.findings)
    yield Text()
    if part.likelihood:
        yield Spelled(Text(f"by {label(LIKELIHOOD)}", style="dim"))
        yield _summary(part.likelihood)
        yield Text()


def _summary(findings: Sequence[Finding]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("arm", overflow="fold")
    table.add_column("minus 'profile'", justify="right", no_wrap=True)
    table.add_column("users helped / hurt", justify="right", min_width=11)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("verdict")
    for finding in findings:
        row, found = finding.row, finding.row.against["profile"]
        time = number("time", finding.time.value) if finding.time else ""
        verdict = "; ".join(filter(None, (row.verdict(), finding.chance)))
        cells = (f"{row.arm}{finding.rank}", _difference(row.metric, found), _users(found), time)
        table.add_row(*(Spelled(Text(cell)) for cell in cells), Spelled(Text(verdict, style=STYLES[row.verdict()])))
    return table


# --- Markdown ---


def _markdown(parts: Sequence[Part], about: Mapping[str, str]) -> str:
    blocks = [
        f"# {TITLE}",
        "\n\n".join(map(str, tallies(parts))) or NOTHING,
        "## At a glance",
        *(_glance(part) for part in parts if part.findings),
        "The figures are in `report.html`.",
        *(block for part in parts for block in _section(part)),
        "## What the arms do",
        "\n".join(f"- **{method}**: {meaning}" for method, meaning in MEANINGS.items()),
        "## How to read the numbers",
        *INTERVALS,
        "## About",
        "\n".join(f"- {_escaped(name)}: {_escaped(text)}" for name, text in about.items()),
    ]
    return "\n\n".join(blocks) + "\n"


def _glance(part: Part) -> str:
    lines = [f"- **{_name(part)}**: {_heading(part)}"]
    lines += [f"  - **{finding.row.verdict()}**: {finding}" for finding in (*part.findings, *part.likelihood)]
    return "\n".join(lines)


def _section(part: Part) -> Iterator[str]:
    yield f"## {_name(part)}"
    yield f"{_heading(part)}. Bold: the interval is on the better side of 0; ▼: on the worse side."
    yield _table(
        ["arm", label(part.primary), "minus 'profile'", "minus 'random'", "users helped / hurt", "time a token"],
        [_line(part, arm) for arm in part.arms],
    )
    metrics = part.metrics
    yield "<details><summary>All metrics</summary>"
    yield _table(
        ["arm", *(f"{label(m)}{f', {direction(better)}' if better else ''}" for m, better in metrics.items())],
        [[part.named(arm), *(_marked(part.by.get((arm, metric))) for metric in metrics)] for arm in part.arms],
    )
    yield "</details>"
    yield from _heads_in_words(part)


def _line(part: Part, arm: Arm) -> list[str]:
    row, time = part.by.get((arm, part.primary)), part.by.get((arm, "time"))
    against = [_compared(row, other) for other in ("profile", "random")]
    users = _users(row.against.get("profile")) if row else ""
    return [part.named(arm), _value(row) if row else "", *against, users, _value(time) if time else ""]


def _compared(row: Row | None, other: str) -> str:
    if row is None or other not in row.against:
        return ""
    return MARKS.get(row.verdict(other), "{}").format(_difference(row.metric, row.against[other]))


def _marked(row: Row | None) -> str:
    return MARKS.get(row.verdict(), "{}").format(_value(row)) if row else ""


def _heads_in_words(part: Part) -> Iterator[str]:
    if part.maps and (said := sparseness(part.maps)):
        yield said
    if len(part.maps) > 1:
        yield "Do the maps share heads? " + "; ".join(overlap_findings(overlap(part.maps))) + "."


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *lines))


def _name(part: Part) -> str:
    return _escaped(f"{part.task}, {part.model}")


def _escaped(text: str) -> str:
    """Return text that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]<>#|~&$])", r"\\\1", printable(text))


# --- HTML ---


def _page(parts: Sequence[Part], about: Mapping[str, str]) -> dict[str, object]:
    return page_colours() | {
        "title": TITLE,
        "nothing": NOTHING,
        "tallies": tallies(parts),
        "tones": TONES_OF,
        "parts": [_part(part) for part in parts],
        "meanings": MEANINGS,
        "intervals": INTERVALS,
        "about": {printable(name): printable(text) for name, text in about.items()},
    }


def _part(part: Part) -> dict[str, object]:
    metrics = part.metrics
    return {
        "task": printable(part.task),
        "model": printable(part.model),
        "heading": _heading(part),
        "findings": [*whiskers(part.findings), *whiskers(part.likelihood)],
        "metrics": [(label(metric), direction(better)) for metric, better in metrics.items()],
        "best": part.named(part.best.row.arm) if part.best else None,
        "arms": [
            (part.named(arm), [_cell(part, part.by.get((arm, metric))) for metric in metrics]) for arm in part.arms
        ],
        "comparisons": [_comparison(part, metric) for metric in metrics],
        "gains": gains_by_user(part.findings),
        "better": label(part.primary),
        "figures": list(_figures(part)),
        "heat": drawn(mean_map(part.maps)) if part.maps else None,
        "maps": len(part.maps),
        "sparse": sparseness(part.maps) if part.maps else "",
        **_overlap(part),
    }


@dataclass(frozen=True)
class _Cell:
    """A number, what stands below it, and its place among TONES where it is surely better or worse."""

    text: str
    small: str = ""
    tone: int | None = None


def _cell(part: Part, row: Row | None) -> _Cell:
    if row is None:
        return _Cell("")
    found = row.against.get("profile")
    text = f"{number(row.metric, row.value)}{f' ({signed(row.metric, found.value)})' if found else ''}"
    return _Cell(text, bounds(row.metric, row.low, row.high), _tone(part, row, "profile"))


def _tone(part: Part, row: Row, other: str) -> int | None:
    """Return the colour of a difference, by the largest that any arm makes in the same metric."""
    if row.verdict(other) not in ("helps", "hurts"):
        return None
    found = [r.against[other].value for r in part.rows if r.metric == row.metric and other in r.against]
    return tone(row.better * row.against[other].value, max(map(abs, found)))


@dataclass(frozen=True)
class _Comparison:
    """A metric: of each arm, the difference to 'profile' and to 'random', users helped / hurt and the time."""

    label: str
    direction: str
    lines: list[tuple[str, list[_Cell]]]


def _comparison(part: Part, metric: str) -> _Comparison:
    rows = [row for arm in part.arms if (row := part.by.get((arm, metric))) and row.against]
    lines = [
        (part.named(row.arm), [*_differences(part, row), _Cell(_users(row.against.get("profile")))]) for row in rows
    ]
    return _Comparison(label(metric), direction(part.metrics[metric]), lines)


def _differences(part: Part, row: Row) -> Iterator[_Cell]:
    for other in ("profile", "random"):
        found = row.against.get(other)
        yield _Cell(_difference(row.metric, found), tone=_tone(part, row, other)) if found else _Cell("")


@dataclass(frozen=True)
class _Figure:
    """A metric against a setting, a panel for each method."""

    label: str
    symbol: str
    direction: str
    profile: str
    panels: list[Panel]


def _figures(part: Part) -> Iterator[_Figure]:
    metrics = part.metrics
    for metric in dict.fromkeys(m for m in (part.primary, "nll_matched") if m in metrics):
        plain = part.by.get((Arm("profile"), metric))
        for over, symbol in SYMBOLS.items():
            if curves := part.curves(metric, over):
                value = number(metric, plain.value) if plain else ""
                drawings = panels(part, curves)
                yield _Figure(label(metric), symbol, direction(metrics[metric]), value, drawings)


def _overlap(part: Part) -> dict[str, object]:
    if len(part.maps) < 2:
        return {"overlap": None}
    found = overlap(part.maps)
    ranking = NAMES[next(iter(part.maps.values())).ranking]
    return {"overlap": matrix_rows(found), "overlaps": overlap_findings(found), "ranking": ranking}
