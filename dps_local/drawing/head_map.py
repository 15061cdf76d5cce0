"""Head maps for people: in the terminal, as a PNG, as one HTML page.

All three share one scale: orange where muting a head makes the user's text less likely, blue where it makes it more
likely.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.style import Style
from rich.table import Table
from rich.text import Text

from dps_local.drawing.colour import TONES, Floats, colour_limit, colour_of, page_colours
from dps_local.drawing.console import ConsoleText, FirstFitting, cropped, has_colour
from dps_local.drawing.figure import colour_map, empty_figure, save_figure, write_above
from dps_local.drawing.page import filled_in, write_page
from dps_local.drawing.text import CHOSEN, TIMES, counted, percent, printable, shortened
from dps_local.maps.overlap import sparsity
from dps_local.maps.scored_heads import ScoredHeads

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Cell = Callable[[float, bool, int], Text]

SCORE_NAMES = {"pcs": "PCS", "gain": "gain", "contrast": "contrast", "pairwise": "pairwise"}
SCALE_ENDS = {
    "pcs": ("text likelier without the head", "less likely without it"),
    "gain": ("speaks against the user’s words", "speaks for them"),
    "contrast": ("matters less with the profile", "more with it"),
}
SHADES = "≡=-·░▒█"


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
class RankedHead:
    """One attention head as a table shows it. scores: what was measured, by name; score: what it is ranked by."""

    rank: int
    layer: int
    head: int
    scores: dict[str, Score]
    score: Score
    n: str
    chosen: bool


def ranked_heads(head_map: ScoredHeads) -> list[RankedHead]:
    """Every head: the chosen ones in their order, then the others by what the map is ranked by, best first."""
    chosen = [(int(layer), int(head)) for layer, head in head_map.selected]
    taken = set(chosen)
    places = chosen + [place for place in _best_first(head_map.ranked_scores) if place not in taken]
    return [_row(head_map, rank, place, place in taken) for rank, place in enumerate(places, start=1)]


def _row(head_map: ScoredHeads, rank: int, place: tuple[int, int], chosen: bool) -> RankedHead:
    scores = {
        name: Score(float(mean[place]), float(stderr[place]))
        for name in SCORE_NAMES
        for mean, stderr in [head_map.scores(name)]
    }
    n = head_map.counts[place]
    return RankedHead(rank, *place, scores, scores[head_map.ranking], f"{n:.0f}" if np.isfinite(n) else "", chosen)


def measured_scores(head_map: ScoredHeads) -> list[str]:
    """The scores that the map has numbers of; PCS and gain in any case."""
    return [name for name in SCORE_NAMES if name in ("pcs", "gain") or np.isfinite(head_map.scores(name)[0]).any()]


def _best_first(scores: Floats) -> list[tuple[int, int]]:
    layers, heads = np.nonzero(np.isfinite(scores))
    order = np.argsort(-scores[layers, heads], kind="stable")
    return list(zip(layers[order].tolist(), heads[order].tolist(), strict=True))


def _tones(scores: Floats) -> Floats:
    """Scores as places on the scale, -1 to 1, [n_layer, n_head]; NaN stays."""
    return np.clip(np.where(np.isfinite(scores), scores, np.nan) / colour_limit(scores), -1, 1)


def _unit(head_map: ScoredHeads) -> str:
    return f"{SCORE_NAMES[head_map.ranking]}, nats per token"


def _step(room: float, needed: float) -> int:
    """How many columns or rows, each `room` wide, share one number that is `needed` wide."""
    return next(step for step in (1, 2, 5, 10, 20, 50, 100, 1000) if step * room >= needed)


def size_text(head_map: ScoredHeads) -> str:
    layers, heads = head_map.counts.shape
    return f"{counted(layers, 'layer')} {TIMES} {counted(heads, 'head')}"


# --- terminal ---


def heat_map(head_map: ScoredHeads) -> RenderableType:
    """Layers down, heads across; fits the console's width and says as much without colour."""
    return _HeatMap(head_map)


def head_table(head_map: ScoredHeads, top: int = 20) -> RenderableType:
    """The chosen heads in their order, then the next best, `top` rows unless more are chosen.

    A narrow console leaves some of the standard errors out, and z, and at last all but what the map is ranked by.
    """
    names = measured_scores(head_map)
    rows = ranked_heads(head_map)[: max(top, len(head_map.selected))]
    return FirstFitting(
        [
            _table(rows, names, exact=names),
            _table(rows, names, exact=["pcs", "gain"]),
            _table(rows, names, exact=["pcs", "gain"], z=False),
            _table(rows, names, exact=["pcs"], z=False),
            _table(rows, names, exact=[], z=False),
            _table(rows, [head_map.ranking], exact=[head_map.ranking], z=False),
        ]
    )


def _table(rows: Sequence[RankedHead], names: Sequence[str], exact: Sequence[str], z: bool = True) -> Table:
    """Return a table of the scores `names`, those in `exact` with their errors."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in ("rank", "layer", "head", *(SCORE_NAMES[name] for name in names), *(["z"] if z else []), "n"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("chosen", justify="center", no_wrap=True)
    for row in rows:
        scores = [str(row.scores[name]) if name in exact else row.scores[name].short for name in names]
        end = [*([row.score.z] if z else []), row.n, CHOSEN if row.chosen else ""]
        cells = (str(row.rank), str(row.layer), str(row.head), *scores, *end)
        table.add_row(*(ConsoleText(Text(cell)) for cell in cells), style="bold" if row.chosen else None)
    return table


def summary_lines(head_map: ScoredHeads) -> list[str]:
    """What a map says in words, a line each: what was chosen, how sure that is, and what steering is worth."""
    lines, name = [], SCORE_NAMES[head_map.ranking]
    if head_map.selected:
        lines.append(f"chosen by the lower bound of {name}: {counted(len(head_map.selected), 'head')}")
    else:
        lines.append(f"no head qualifies: no lower bound of {name} is above 0")
    if sparse := sparsity(head_map.ranked_scores):
        lines.append(
            f"the best {sparse.k} of {counted(sparse.heads, 'head')} hold {percent(sparse.share)} of all positive "
            f"{name}; Gini coefficient {sparse.gini:.2f}"
        )
    if head_map.reliability:
        s = head_map.reliability
        lines.append(
            f"halves of the examples agree on the ranking of {counted(s.heads, 'head')}: Spearman {s.spearman:.2f}, "
            f"overlap of the best {s.jaccard:.2f}"
        )
    lines.append(f"null control {head_map.null_control:g}; {counted(head_map.evaluations, 'head evaluation')}")
    lines.append(calibration_sentence(head_map, "your writing"))
    if head_map.calibration and head_map.calibration.end is not None:
        lines.append(f"it makes the ends of your texts likelier by {head_map.calibration.end:+.2f} nats a text")
    return lines


def calibration_sentence(head_map: ScoredHeads, whose: str) -> str:
    if head_map.calibration is None:
        return "too little history to calibrate: steering is off"
    return head_map.calibration.sentence(whose)


class _HeatMap:
    margin = 6

    def __init__(self, head_map: ScoredHeads) -> None:
        self.head_map, self.scores = head_map, head_map.ranked_scores
        self.tones = _tones(self.scores)
        self.chosen = set(head_map.selected)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        cell = _painted if has_colour(console) else _shaded
        yield from self._title()
        for heads, width in self._blocks(options.max_width):
            yield Text()
            yield from map(ConsoleText, self._block(heads, width, cell))
        yield Text()
        yield from map(ConsoleText, self._legend(cell))

    def _title(self) -> Iterator[ConsoleText]:
        head_map = self.head_map
        yield ConsoleText(Text(printable(head_map.model), style="bold"))
        about = f"{printable(head_map.architecture)}, {size_text(head_map)}, {counted(head_map.examples, 'example')}"
        yield ConsoleText(Text(about, style="dim"))

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
        yield cropped(Text(" " * (self.margin + (width - 1) // 2) + "head", style="dim"))
        yield cropped(Text("layer " + _numbers(heads, width), style="dim"))
        for layer, tones in enumerate(self.tones):
            line = Text(f"{layer:>{self.margin - 1}} ", style="dim")
            row = Text().join(cell(tones[head], (layer, head) in self.chosen, width) for head in heads)
            yield cropped(Text.assemble(line, row))

    def _legend(self, cell: Cell) -> Iterator[Text]:
        margin = " " * self.margin
        limit = colour_limit(self.scores)
        gap, steps = (" ", len(SHADES)) if cell is _shaded else ("", len(TONES))
        bar = Text(gap).join(cell(tone, False, 1) for tone in np.linspace(-1, 1, steps))
        yield Text(f"{margin}{_unit(self.head_map)}", style="dim")
        yield Text.assemble(margin, f"{-limit:+.4f} ", bar, f" {limit:+.4f}")
        for layer, head in _best_first(self.scores)[:1]:
            yield Text(f"{margin}best: {self.scores[layer, head]:+.4f}, layer {layer}, head {head}")
        blank = "; blank: no head" if np.isnan(self.tones).any() else ""
        yield Text(f"{margin}{CHOSEN} chosen: {len(self.chosen)}{blank}")


def _numbers(heads: range, width: int) -> str:
    """The numbers of the columns, as many as have room, each above the middle of its own."""
    step = _step(width, len(str(heads.stop - 1)) + 1)
    labelled = [head for head in heads if head % step == 0] or [heads.start]
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


def write_head_map_png(head_map: ScoredHeads, path: Path) -> None:
    """The heat map with the chosen heads outlined; needs the extra `plot`."""
    save_figure(_figure(head_map), path)


def _figure(head_map: ScoredHeads) -> Figure:
    layers, heads = head_map.counts.shape
    # inches; a cell is at most twice as wide as high
    cell_height = min(max(6.4 / max(layers, 1), 0.09), 0.26)
    width = max(heads * min(max(6.0 / max(heads, 1), 0.11), 2 * cell_height) + 1.7, 4.6)
    figure = empty_figure(width, layers * cell_height + 1.4)
    axes = figure.add_subplot()
    _plot(head_map, figure, axes)
    _frame(head_map, axes)
    _title(head_map, axes, int(width * 9))
    return figure


def _plot(head_map: ScoredHeads, figure: Figure, axes: Axes) -> None:
    from matplotlib.patches import Rectangle

    limit = colour_limit(head_map.ranked_scores)
    image = axes.imshow(head_map.ranked_scores, cmap=colour_map(), vmin=-limit, vmax=limit, aspect="auto")
    for layer, head in head_map.selected:
        corner = (head - 0.5, layer - 0.5)
        outline = Rectangle(corner, 1, 1, fill=False, edgecolor="black", linewidth=1.4, zorder=3)
        axes.add_patch(outline).set_clip_on(False)
    bar = figure.colorbar(image, ax=axes, extend="both", extendfrac=0.03, aspect=32, pad=0.03)
    bar.set_label(_unit(head_map), fontsize=9)
    bar.ax.tick_params(labelsize=8, length=2)
    bar.outline.set_visible(False)


def _frame(head_map: ScoredHeads, axes: Axes) -> None:
    """Numbers and thin white lines between the cells."""
    layers, heads = head_map.counts.shape
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


def _title(head_map: ScoredHeads, axes: Axes, room: int) -> None:
    chosen = counted(len(head_map.selected), "chosen head")
    about = f"{size_text(head_map)}, {counted(head_map.examples, 'example')}, {chosen} outlined"
    write_above(axes, 22, shortened(printable(head_map.model), room), fontsize=11, fontweight="bold")
    write_above(axes, 8, about, fontsize=8, color="#555555")


# --- HTML ---


def write_head_map_html(head_map: ScoredHeads, path: Path) -> None:
    """One page that needs nothing but itself: the heat map, what it means and the best heads."""
    write_page(path, "head_map.html", _page(head_map))


def bare_head_map_html(head_map: ScoredHeads) -> str:
    """Return what that page holds, for one that has its style sheet; `data-style` stands in place of `style`."""
    return filled_in("head_map.html", _page(head_map) | {"bare": True})


def _page(head_map: ScoredHeads) -> dict[str, object]:
    heads = ranked_heads(head_map)
    return page_colours() | {
        "map": head_map,
        "model": printable(head_map.model),
        "architecture": printable(head_map.architecture),
        "examples": counted(head_map.examples, "example"),
        "summary": summary_lines(head_map),
        "steering": f"{head_map.mode}, γ = {head_map.gamma:g}" if head_map.gamma else "off",
        "score_names": {name: SCORE_NAMES[name] for name in measured_scores(head_map)},
        "intervention": f"scaled by {head_map.ablation_scale:g}" if head_map.ablation_scale else "muted",
        "heat_map": heat_map_data(head_map),
        "table": heads[: max(20, len(head_map.selected))],
    }


def heat_map_data(head_map: ScoredHeads) -> dict[str, object]:
    """Return what the macro `head_figure` draws."""
    # the index into TONES of each head
    steps = np.nan_to_num((_tones(head_map.ranked_scores) + 1) * 10).round().astype(int)
    return {
        "size": size_text(head_map),
        "unit": _unit(head_map),
        "ends": SCALE_ENDS[head_map.ranking],
        "limit": f"{colour_limit(head_map.ranked_scores):.4f}",
        "heads": ranked_heads(head_map),
        "chosen": head_map.selected,
        "steps": steps.tolist(),
        "grid": _Grid(*head_map.counts.shape),
    }


@dataclass(frozen=True, slots=True)
class _Grid:
    """Where things lie in the SVG, in its own units (pixels of a wide screen)."""

    layers: int
    heads: int

    left = 44
    top = 42

    @property
    def cell_width(self) -> int:
        return min(max(640 // max(self.heads, 1), 11), 44)

    @property
    def cell_height(self) -> int:
        return min(self.cell_width, 20)

    @property
    def width(self) -> int:
        return self.left + self.heads * self.cell_width + 6

    @property
    def height(self) -> int:
        return self.top + self.layers * self.cell_height + 2

    @property
    def min_width(self) -> int:
        """Below this many pixels the map scrolls instead of shrinking."""
        return min(self.width, self.left + self.heads * 15)

    @property
    def columns(self) -> range:
        """The heads whose number is written."""
        return range(0, self.heads, _step(self.cell_width, 22))

    @property
    def rows(self) -> range:
        """The layers whose number is written."""
        return range(0, self.layers, _step(self.cell_height, 13))
