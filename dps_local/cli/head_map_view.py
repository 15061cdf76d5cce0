"""How commands show head maps and their overlap in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dps_local.cli.terminal import terminal
from dps_local.drawing.head_map import head_table, heat_map, summary_lines
from dps_local.drawing.overlap import overlap_table, write_overlap_html, write_overlap_png
from dps_local.engine.model import Head
from dps_local.maps.overlap import overlap
from dps_local.maps.scored_heads import ScoredHeads


def show_map(head_map: ScoredHeads, as_json: bool, top: int, picture: bool) -> None:
    """Show a map's best `top` heads and its findings; picture: with its heat map above."""
    if as_json:
        terminal.json(head_map.as_json())
        return
    if picture:
        terminal.show(heat_map(head_map))
        terminal.show("")
    terminal.show(head_table(head_map, top))
    for line in summary_lines(head_map):
        terminal.show(line)


def show_overlap(maps: Mapping[str, ScoredHeads], png: Path | None, html: Path | None, as_json: bool) -> None:
    """Show how far maps agree, and draw that into files."""
    agreement = overlap(maps)
    if png:
        write_overlap_png(agreement, png)
        terminal.notice(f"wrote {png}")
    if html:
        write_overlap_html(maps, agreement, html)
        terminal.notice(f"wrote {html}")
    if as_json:
        terminal.json({"maps": [head_map.as_json() for head_map in maps.values()], "overlap": agreement.as_json()})
    else:
        terminal.show(overlap_table(agreement))


def describe(heads: Sequence[Head], most: int = 5) -> str:
    """Return how many heads there are, and the first of them, e.g. 2 heads (L3H1 L7H0)."""
    names = " ".join(f"L{layer}H{head}" for layer, head in heads[:most])
    return f"{len(heads)} head{'s' * (len(heads) != 1)} ({names}{' …' * (len(heads) > most)})"
