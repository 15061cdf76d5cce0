"""Where lines, bars and intervals of the report lie: in units of their SVG, which are pixels of a wide screen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from dps_local.drawing.drawing import MINUS
from dps_local.evaluation.comparison import Row
from dps_local.evaluation.report import Curve, Finding, Part, label, number, told

LEFT, TOP, BOTTOM = 54, 26, 146  # of the room for points
SLOT, WIDE_SLOT = 40, 66  # for a number, and for an entropy, whose name is longer
MOST_BARS, WIDEST_BAR = 520, 14
MOST_TICKS = 7
REACH = 66  # of an interval on either side of 0


def signed(metric: str, value: float) -> str:
    return f"{'-' if value < 0 else '+'}{number(metric, abs(value))}".replace("-", MINUS)


def tone(gain: float, largest: float) -> int:
    """Return a place among drawing.TONES: pale at 0 only, so that a small gain is told from none."""
    if not gain:
        return 10
    return round(10 + math.copysign(3 + 7 * min(abs(gain) / largest, 1), gain))


@dataclass(frozen=True)
class Scale:
    """A vertical axis from low to high."""

    low: float
    high: float

    def __call__(self, value: float) -> float:
        return round(BOTTOM - (value - self.low) / (self.high - self.low) * (BOTTOM - TOP), 1)

    @property
    def ticks(self) -> list[tuple[str, float]]:
        """A few round numbers, and where they are."""
        span = self.high - self.low
        power = 10.0 ** math.floor(math.log10(span / MOST_TICKS))
        step = next(power * n for n in (1, 2, 5, 10) if span <= MOST_TICKS * power * n)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        places = np.arange(math.ceil(self.low / step), math.floor(self.high / step) + 1)
        return [(f"{n * step:.{digits}f}".replace("-", MINUS) if n else "0", self(n * step)) for n in places.tolist()]


def scale_of(values: Iterable[float]) -> Scale:
    """Return an axis on which all values have room."""
    found = list(values)
    low, high = min(found), max(found)
    room = 0.06 * (high - low) or 0.01 * abs(low) or 0.01
    return Scale(low - room, high + room)


@dataclass(frozen=True)
class Dot:
    """A value and its interval. sure: 'helps', 'hurts' or neither; names: of the setting, a line each."""

    x: float
    y: float
    low: float
    high: float
    sure: str
    names: list[str]
    tip: str
    chance: float | None


@dataclass(frozen=True)
class Panel:
    """One method's line. zero: where 'profile' is; line, chance: points of polylines."""

    title: str
    settings: str
    scale: Scale
    dots: list[Dot]
    zero: float | None
    line: str
    chance: str
    width: float

    top = TOP
    left = LEFT
    bottom = BOTTOM
    height = BOTTOM + 44


def panels(part: Part, curves: Sequence[Curve]) -> list[Panel]:
    return [_panel(part, curve) for curve in curves]


def _panel(part: Part, curve: Curve) -> Panel:
    paired = all("profile" in row.against for row in curve.rows)
    chances = [part.chance(row) for row in curve.rows]
    seen = [_drawn(*_seen(row, paired)) for row in curve.rows]
    theirs = [_seen(row, paired)[0] if row and (not paired or "profile" in row.against) else None for row in chances]
    scale = scale_of([v for row in seen for v in row] + [v for v in theirs if v is not None] + [0.0] * paired)
    places, width = _places(curve)
    dots = [
        Dot(
            x=x,
            y=scale(value),
            low=scale(low),
            high=scale(high),
            sure=row.verdict(),
            names=curve.at(row).split(":"),
            tip=f"{row.arm}: {told(row.metric, *_seen(row, paired), signed if paired else number)}",
            chance=None if by_chance is None else scale(by_chance),
        )
        for x, row, (value, low, high), by_chance in zip(places, curve.rows, seen, theirs, strict=True)
    ]
    joined = [dot for dot, row in zip(dots, curve.rows, strict=True) if not _adaptive(row, curve)]
    return Panel(
        title=curve.arm.method,
        settings=curve.arm.settings,
        scale=scale,
        dots=dots,
        zero=scale(0) if paired else None,
        line=_points((dot.x, dot.y) for dot in joined),
        chance=_points((dot.x, dot.chance) for dot in joined if dot.chance is not None),
        width=width,
    )


def _adaptive(row: Row, curve: Curve) -> bool:
    """Whether γ is no number, so that no line leads to it."""
    return curve.over == "gamma" and row.arm.gamma is not None and row.arm.gamma.entropy


def _places(curve: Curve) -> tuple[list[float], float]:
    """Return the middles of the points, evenly spaced, and the width of the panel."""
    slots = [WIDE_SLOT if _adaptive(row, curve) else SLOT for row in curve.rows]
    ends = LEFT + np.cumsum(slots)
    return (ends - np.array(slots) / 2).tolist(), max(float(ends[-1]) + 6, 170)


def _seen(row: Row, paired: bool) -> tuple[float, float, float]:
    found = row.against["profile"] if paired else row
    return found.value, found.low, found.high


def _drawn(value: float, low: float, high: float) -> tuple[float, float, float]:
    """Return a value and its interval as they are drawn: an infinite one is not."""
    return (value, low, high) if math.isfinite(high - low) else (value, value, value)


def _points(places: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in places)


@dataclass(frozen=True)
class Bar:
    x: float
    y: float
    height: float
    tone: int
    tip: str


@dataclass(frozen=True)
class Bars:
    """The gain of each user, best first."""

    title: str
    about: str
    scale: Scale
    zero: float
    bars: list[Bar]
    bar: float

    top = TOP
    left = LEFT
    bottom = BOTTOM
    height = BOTTOM + 30

    @property
    def width(self) -> float:
        return max(LEFT + self.bar * len(self.bars) + 8, 190)


def gains_by_user(findings: Sequence[Finding]) -> list[Bars]:
    """Return a chart for each finding, all on one scale."""
    gains = [sorted((f.row.better * x for x in f.row.by_user), reverse=True) for f in findings]
    everyone = [gain for each in gains for gain in each]
    if not everyone:
        return []
    scale, largest = scale_of([*everyone, 0.0]), max(map(abs, everyone))
    return [_bars(finding, each, scale, largest) for finding, each in zip(findings, gains, strict=True)]


def _bars(finding: Finding, gains: Sequence[float], scale: Scale, largest: float) -> Bars:
    wide = min(max(MOST_BARS // len(gains), 2), WIDEST_BAR)
    zero, metric = scale(0), finding.row.metric
    bars = [
        Bar(
            x=LEFT + i * wide,
            y=min(scale(gain), zero),
            height=round(max(abs(scale(gain) - zero), 1), 1),
            tone=tone(gain, largest),
            tip=f"{label(metric)} {number(metric, abs(gain))} {'worse' if gain < 0 else 'better'}",
        )
        for i, gain in enumerate(gains)
    ]
    return Bars(str(finding.row.arm), finding.users, scale, zero, bars, wide)


@dataclass(frozen=True)
class Whisker:
    """A difference and its interval, to the right of the middle where the arm is better."""

    value: float
    low: float
    high: float

    middle = REACH + 4
    width = 2 * REACH + 8


def whiskers(findings: Sequence[Finding]) -> list[tuple[Finding, Whisker]]:
    """Return findings of one metric with their intervals, on one scale."""
    drawn = [_drawn(*finding.bounds) for finding in findings]
    limit = max((abs(x) for ends in drawn for x in ends), default=0) or 1
    places = [Whisker(*(round(Whisker.middle + REACH * x / limit, 1) for x in ends)) for ends in drawn]
    return list(zip(findings, places, strict=True))
