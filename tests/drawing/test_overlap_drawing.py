from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from maps import NAN, scores_map, synthetic
from rendered import MAGIC, Page, grounds, printed

from dps_local.drawing.overlap import overlap_table, write_overlap_html, write_overlap_png
from dps_local.errors import DpsError
from dps_local.maps.head_map import HeadMap
from dps_local.maps.overlap import overlap


def three_maps() -> dict[str, HeadMap]:
    """Of 12 heads, the best one counts: ada's and bob's is the same."""
    pcs = np.zeros((3, 4))
    pcs[1, 2] = 1
    return {"ada": scores_map(pcs), "bob": scores_map(pcs * 2), "a\x1bcy": scores_map(-pcs, calibration=None)}


def test_an_overlap_is_readable_without_colour() -> None:
    lines = [line.rstrip() for line in printed(overlap_table(overlap(three_maps()))).splitlines()]
    assert lines == [
        "overlap of the best 1 of 12 heads of each map: heads in both divided by heads in",
        "either (Jaccard)",
        "",
        "              1     2     3",
        "1 ada        1.00  1.00  0.00",
        "2 bob        1.00  1.00  0.00",
        "3 a�cy       0.00  0.00  1.00",
        "",
        "different maps overlap by 0.33 on average, random choices would by 0.08",
    ]


def test_an_overlap_has_the_colours_of_the_heat_map() -> None:
    assert grounds(overlap_table(overlap(three_maps())))[4:7] == [
        ["#b34700", "#b34700", "#efeeea"],
        ["#b34700", "#b34700", "#efeeea"],
        ["#efeeea", "#efeeea", "#b34700"],
    ]


@pytest.mark.parametrize("width", [40, 60, 80])
def test_an_overlap_of_many_maps_folds_into_blocks(width: int) -> None:
    maps = {f"{i} {'long ' * i}name": synthetic(6, 5, chosen=i) for i in range(25)}
    text = printed(overlap_table(overlap(maps)), width)
    assert max(map(len, text.splitlines())) <= width
    assert text.count("1.00") == 25 * 25 + 1  # and the mean


def test_a_page_of_an_overlap_is_well_formed_and_needs_nothing_from_outside(tmp_path: Path) -> None:
    maps = three_maps() | {"<b>dan</b>": scores_map(np.full((3, 4), NAN))}
    write_overlap_html(maps, overlap(maps), tmp_path / "overlap.html")
    html = (tmp_path / "overlap.html").read_text(encoding="utf-8")
    page = Page(html)
    assert page.open == []
    assert "<b>dan</b>" in page.words
    assert "\x1b" not in html
    assert all(word not in html for word in ("http", "url(", "@import", "//", "{%", "{{"))
    assert html.count('<td class="c20">1.00</td>') == 4 + 2
    assert "steering is worth +0.050 [+0.010, +0.090] nats a token on held-out writing" in page.words
    assert "prefers-color-scheme: dark" in html


@pytest.mark.parametrize("n", [2, 30])
def test_a_png_of_an_overlap_has_sensible_dimensions(tmp_path: Path, n: int) -> None:
    pytest.importorskip("matplotlib")
    maps = {f"$\\frac{{ {i}": synthetic(6, 5, chosen=i) for i in range(n)}
    write_overlap_png(overlap(maps), tmp_path / "overlap.png")
    data = (tmp_path / "overlap.png").read_bytes()
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    assert data.startswith(MAGIC)
    assert 800 <= width <= 4000
    assert 400 <= height <= 4000


@pytest.mark.usefixtures("_no_matplotlib")
def test_without_matplotlib_a_png_of_an_overlap_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(DpsError, match=r"pip install 'dps-local\[plot\]'"):
        write_overlap_png(overlap(three_maps()), tmp_path / "overlap.png")
