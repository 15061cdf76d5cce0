"""The overlap of several head maps for people: in the terminal, as a PNG, as one HTML page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.style import Style
from rich.text import Text

from dps_local.drawing.drawing import (
    Spelled,
    colour_map,
    colour_of,
    count,
    cropped,
    cut,
    empty_figure,
    has_colour,
    ink_on,
    page_colours,
    percent,
    printable,
    save_figure,
    write_above,
    write_page,
)
from dps_local.drawing.head_map_drawing import NAMES, size_of, worth
from dps_local.maps.head_map import HeadMap
from dps_local.maps.overlap import Overlap, ranked_by, sparsity


def overlap_table(found: Overlap) -> RenderableType:
    """The matrix of overlaps, as numbers on colours, and what it says."""
    return _Table(found)


def overlap_findings(found: Overlap) -> list[str]:
    each = f"the best {found.k} of {count(found.heads, 'head')} of each map"
    return [
        f"overlap of {each}: heads in both divided by heads in either (Jaccard)",
        f"different maps overlap by {found.mean:.2f} on average, random choices would by {found.random:.2f}",
    ]


@dataclass(frozen=True, slots=True)
class _Table:
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
            yield cropped(Text(" " * (number + room + 3) + numbers.rstrip(), style="dim"))
            for row, name in enumerate(self.found.names):
                label = f"{row + 1:>{number}} {cut(printable(name), room):<{room}}  "
                cells = Text().join(self._cell(float(self.found.matrix[row, column]), colour) for column in block)
                yield cropped(Text.assemble(label, cells))

    def _cell(self, share: float, colour: bool) -> Text:
        ground = colour_of(share)
        style = Style(color=ink_on(ground), bgcolor=ground) if colour else Style()
        return Text(f"{share:.2f}".center(self.cell), style=style)


def write_overlap_png(found: Overlap, path: Path) -> None:
    """The matrix of overlaps; needs the extra `plot`."""
    n = len(found.names)
    names = [cut(printable(name), 24) for name in found.names]
    side, margin = 0.5 * n, 0.08 * max(map(len, names)) + 0.4  # inches
    figure = empty_figure(margin + max(side, 3.6), side + 1)
    axes = figure.add_subplot(anchor="W")
    axes.imshow(found.matrix, cmap=colour_map(), vmin=-1, vmax=1)
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
    title = f"Overlap of the best {found.k} of {count(found.heads, 'head')}"
    write_above(axes, 22, title, fontsize=11, fontweight="bold")
    about = f"Jaccard; mean of different maps {found.mean:.2f}, of random choices {found.random:.2f}"
    write_above(axes, 8, about, fontsize=8, color="#555555")
    save_figure(figure, path)


def write_overlap_html(maps: Mapping[str, HeadMap], found: Overlap, path: Path) -> None:
    """One page that needs nothing but itself: the matrix of overlaps, and what each map says."""
    write_page(path, "overlap.html", _page(maps, found))


def _page(maps: Mapping[str, HeadMap], found: Overlap) -> dict[str, object]:
    one = next(iter(maps.values()))
    return page_colours() | {
        "model": printable(one.model),
        "architecture": printable(one.architecture),
        "size": size_of(one),
        "fingerprint": one.fingerprint,
        "found": found,
        "best": f"{found.k} of {count(found.heads, 'head')}",
        "rows": matrix_rows(found),
        "maps": [_MapRow.of(name, head_map) for name, head_map in maps.items()],
    }


@dataclass(frozen=True, slots=True)
class _Row:
    """cells: what is written, and its place among TONES."""

    name: str
    cells: list[tuple[str, int]]


def matrix_rows(found: Overlap) -> list[_Row]:
    """Return what the macro `overlap_matrix` draws."""
    return [
        _Row(printable(name), [(f"{x:.2f}", round((x + 1) * 10)) for x in row])
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
            printable(name), head_map.examples, ranking, chosen, share, gini, worth(head_map, "held-out writing")
        )
