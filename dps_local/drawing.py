"""A head map for people: in the terminal, as a PNG, as one HTML page.

All three share one scale: orange where muting a head makes the user's text less likely, blue where it makes
it more likely, pale at 0, and clipped so that a few outliers do not wash out the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from numpy.typing import NDArray
from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.style import Style
from rich.table import Table
from rich.text import Text

from dps_local.errors import DpsError
from dps_local.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.floating[Any]]
Cell = Callable[[float, bool, int], Text]

CHOSEN = "●"
TIMES = "\N{MULTIPLICATION SIGN}"
MINUS = "\N{MINUS SIGN}"
# blue, pale, orange: told apart with every common colour blindness
PRINT = ("#0b4a8f", "#6ea9d7", "#efeeea", "#f5a250", "#b34700")
NIGHT = ("#8cc8ff", "#2f6fa9", "#23272d", "#a9611b", "#ffb768")
TONES = np.linspace(-1, 1, 21)
SHADES = "≡=-·░▒█"
ASCII = str.maketrans({CHOSEN: "@", TIMES: "x", "±": "+-", "≡": "%", "·": ".", "░": ":", "▒": "*", "█": "#"})


class Scores(Protocol):
    """What a drawing needs of a head map."""

    @property
    def model(self) -> str: ...
    @property
    def architecture(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def scope(self) -> str: ...
    @property
    def pcs(self) -> Floats:
        """Nats per token, [n_layer, n_head], NaN where there is no head."""

    @property
    def pcs_stderr(self) -> Floats:
        """Nats per token, [n_layer, n_head]."""

    @property
    def examples(self) -> int: ...
    @property
    def selected(self) -> Sequence[tuple[int, int]]:
        """The chosen (layer, head), best first."""

    @property
    def gamma(self) -> float: ...


# --- scores ---


@dataclass(frozen=True, slots=True)
class Head:
    """One attention head; `pcs` and `stderr` in nats per token."""

    rank: int
    layer: int
    head: int
    pcs: float
    stderr: float
    chosen: bool

    @property
    def score(self) -> str:
        error = f" ± {self.stderr:.4f}" if math.isfinite(self.stderr) else ""
        return f"{self.pcs:+.4f}{error}"

    @property
    def z(self) -> str:
        known = math.isfinite(self.stderr) and self.stderr > 0
        return f"{self.pcs / self.stderr:+.1f}" if known else ""


def ranking(scores: Scores) -> list[Head]:
    """Every head: the chosen ones in their order, then the others by falling PCS."""
    chosen = [(int(layer), int(head)) for layer, head in scores.selected]
    taken = set(chosen)
    places = chosen + [place for place in _best_first(scores.pcs) if place not in taken]
    return [
        Head(rank, *place, float(scores.pcs[place]), float(scores.pcs_stderr[place]), place in taken)
        for rank, place in enumerate(places, start=1)
    ]


def _best_first(pcs: Floats) -> list[tuple[int, int]]:
    layers, heads = np.nonzero(np.isfinite(pcs))
    order = np.argsort(-pcs[layers, heads], kind="stable")
    return list(zip(layers[order].tolist(), heads[order].tolist(), strict=True))


def _limit(pcs: Floats) -> float:
    """The end of the colour scale, in nats per token: the 98th percentile of |PCS|."""
    sizes = np.abs(pcs[np.isfinite(pcs)])
    if not sizes.size:
        return 1.0
    return float(np.percentile(sizes, 98)) or float(sizes.max()) or 1.0


def _tones(pcs: Floats) -> Floats:
    """Scores as places on the scale, -1 to 1, [n_layer, n_head]; NaN stays."""
    return np.clip(np.where(np.isfinite(pcs), pcs, np.nan) / _limit(pcs), -1, 1)


def _colour(tone: float, ramp: Sequence[str] = PRINT) -> str:
    stops = np.array([list(bytes.fromhex(stop[1:])) for stop in ramp])
    places = np.linspace(-1, 1, len(ramp))
    return "#" + bytes(round(np.interp(tone, places, channel)) for channel in stops.T).hex()


def _printable(text: str) -> str:
    """A name out of a model file may hold escape sequences."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _step(room: float, needed: float) -> int:
    """How many columns or rows, each `room` wide, share one number that is `needed` wide."""
    return next(step for step in (1, 2, 5, 10, 20, 50, 100, 1000) if step * room >= needed)


def _size(scores: Scores) -> str:
    layers, heads = scores.pcs.shape
    return f"{_count(layers, 'layer')} {TIMES} {_count(heads, 'head')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


# --- terminal ---


def heat_map(scores: Scores) -> RenderableType:
    """Layers down, heads across; fits the console's width and says as much without colour."""
    return _HeatMap(scores)


def ranked_table(scores: Scores, top: int = 20) -> Table:
    """The chosen heads in their order, then the next best, `top` rows unless more are chosen."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("rank", "layer", "head", "PCS, nats per token", "z"):
        table.add_column(name, justify="right")
    table.add_column("chosen", justify="center")
    for head in ranking(scores)[: max(top, len(scores.selected))]:
        mark = CHOSEN if head.chosen else ""
        cells = (str(head.rank), str(head.layer), str(head.head), head.score, head.z, mark)
        table.add_row(*(_Spelled(Text(cell)) for cell in cells), style="bold" if head.chosen else None)
    return table


@dataclass(frozen=True, slots=True)
class _Spelled:
    """Text that turns to ASCII on a console that can write nothing else."""

    text: Text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._for(options)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self._for(options))

    def _for(self, options: ConsoleOptions) -> Text:
        if not options.ascii_only:
            return self.text
        text = self.text.copy()
        text.plain = text.plain.translate(ASCII).encode("ascii", "replace").decode()
        return text


class _HeatMap:
    margin = 6

    def __init__(self, scores: Scores) -> None:
        self.scores = scores
        self.tones = _tones(scores.pcs)
        self.chosen = set(scores.selected)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        cell = _painted if _has_colour(console) else _shaded
        yield from self._title()
        for heads, width in self._blocks(options.max_width):
            yield Text()
            yield from map(_Spelled, self._block(heads, width, cell))
        yield Text()
        yield from map(_Spelled, self._legend(cell))

    def _title(self) -> Iterator[_Spelled]:
        scores = self.scores
        yield _Spelled(Text(_printable(scores.model), style="bold"))
        about = f"{_printable(scores.architecture)}, {_size(scores)}, {_count(scores.examples, 'example')}"
        yield _Spelled(Text(about, style="dim"))

    def _blocks(self, room: int) -> Iterator[tuple[range, int]]:
        """The heads of each block of columns and the width of a cell in characters."""
        heads = self.tones.shape[1]
        # the number above the last column may be wider than the column
        room -= self.margin + len(str(heads)) - 1
        width = next((width for width in (3, 2) if heads * width <= room), 1)
        columns = heads if 0 < heads <= room else max(room // 10 * 10, 5)
        for first in range(0, heads, columns):
            yield range(first, min(first + columns, heads)), width

    def _block(self, heads: range, width: int, cell: Cell) -> Iterator[Text]:
        yield _line(Text(" " * (self.margin + (width - 1) // 2) + "head", style="dim"))
        yield _line(Text("layer " + _numbers(heads, width), style="dim"))
        for layer, tones in enumerate(self.tones):
            line = Text(f"{layer:>{self.margin - 1}} ", style="dim")
            row = Text().join(cell(tones[head], (layer, head) in self.chosen, width) for head in heads)
            yield _line(Text.assemble(line, row))

    def _legend(self, cell: Cell) -> Iterator[Text]:
        margin = " " * self.margin
        limit = _limit(self.scores.pcs)
        gap, steps = (" ", len(SHADES)) if cell is _shaded else ("", len(TONES))
        bar = Text(gap).join(cell(tone, False, 1) for tone in np.linspace(-1, 1, steps))
        yield Text(f"{margin}PCS, nats per token", style="dim")
        yield Text.assemble(margin, f"{-limit:+.4f} ", bar, f" {limit:+.4f}")
        for layer, head in _best_first(self.scores.pcs)[:1]:
            yield Text(f"{margin}best: {self.scores.pcs[layer, head]:+.4f}, layer {layer}, head {head}")
        blank = "; blank: no head" if np.isnan(self.tones).any() else ""
        yield Text(f"{margin}{CHOSEN} chosen: {len(self.chosen)}{blank}")


def _has_colour(console: Console) -> bool:
    # sixteen colours hold no scale
    return console.color_system in ("256", "truecolor") and not console.no_color


def _line(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "crop"
    return text


def _numbers(heads: range, width: int) -> str:
    """The numbers of the columns, as many as have room, each above the middle of its own."""
    step = _step(width, len(str(heads.stop - 1)) + 1)
    labelled = [head for head in heads if head % step == 0]
    indent = (labelled[0] - heads.start) * width + (width - 1) // 2
    return (" " * indent + "".join(str(head).ljust(step * width) for head in labelled)).rstrip()


def _painted(tone: float, chosen: bool, width: int) -> Text:
    if math.isnan(tone):
        return Text(" " * width)
    ink = "#ffffff" if abs(tone) > 0.75 else "#000000"
    style = Style(color=ink, bgcolor=_colour(tone), bold=chosen)
    return Text((CHOSEN if chosen else " ").center(width), style=style)


def _shaded(tone: float, chosen: bool, width: int) -> Text:
    if math.isnan(tone):
        return Text(" " * width)
    shade = SHADES[round(tone * 3) + 3]
    mark, side = CHOSEN if chosen else shade, " " if shade == "·" else shade
    # a wide cell ends in a gap, so that equal neighbours stay two
    return Text({1: mark, 2: mark + side, 3: side + mark + " "}[width])


# --- PNG ---


def write_png(scores: Scores, path: Path) -> None:
    """The heat map with the chosen heads outlined; needs the extra `plot`."""
    figure = _figure(scores)
    with atomic_write(path) as stream:
        figure.savefig(stream, format="png", dpi=200)


def _figure(scores: Scores) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise DpsError("drawing a PNG needs matplotlib: pip install 'dps-local[plot]'") from exc
    layers, heads = scores.pcs.shape
    # inches; a cell is at most twice as wide as high
    high = min(max(6.4 / max(layers, 1), 0.09), 0.26)
    width = max(heads * min(max(6.0 / max(heads, 1), 0.11), 2 * high) + 1.7, 4.6)
    figure = Figure(figsize=(width, layers * high + 1.4))
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    axes = figure.add_subplot()
    _plot(scores, figure, axes)
    _frame(scores, axes)
    _name(scores, axes, int(width * 9))
    return figure


def _plot(scores: Scores, figure: Figure, axes: Axes) -> None:
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.patches import Rectangle

    limit = _limit(scores.pcs)
    colours = LinearSegmentedColormap.from_list("pcs", PRINT)
    image = axes.imshow(scores.pcs, cmap=colours, vmin=-limit, vmax=limit, aspect="auto")
    for layer, head in scores.selected:
        corner = (head - 0.5, layer - 0.5)
        outline = Rectangle(corner, 1, 1, fill=False, edgecolor="black", linewidth=1.4, zorder=3)
        axes.add_patch(outline).set_clip_on(False)
    bar = figure.colorbar(image, ax=axes, extend="both", extendfrac=0.03, aspect=32, pad=0.03)
    bar.set_label("PCS, nats per token", fontsize=9)
    bar.ax.tick_params(labelsize=8, length=2)
    bar.outline.set_visible(False)


def _frame(scores: Scores, axes: Axes) -> None:
    """Numbers and thin white lines between the cells."""
    layers, heads = scores.pcs.shape
    axes.set_xticks(range(0, heads, _step(16, heads)))
    axes.set_yticks(range(0, layers, _step(16, layers)))
    axes.set_xticks(np.arange(heads + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(layers + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=0.3 if max(layers, heads) > 40 else 0.8)
    axes.tick_params(which="minor", length=0)
    axes.tick_params(labelsize=8, length=2)
    axes.set_xlabel("head", fontsize=9)
    axes.set_ylabel("layer", fontsize=9)
    axes.spines[:].set_visible(False)


def _name(scores: Scores, axes: Axes, room: int) -> None:
    name = _printable(scores.model)
    name = name if len(name) <= room else name[: room - 1] + "…"
    chosen = _count(len(scores.selected), "chosen head")
    about = f"{_size(scores)}, {_count(scores.examples, 'example')}, {chosen} outlined"
    _above(axes, 22, name, fontsize=11, fontweight="bold")
    _above(axes, 8, about, fontsize=8, color="#555555")


def _above(axes: Axes, points: float, text: str, **look: Any) -> None:
    # a dollar sign in a name is no formula
    look |= {"xycoords": "axes fraction", "textcoords": "offset points", "parse_math": False}
    axes.annotate(text, (0, 1), (0, points), **look)


# --- HTML ---


def write_html(scores: Scores, path: Path) -> None:
    """One page that needs nothing but itself: the heat map, what it means and the best heads."""
    page = _template("head_map.html").render(_page(scores))
    with atomic_write(path) as stream:
        stream.write(page.encode())


def _template(name: str) -> Template:
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["sign"] = lambda text: str(text).replace("-", MINUS)
    return environment.get_template(name)


def _page(scores: Scores) -> dict[str, object]:
    heads = ranking(scores)
    # the index into TONES of each head
    steps = np.nan_to_num((_tones(scores.pcs) + 1) * 10).round().astype(int)
    return {
        "scores": scores,
        "model": _printable(scores.model),
        "architecture": _printable(scores.architecture),
        "size": _size(scores),
        "examples": _count(scores.examples, "example"),
        "chosen": _count(len(scores.selected), "head"),
        "limit": f"{_limit(scores.pcs):.4f}",
        "heads": heads,
        "table": heads[: max(20, len(scores.selected))],
        "steps": steps.tolist(),
        "light": [_colour(tone) for tone in TONES],
        "dark": [_colour(tone, NIGHT) for tone in TONES],
        "grid": _Grid(*scores.pcs.shape),
    }


@dataclass(frozen=True, slots=True)
class _Grid:
    """Where things lie in the SVG, in its own units (pixels of a wide screen)."""

    layers: int
    heads: int

    left = 44
    top = 42

    @property
    def wide(self) -> int:
        return min(max(640 // max(self.heads, 1), 11), 44)

    @property
    def high(self) -> int:
        return min(self.wide, 20)

    @property
    def width(self) -> int:
        return self.left + self.heads * self.wide + 6

    @property
    def height(self) -> int:
        return self.top + self.layers * self.high + 2

    @property
    def narrowest(self) -> int:
        """Below this many pixels the map scrolls instead of shrinking."""
        return min(self.width, self.left + self.heads * 15)

    @property
    def columns(self) -> range:
        """The heads whose number is written."""
        return range(0, self.heads, _step(self.wide, 22))

    @property
    def rows(self) -> range:
        """The layers whose number is written."""
        return range(0, self.layers, _step(self.high, 13))
