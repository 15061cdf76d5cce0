"""The overlap of several head maps for people: in the terminal, as a PNG, as one HTML page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.style import Style
from rich.text import Text

from dps_local.drawing.colour import colour_of, page_colours, text_colour
from dps_local.drawing.console import ConsoleText, cropped, has_colour
from dps_local.drawing.figure import colour_map, empty_figure, save_figure, write_above
from dps_local.drawing.head_map import SCORE_NAMES, calibration_sentence, size_text
from dps_local.drawing.page import write_page
from dps_local.drawing.text import counted, percent, printable, shortened
from dps_local.maps.overlap import Overlap, sparsity
from dps_local.maps.scored_heads import ScoredHeads


def overlap_table(overlap: Overlap) -> RenderableType:
    """The matrix of overlaps, as numbers on colours, and what it says."""
    return _Table(overlap)


def overlap_lines(overlap: Overlap) -> list[str]:
    each = f"the best {overlap.k} of {counted(overlap.heads, 'head')} of each map"
    return [
        f"overlap of {each}: heads in both divided by heads in either (Jaccard)",
        f"different maps overlap by {overlap.mean:.2f} on average, random choices would by {overlap.random:.2f}",
    ]


@dataclass(frozen=True, slots=True)
class _Table:
    overlap: Overlap

    cell = 6

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        about, means = overlap_lines(self.overlap)
        yield ConsoleText(Text(about, style="bold"))
        yield from map(ConsoleText, self._lines(options.max_width, has_colour(console)))
        yield Text()
        yield ConsoleText(Text(means))

    def _lines(self, width: int, colour: bool) -> Iterator[Text]:
        n = len(self.overlap.names)
        number = len(str(n))
        room = max(min(max(map(len, self.overlap.names)), width // 2 - number), 8)
        columns = max((width - number - room - 3) // self.cell, 1)
        for first in range(0, n, columns):
            block = range(first, min(first + columns, n))
            yield Text()
            numbers = "".join(str(column + 1).center(self.cell) for column in block)
            yield cropped(Text(" " * (number + room + 3) + numbers.rstrip(), style="dim"))
            for row, name in enumerate(self.overlap.names):
                label = f"{row + 1:>{number}} {shortened(printable(name), room):<{room}}  "
                cells = Text().join(self._cell(float(self.overlap.matrix[row, column]), colour) for column in block)
                yield cropped(Text.assemble(label, cells))

    def _cell(self, share: float, colour: bool) -> Text:
        ground = colour_of(share)
        style = Style(color=text_colour(ground), bgcolor=ground) if colour else Style()
        return Text(f"{share:.2f}".center(self.cell), style=style)


def write_overlap_png(overlap: Overlap, path: Path) -> None:
    """The matrix of overlaps; needs the extra `plot`."""
    n = len(overlap.names)
    names = [shortened(printable(name), 24) for name in overlap.names]
    side, margin = 0.5 * n, 0.08 * max(map(len, names)) + 0.4  # inches
    figure = empty_figure(margin + max(side, 3.6), side + 1)
    axes = figure.add_subplot(anchor="W")
    axes.imshow(overlap.matrix, cmap=colour_map(), vmin=-1, vmax=1)
    for row, column in np.ndindex(n, n):
        share = float(overlap.matrix[row, column])
        axes.text(
            column, row, f"{share:.2f}", ha="center", va="center", fontsize=8, color=text_colour(colour_of(share))
        )
    axes.set_xticks(range(n), [str(i + 1) for i in range(n)])
    axes.set_yticks(range(n), [f"{name}  {i + 1}" for i, name in enumerate(names)], parse_math=False)
    axes.set_xticks(np.arange(n + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(n + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=0.8)
    axes.tick_params(which="both", length=0, labelsize=8)
    axes.spines[:].set_visible(False)
    title = f"Overlap of the best {overlap.k} of {counted(overlap.heads, 'head')}"
    write_above(axes, 22, title, fontsize=11, fontweight="bold")
    about = f"Jaccard; mean of different maps {overlap.mean:.2f}, of random choices {overlap.random:.2f}"
    write_above(axes, 8, about, fontsize=8, color="#555555")
    save_figure(figure, path)


def write_overlap_html(maps: Mapping[str, ScoredHeads], overlap: Overlap, path: Path) -> None:
    """One page that needs nothing but itself: the matrix of overlaps, and what each map says."""
    write_page(path, "overlap.html", _page(maps, overlap))


def _page(maps: Mapping[str, ScoredHeads], overlap: Overlap) -> dict[str, object]:
    first = next(iter(maps.values()))
    return page_colours() | {
        "model": printable(first.model),
        "architecture": printable(first.architecture),
        "size": size_text(first),
        "fingerprint": first.fingerprint,
        "overlap": overlap,
        "best": f"{overlap.k} of {counted(overlap.heads, 'head')}",
        "rows": matrix_rows(overlap),
        "maps": [_MapRow.of(name, head_map) for name, head_map in maps.items()],
    }


@dataclass(frozen=True, slots=True)
class _MatrixRow:
    """cells: what is written, and its place among TONES."""

    name: str
    cells: list[tuple[str, int]]


def matrix_rows(overlap: Overlap) -> list[_MatrixRow]:
    """Return what the macro `overlap_matrix` draws."""
    return [
        _MatrixRow(printable(name), [(f"{x:.2f}", round((x + 1) * 10)) for x in row])
        for name, row in zip(overlap.names, overlap.matrix.tolist(), strict=True)
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
    def of(cls, name: str, head_map: ScoredHeads) -> _MapRow:
        sparse = sparsity(head_map.ranked_scores)
        share, gini = (percent(sparse.share), f"{sparse.gini:.2f}") if sparse else ("", "")
        ranking, chosen = SCORE_NAMES[head_map.ranking], len(head_map.selected)
        return cls(
            printable(name),
            head_map.examples,
            ranking,
            chosen,
            share,
            gini,
            calibration_sentence(head_map, "held-out writing"),
        )
