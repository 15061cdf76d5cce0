"""Where lines, bars and intervals of the report lie: in units of their SVG, which are pixels of a wide screen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from dps_local.drawing.text import MINUS
from dps_local.evaluation.comparison import Estimate
from dps_local.evaluation.report.finding import Finding
from dps_local.evaluation.report.task_results import Curve, TaskResults
from dps_local.evaluation.report.wording import formatted, metric_label, signed, with_interval

LEFT, TOP, BOTTOM = 54, 26, 146  # of the room for points
SLOT, WIDE_SLOT = 40, 66  # for a number, and for an entropy, whose name is longer
MAX_BARS_WIDTH, MAX_BAR_WIDTH = 520, 14
MAX_TICKS = 7
REACH = 66  # of an interval on either side of 0


def tone_of(gain: float, largest: float) -> int:
    """Return a place among TONES: pale at 0 only, so that a small gain is told from none."""
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
        power = 10.0 ** math.floor(math.log10(span / MAX_TICKS))
        step = next(power * n for n in (1, 2, 5, 10) if span <= MAX_TICKS * power * n)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        places = np.arange(math.ceil(self.low / step), math.floor(self.high / step) + 1)
        return [(f"{n * step:.{digits}f}".replace("-", MINUS) if n else "0", self(n * step)) for n in places.tolist()]


def scale_of(values: Iterable[float]) -> Scale:
    """Return an axis on which all values have room."""
    ends = list(values)
    low, high = min(ends), max(ends)
    room = 0.06 * (high - low) or 0.01 * abs(low) or 0.01
    return Scale(low - room, high + room)


@dataclass(frozen=True)
class Dot:
    """A value and its interval. names: of the setting, a line each. random_y: of random heads with that setting."""

    x: float
    y: float
    low: float
    high: float
    verdict: str
    names: list[str]
    tip: str
    random_y: float | None


@dataclass(frozen=True)
class Panel:
    """One method's line. zero: where 'profile' is; line, random_line: points of polylines."""

    title: str
    settings: str
    scale: Scale
    dots: list[Dot]
    zero: float | None
    line: str
    random_line: str
    width: float

    top = TOP
    left = LEFT
    bottom = BOTTOM
    height = BOTTOM + 44


def panels(results: TaskResults, curves: Sequence[Curve]) -> list[Panel]:
    return [_panel(results, curve) for curve in curves]


def _panel(results: TaskResults, curve: Curve) -> Panel:
    paired = all("profile" in estimate.against for estimate in curve.estimates)
    controls = [_control_value(results.random_control(estimate), paired) for estimate in curve.estimates]
    intervals = [_finite_interval(*_plotted(estimate, paired)) for estimate in curve.estimates]
    values = [value for interval in intervals for value in interval]
    scale = scale_of([*values, *(value for value in controls if value is not None), *[0.0] * paired])
    places, width = _places(curve)
    dots = [
        _dot(curve, estimate, x, interval, control, scale, paired)
        for x, estimate, interval, control in zip(places, curve.estimates, intervals, controls, strict=True)
    ]
    joined = [dot for dot, estimate in zip(dots, curve.estimates, strict=True) if not _adaptive(estimate, curve)]
    return Panel(
        title=curve.condition.method,
        settings=curve.condition.settings,
        scale=scale,
        dots=dots,
        zero=scale(0) if paired else None,
        line=_points((dot.x, dot.y) for dot in joined),
        random_line=_points((dot.x, dot.random_y) for dot in joined if dot.random_y is not None),
        width=width,
    )


def _dot(
    curve: Curve,
    estimate: Estimate,
    x: float,
    interval: tuple[float, float, float],
    control: float | None,
    scale: Scale,
    paired: bool,
) -> Dot:
    value, low, high = interval
    text = with_interval(estimate.metric, *_plotted(estimate, paired), signed if paired else formatted)
    return Dot(
        x=x,
        y=scale(value),
        low=scale(low),
        high=scale(high),
        verdict=estimate.verdict(),
        names=curve.at(estimate).split(":"),
        tip=f"{estimate.condition}: {text}",
        random_y=None if control is None else scale(control),
    )


def _control_value(control: Estimate | None, paired: bool) -> float | None:
    """Return where random heads lie, if they can be drawn beside the curve."""
    if control is None or (paired and "profile" not in control.against):
        return None
    return _plotted(control, paired)[0]


def _adaptive(estimate: Estimate, curve: Curve) -> bool:
    """Whether γ is no number, so that no line leads to it."""
    return curve.swept == "gamma" and estimate.condition.gamma is not None and estimate.condition.gamma.entropy


def _places(curve: Curve) -> tuple[list[float], float]:
    """Return the middles of the points, evenly spaced, and the width of the panel."""
    slots = [WIDE_SLOT if _adaptive(estimate, curve) else SLOT for estimate in curve.estimates]
    ends = LEFT + np.cumsum(slots)
    return (ends - np.array(slots) / 2).tolist(), max(float(ends[-1]) + 6, 170)


def _plotted(estimate: Estimate, paired: bool) -> tuple[float, float, float]:
    plotted = estimate.against["profile"] if paired else estimate
    return plotted.value, plotted.low, plotted.high


def _finite_interval(value: float, low: float, high: float) -> tuple[float, float, float]:
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
    bar_width: float

    top = TOP
    left = LEFT
    bottom = BOTTOM
    height = BOTTOM + 30

    @property
    def width(self) -> float:
        return max(LEFT + self.bar_width * len(self.bars) + 8, 190)


def user_gain_charts(findings: Sequence[Finding]) -> list[Bars]:
    """Return a chart for each finding, all on one scale."""
    gains = [sorted((f.estimate.better * x for x in f.estimate.by_user), reverse=True) for f in findings]
    everyone = [gain for each in gains for gain in each]
    if not everyone:
        return []
    scale, largest = scale_of([*everyone, 0.0]), max(map(abs, everyone))
    return [_bars(finding, each, scale, largest) for finding, each in zip(findings, gains, strict=True)]


def _bars(finding: Finding, gains: Sequence[float], scale: Scale, largest: float) -> Bars:
    bar_width = min(max(MAX_BARS_WIDTH // len(gains), 2), MAX_BAR_WIDTH)
    zero, metric = scale(0), finding.estimate.metric
    bars = [
        Bar(
            x=LEFT + i * bar_width,
            y=min(scale(gain), zero),
            height=round(max(abs(scale(gain) - zero), 1), 1),
            tone=tone_of(gain, largest),
            tip=f"{metric_label(metric)} {formatted(metric, abs(gain))} {'worse' if gain < 0 else 'better'}",
        )
        for i, gain in enumerate(gains)
    ]
    return Bars(str(finding.estimate.condition), finding.users, scale, zero, bars, bar_width)


@dataclass(frozen=True)
class Whisker:
    """A difference and its interval, to the right of the middle where the condition is better."""

    value: float
    low: float
    high: float

    middle = REACH + 4
    width = 2 * REACH + 8


def whiskers(findings: Sequence[Finding]) -> list[tuple[Finding, Whisker]]:
    """Return findings of one metric with their intervals, on one scale."""
    intervals = [_finite_interval(*finding.gain) for finding in findings]
    limit = max((abs(x) for interval in intervals for x in interval), default=0) or 1
    places = [Whisker(*(round(Whisker.middle + REACH * x / limit, 1) for x in interval)) for interval in intervals]
    return list(zip(findings, places, strict=True))
