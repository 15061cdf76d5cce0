"""Head maps for people, one alone or the overlap of several: in the terminal, as a PNG, as one HTML page.

All three share one scale: orange where muting a head makes the user's text less likely, blue where it makes
it more likely, pale at 0, and clipped so that a few outliers do not wash out the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from dps_local.head_map import HeadMap
from dps_local.overlap import Overlap, ranked_by, sparsity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.floating[Any]]
Cell = Callable[[float, bool, int], Text]

CHOSEN = "●"
NAMES = {"pcs": "PCS", "gain": "gain", "contrast": "contrast", "pairwise": "pairwise"}
ENDS = {
    "pcs": ("text likelier without the head", "less likely without it"),
    "gain": ("speaks against the user’s words", "speaks for them"),
    "contrast": ("matters less with the profile", "more with it"),
}
TIMES = "\N{MULTIPLICATION SIGN}"
MINUS = "\N{MINUS SIGN}"
# blue, pale, orange: told apart with every common colour blindness
PRINT = ("#0b4a8f", "#6ea9d7", "#efeeea", "#f5a250", "#b34700")
NIGHT = ("#8cc8ff", "#2f6fa9", "#23272d", "#a9611b", "#ffb768")
TONES = np.linspace(-1, 1, 21)
SHADES = "≡=-·░▒█"
ASCII = str.maketrans({CHOSEN: "@", TIMES: "x", "±": "+-", "≡": "%", "·": ".", "░": ":", "▒": "*", "█": "#"})
ASCII |= str.maketrans({"γ": "gamma", "β": "beta", MINUS: "-", "…": "~", "␣": "_", "↵": "$", "⇥": ">"})


# --- scores ---


@dataclass(frozen=True, slots=True)
class Score:
    """A mean and its standard error, in nats per token; NaN stands for what was not measured."""

    mean: float
    stderr: float

    def __str__(self) -> str:
        error = f" ± {self.stderr:.4f}" if math.isfinite(self.stderr) else ""
        return f"{self.short}{error}"

    @property
    def short(self) -> str:
        return f"{self.mean:+.4f}" if math.isfinite(self.mean) else ""

    @property
    def z(self) -> str:
        known = math.isfinite(self.mean) and math.isfinite(self.stderr) and self.stderr > 0
        return f"{self.mean / self.stderr:+.1f}" if known else ""


@dataclass(frozen=True, slots=True)
class Row:
    """One attention head as a table shows it. scores: what was measured, by name; score: what it is ranked by."""

    rank: int
    layer: int
    head: int
    scores: dict[str, Score]
    score: Score
    n: str
    chosen: bool


def ranking(head_map: HeadMap) -> list[Row]:
    """Every head: the chosen ones in their order, then the others by what the map is ranked by, best first."""
    chosen = [(int(layer), int(head)) for layer, head in head_map.selected]
    taken = set(chosen)
    places = chosen + [place for place in _best_first(ranked_by(head_map)) if place not in taken]
    return [_row(head_map, rank, place, place in taken) for rank, place in enumerate(places, start=1)]


def _row(head_map: HeadMap, rank: int, place: tuple[int, int], chosen: bool) -> Row:
    scores = {
        name: Score(float(getattr(head_map, name)[place]), float(getattr(head_map, f"{name}_stderr")[place]))
        for name in NAMES
    }
    n = head_map.counts[place]
    return Row(rank, *place, scores, scores[head_map.ranking], f"{n:.0f}" if np.isfinite(n) else "", chosen)


def measured(head_map: HeadMap) -> list[str]:
    """The scores that the map has numbers of; PCS and gain in any case."""
    return [name for name in NAMES if name in ("pcs", "gain") or np.isfinite(getattr(head_map, name)).any()]


def _best_first(scores: Floats) -> list[tuple[int, int]]:
    layers, heads = np.nonzero(np.isfinite(scores))
    order = np.argsort(-scores[layers, heads], kind="stable")
    return list(zip(layers[order].tolist(), heads[order].tolist(), strict=True))


def limit_of(scores: Floats) -> float:
    """The end of the colour scale, in nats per token: the 98th percentile of |score|."""
    sizes = np.abs(scores[np.isfinite(scores)])
    if not sizes.size:
        return 1.0
    return float(np.percentile(sizes, 98)) or float(sizes.max()) or 1.0


def _tones(scores: Floats) -> Floats:
    """Scores as places on the scale, -1 to 1, [n_layer, n_head]; NaN stays."""
    return np.clip(np.where(np.isfinite(scores), scores, np.nan) / limit_of(scores), -1, 1)


def _unit(head_map: HeadMap) -> str:
    return f"{NAMES[head_map.ranking]}, nats per token"


def colour_of(tone: float, ramp: Sequence[str] = PRINT) -> str:
    stops = np.array([list(bytes.fromhex(stop[1:])) for stop in ramp])
    places = np.linspace(-1, 1, len(ramp))
    return "#" + bytes(round(np.interp(tone, places, channel)) for channel in stops.T).hex()


def ink_on(colour: str) -> str:
    """Black or white, whichever is told better from the ground."""
    channels = [byte / 255 for byte in bytes.fromhex(colour[1:])]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return "#000000" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 else "#ffffff"


def printable(text: str) -> str:
    """A name out of a model file may hold escape sequences."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def cut(name: str, room: int) -> str:
    return name if len(name) <= room else name[: room - 1] + "…"


def _step(room: float, needed: float) -> int:
    """How many columns or rows, each `room` wide, share one number that is `needed` wide."""
    return next(step for step in (1, 2, 5, 10, 20, 50, 100, 1000) if step * room >= needed)


def _size(head_map: HeadMap) -> str:
    layers, heads = head_map.pcs.shape
    return f"{count(layers, 'layer')} {TIMES} {count(heads, 'head')}"


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


# --- terminal ---


def heat_map(head_map: HeadMap) -> RenderableType:
    """Layers down, heads across; fits the console's width and says as much without colour."""
    return _HeatMap(head_map)


def ranked_table(head_map: HeadMap, top: int = 20) -> RenderableType:
    """The chosen heads in their order, then the next best, `top` rows unless more are chosen.

    A narrow console leaves some of the standard errors out, and z, and at last all but what the map is ranked by.
    """
    names = measured(head_map)
    rows = ranking(head_map)[: max(top, len(head_map.selected))]
    return Widest(
        [
            _table(rows, names, exact=names),
            _table(rows, names, exact=["pcs", "gain"]),
            _table(rows, names, exact=["pcs", "gain"], z=False),
            _table(rows, names, exact=["pcs"], z=False),
            _table(rows, names, exact=[], z=False),
            _table(rows, [head_map.ranking], exact=[head_map.ranking], z=False),
        ]
    )


def _table(rows: Sequence[Row], names: Sequence[str], exact: Sequence[str], z: bool = True) -> Table:
    """Return a table of the scores `names`, those in `exact` with their errors."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in ("rank", "layer", "head", *(NAMES[name] for name in names), *(["z"] if z else []), "n"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("chosen", justify="center", no_wrap=True)
    for row in rows:
        scores = [str(row.scores[name]) if name in exact else row.scores[name].short for name in names]
        end = [*([row.score.z] if z else []), row.n, CHOSEN if row.chosen else ""]
        cells = (str(row.rank), str(row.layer), str(row.head), *scores, *end)
        table.add_row(*(Spelled(Text(cell)) for cell in cells), style="bold" if row.chosen else None)
    return table


@dataclass(frozen=True, slots=True)
class Widest:
    """The first of several drawings that fits the console, else the last."""

    drawings: Sequence[RenderableType]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        unbounded = options.update(max_width=1000)
        fits = (d for d in self.drawings if Measurement.get(console, unbounded, d).maximum <= options.max_width)
        yield next(fits, self.drawings[-1])


def findings(head_map: HeadMap) -> list[str]:
    """What a map says in words, a line each: what was chosen, how sure that is, and what steering is worth."""
    lines = []
    if head_map.selected:
        lines.append(f"chosen by the lower bound of {NAMES[head_map.ranking]}: {count(len(head_map.selected), 'head')}")
    else:
        lines.append(f"no head qualifies: no lower bound of {NAMES[head_map.ranking]} is above 0")
    if sparse := sparsity(ranked_by(head_map)):
        lines.append(
            f"the best {sparse.k} of {count(sparse.heads, 'head')} hold {percent(sparse.share)} of all positive "
            f"{NAMES[head_map.ranking]}; Gini coefficient {sparse.gini:.2f}"
        )
    if head_map.stability:
        s = head_map.stability
        lines.append(
            f"halves of the examples agree on the ranking of {count(s.heads, 'head')}: Spearman {s.spearman:.2f}, "
            f"overlap of the best {s.jaccard:.2f}"
        )
    lines.append(f"null control {head_map.null_control:g}; {count(head_map.evaluations, 'head evaluation')}")
    lines.append(_worth(head_map, "your writing"))
    return lines


def _worth(head_map: HeadMap, whose: str) -> str:
    if head_map.calibration is None:
        return "too little history to calibrate: steering is off"
    return head_map.calibration.sentence(whose)


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


@dataclass(frozen=True, slots=True)
class Spelled:
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

    def __init__(self, head_map: HeadMap) -> None:
        self.head_map, self.scores = head_map, ranked_by(head_map)
        self.tones = _tones(self.scores)
        self.chosen = set(head_map.selected)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        cell = _painted if has_colour(console) else _shaded
        yield from self._title()
        for heads, width in self._blocks(options.max_width):
            yield Text()
            yield from map(Spelled, self._block(heads, width, cell))
        yield Text()
        yield from map(Spelled, self._legend(cell))

    def _title(self) -> Iterator[Spelled]:
        head_map = self.head_map
        yield Spelled(Text(printable(head_map.model), style="bold"))
        about = f"{printable(head_map.architecture)}, {_size(head_map)}, {count(head_map.examples, 'example')}"
        yield Spelled(Text(about, style="dim"))

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
        limit = limit_of(self.scores)
        gap, steps = (" ", len(SHADES)) if cell is _shaded else ("", len(TONES))
        bar = Text(gap).join(cell(tone, False, 1) for tone in np.linspace(-1, 1, steps))
        yield Text(f"{margin}{_unit(self.head_map)}", style="dim")
        yield Text.assemble(margin, f"{-limit:+.4f} ", bar, f" {limit:+.4f}")
        for layer, head in _best_first(self.scores)[:1]:
            yield Text(f"{margin}best: {self.scores[layer, head]:+.4f}, layer {layer}, head {head}")
        blank = "; blank: no head" if np.isnan(self.tones).any() else ""
        yield Text(f"{margin}{CHOSEN} chosen: {len(self.chosen)}{blank}")


def has_colour(console: Console) -> bool:
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
    style = Style(color=ink, bgcolor=colour_of(tone), bold=chosen)
    return Text((CHOSEN if chosen else " ").center(width), style=style)


def _shaded(tone: float, chosen: bool, width: int) -> Text:
    if math.isnan(tone):
        return Text(" " * width)
    shade = SHADES[round(tone * 3) + 3]
    mark, side = CHOSEN if chosen else shade, " " if shade == "·" else shade
    # a wide cell ends in a gap, so that equal neighbours stay two
    return Text({1: mark, 2: mark + side, 3: side + mark + " "}[width])


# --- PNG ---


def write_png(head_map: HeadMap, path: Path) -> None:
    """The heat map with the chosen heads outlined; needs the extra `plot`."""
    _save(_figure(head_map), path)


def _save(figure: Figure, path: Path) -> None:
    with atomic_write(path) as stream:
        figure.savefig(stream, format="png", dpi=200)


def _empty_figure(width: float, height: float) -> Figure:
    """Sizes in inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise DpsError("drawing a PNG needs matplotlib: pip install 'dps-local[plot]'") from exc
    figure = Figure(figsize=(width, height))
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    return figure


def _figure(head_map: HeadMap) -> Figure:
    layers, heads = head_map.pcs.shape
    # inches; a cell is at most twice as wide as high
    high = min(max(6.4 / max(layers, 1), 0.09), 0.26)
    width = max(heads * min(max(6.0 / max(heads, 1), 0.11), 2 * high) + 1.7, 4.6)
    figure = _empty_figure(width, layers * high + 1.4)
    axes = figure.add_subplot()
    _plot(head_map, figure, axes)
    _frame(head_map, axes)
    _name(head_map, axes, int(width * 9))
    return figure


def _plot(head_map: HeadMap, figure: Figure, axes: Axes) -> None:
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.patches import Rectangle

    limit = limit_of(ranked_by(head_map))
    colours = LinearSegmentedColormap.from_list("scores", PRINT)
    image = axes.imshow(ranked_by(head_map), cmap=colours, vmin=-limit, vmax=limit, aspect="auto")
    for layer, head in head_map.selected:
        corner = (head - 0.5, layer - 0.5)
        outline = Rectangle(corner, 1, 1, fill=False, edgecolor="black", linewidth=1.4, zorder=3)
        axes.add_patch(outline).set_clip_on(False)
    bar = figure.colorbar(image, ax=axes, extend="both", extendfrac=0.03, aspect=32, pad=0.03)
    bar.set_label(_unit(head_map), fontsize=9)
    bar.ax.tick_params(labelsize=8, length=2)
    bar.outline.set_visible(False)


def _frame(head_map: HeadMap, axes: Axes) -> None:
    """Numbers and thin white lines between the cells."""
    layers, heads = head_map.pcs.shape
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


def _name(head_map: HeadMap, axes: Axes, room: int) -> None:
    chosen = count(len(head_map.selected), "chosen head")
    about = f"{_size(head_map)}, {count(head_map.examples, 'example')}, {chosen} outlined"
    _above(axes, 22, cut(printable(head_map.model), room), fontsize=11, fontweight="bold")
    _above(axes, 8, about, fontsize=8, color="#555555")


def _above(axes: Axes, points: float, text: str, **look: Any) -> None:
    # a dollar sign in a name is no formula
    look |= {"xycoords": "axes fraction", "textcoords": "offset points", "parse_math": False}
    axes.annotate(text, (0, 1), (0, points), **look)


# --- HTML ---


def write_html(head_map: HeadMap, path: Path) -> None:
    """One page that needs nothing but itself: the heat map, what it means and the best heads."""
    page = template("head_map.html").render(_page(head_map))
    with atomic_write(path) as stream:
        stream.write(page.encode())


def template(name: str) -> Template:
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["sign"] = lambda text: str(text).replace("-", MINUS)
    return environment.get_template(name)


def _page(head_map: HeadMap) -> dict[str, object]:
    heads = ranking(head_map)
    return page_colours() | {
        "map": head_map,
        "model": printable(head_map.model),
        "architecture": printable(head_map.architecture),
        "examples": count(head_map.examples, "example"),
        "findings": findings(head_map),
        "steering": f"{head_map.mode}, γ = {head_map.gamma:g}" if head_map.gamma else "off",
        "names": {name: NAMES[name] for name in measured(head_map)},
        "done": "muted" if head_map.probe == 0 else f"scaled by {head_map.probe:g}",
        "drawn": drawn(head_map),
        "table": heads[: max(20, len(head_map.selected))],
    }


def drawn(head_map: HeadMap) -> dict[str, object]:
    """Return what the macro `head_figure` draws."""
    # the index into TONES of each head
    steps = np.nan_to_num((_tones(ranked_by(head_map)) + 1) * 10).round().astype(int)
    return {
        "size": _size(head_map),
        "unit": _unit(head_map),
        "ends": ENDS[head_map.ranking],
        "limit": f"{limit_of(ranked_by(head_map)):.4f}",
        "heads": ranking(head_map),
        "chosen": head_map.selected,
        "steps": steps.tolist(),
        "grid": _Grid(*head_map.pcs.shape),
    }


def page_colours() -> dict[str, object]:
    light, dark = ([colour_of(tone, ramp) for tone in TONES] for ramp in (PRINT, NIGHT))
    return {
        "light": list(zip(light, map(ink_on, light), strict=True)),
        "dark": list(zip(dark, map(ink_on, dark), strict=True)),
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


# --- several maps ---


def overlap_table(found: Overlap) -> RenderableType:
    """The matrix of overlaps, as numbers on colours, and what it says."""
    return _OverlapTable(found)


def overlap_findings(found: Overlap) -> list[str]:
    each = f"the best {found.k} of {count(found.heads, 'head')} of each map"
    return [
        f"overlap of {each}: heads in both divided by heads in either (Jaccard)",
        f"different maps overlap by {found.mean:.2f} on average, random choices would by {found.random:.2f}",
    ]


@dataclass(frozen=True, slots=True)
class _OverlapTable:
    found: Overlap

    cell = 6

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        about, means = overlap_findings(self.found)
        yield Spelled(Text(about, style="bold"))
        yield from map(Spelled, self._lines(options.max_width, has_colour(console)))
        yield Text()
        yield Spelled(Text(means))

    def _lines(self, width: int, colour: bool) -> Iterator[Text]:
        n = len(self.found.names)
        number = len(str(n))
        room = max(min(max(map(len, self.found.names)), width // 2 - number), 8)
        columns = max((width - number - room - 3) // self.cell, 1)
        for first in range(0, n, columns):
            block = range(first, min(first + columns, n))
            yield Text()
            numbers = "".join(str(column + 1).center(self.cell) for column in block)
            yield _line(Text(" " * (number + room + 3) + numbers.rstrip(), style="dim"))
            for row, name in enumerate(self.found.names):
                label = f"{row + 1:>{number}} {cut(printable(name), room):<{room}}  "
                cells = Text().join(self._cell(float(self.found.matrix[row, column]), colour) for column in block)
                yield _line(Text.assemble(label, cells))

    def _cell(self, share: float, colour: bool) -> Text:
        ground = colour_of(share)
        style = Style(color=ink_on(ground), bgcolor=ground) if colour else Style()
        return Text(f"{share:.2f}".center(self.cell), style=style)


def write_overlap_png(found: Overlap, path: Path) -> None:
    """The matrix of overlaps; needs the extra `plot`."""
    n = len(found.names)
    names = [cut(printable(name), 24) for name in found.names]
    side, margin = 0.5 * n, 0.08 * max(map(len, names)) + 0.4  # inches
    figure = _empty_figure(margin + max(side, 3.6), side + 1)
    axes = figure.add_subplot(anchor="W")
    from matplotlib.colors import LinearSegmentedColormap

    axes.imshow(found.matrix, cmap=LinearSegmentedColormap.from_list("shares", PRINT), vmin=-1, vmax=1)
    for row, column in np.ndindex(n, n):
        share = float(found.matrix[row, column])
        axes.text(column, row, f"{share:.2f}", ha="center", va="center", fontsize=8, color=ink_on(colour_of(share)))
    axes.set_xticks(range(n), [str(i + 1) for i in range(n)])
    axes.set_yticks(range(n), [f"{name}  {i + 1}" for i, name in enumerate(names)], parse_math=False)
    axes.set_xticks(np.arange(n + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(n + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=0.8)
    axes.tick_params(which="both", length=0, labelsize=8)
    axes.spines[:].set_visible(False)
    _above(axes, 22, f"Overlap of the best {found.k} of {count(found.heads, 'head')}", fontsize=11, fontweight="bold")
    about = f"Jaccard; mean of different maps {found.mean:.2f}, of random choices {found.random:.2f}"
    _above(axes, 8, about, fontsize=8, color="#555555")
    _save(figure, path)


def write_overlap_html(maps: Mapping[str, HeadMap], found: Overlap, path: Path) -> None:
    """One page that needs nothing but itself: the matrix of overlaps, and what each map says."""
    page = template("overlap.html").render(_overlap_page(maps, found))
    with atomic_write(path) as stream:
        stream.write(page.encode())


def _overlap_page(maps: Mapping[str, HeadMap], found: Overlap) -> dict[str, object]:
    one = next(iter(maps.values()))
    return page_colours() | {
        "model": printable(one.model),
        "architecture": printable(one.architecture),
        "size": _size(one),
        "fingerprint": one.fingerprint,
        "found": found,
        "best": f"{found.k} of {count(found.heads, 'head')}",
        "rows": matrix_rows(found),
        "maps": [_MapRow.of(name, head_map) for name, head_map in maps.items()],
    }


@dataclass(frozen=True, slots=True)
class _OverlapRow:
    """cells: what is written, and its place among TONES."""

    name: str
    cells: list[tuple[str, int]]


def matrix_rows(found: Overlap) -> list[_OverlapRow]:
    """Return what the macro `overlap_matrix` draws."""
    return [
        _OverlapRow(printable(name), [(f"{x:.2f}", round((x + 1) * 10)) for x in row])
        for name, row in zip(found.names, found.matrix.tolist(), strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _MapRow:
    name: str
    examples: int
    ranking: str
    chosen: int
    share: str
    gini: str
    calibration: str

    @classmethod
    def of(cls, name: str, head_map: HeadMap) -> _MapRow:
        sparse = sparsity(ranked_by(head_map))
        share, gini = (percent(sparse.share), f"{sparse.gini:.2f}") if sparse else ("", "")
        ranking, chosen = NAMES[head_map.ranking], len(head_map.selected)
        return cls(
            printable(name), head_map.examples, ranking, chosen, share, gini, _worth(head_map, "held-out writing")
        )
