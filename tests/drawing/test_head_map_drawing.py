from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from maps import NAN, scores_map, synthetic
from rendered import MAGIC, Page, grounds, printed
from rich.console import Console

from dps_local.drawing.head_map import (
    Score,
    head_table,
    heat_map,
    ranked_heads,
    summary_lines,
    write_head_map_html,
    write_head_map_png,
)
from dps_local.errors import DpsError
from dps_local.maps.calibration import NO_STEERING, Calibration
from dps_local.maps.head_map import HeadMap
from dps_local.system.files import atomic_write


def by_hand(**changes: Any) -> HeadMap:
    pcs = np.array(
        [
            [0.00, 0.10, -0.10, 0.04],
            [NAN, NAN, NAN, NAN],
            [-0.04, 0.07, NAN, NAN],
        ]
    )
    return scores_map(pcs, **({"selected": ((0, 1), (2, 1))} | changes))


def all_measured(**changes: Any) -> HeadMap:
    """by_hand, with contrast minus PCS and pairwise a fifth of it."""
    found = by_hand()
    more = {
        "contrast": -found.pcs,
        "contrast_stderr": found.pcs_stderr * 2,
        "pairwise": found.pcs / np.float32(5),
        "pairwise_stderr": found.pcs_stderr,
    }
    return replace(found, **(more | changes))


def rows(text: str) -> list[str]:
    """The lines of layers, without the title and the legend."""
    return [line for line in text.splitlines() if line[:5].strip().isdigit()]


# --- terminal ---


def test_a_map_without_colour_is_drawn_with_signs_and_blocks() -> None:
    lines = [line.rstrip() for line in printed(heat_map(by_hand())).splitlines()]
    assert lines == [
        "tiny",
        "llama, 3 layers × 4 heads, 12 examples",
        "",
        "       head",
        "layer  0  1  2  3",
        "    0  · █● ≡≡ ░░",
        "    1",
        "    2 -- ▒●",
        "",
        "      PCS, nats per token",
        "      -0.1000 ≡ = - · ░ ▒ █ +0.1000",
        "      best: +0.1000, layer 0, head 1",
        "      ● chosen: 2; blank: no head",
    ]


def test_a_console_that_knows_only_ascii_gets_only_ascii() -> None:
    text = printed(heat_map(by_hand(model="naïve")), code="ascii")
    assert "na?ve" in text
    assert "    0  . #@ %% ::" in text
    assert "@ chosen: 2" in text
    assert "+0.1000 +- 0.0100" in printed(head_table(by_hand()), code="ascii")


@pytest.mark.parametrize("colour", [None, "standard", "256", "truecolor"])
@pytest.mark.parametrize("width", [200, 80, 50])
def test_every_chosen_head_is_marked_at_every_width(colour: str | None, width: int) -> None:
    text = printed(heat_map(synthetic(32, 32, chosen=9)), width, colour)
    # one more in the legend
    assert text.count("●") == 10


def test_colour_is_drawn_only_where_the_console_has_enough_of_it() -> None:
    assert "\x1b[" not in printed(heat_map(by_hand()))
    assert "48;5;" in printed(heat_map(by_hand()), colour="256")
    assert "█" not in printed(heat_map(by_hand()), colour="256")
    assert "█" in printed(heat_map(by_hand()), colour="standard")


def test_no_color_is_obeyed_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", legacy_windows=False)
    with console.capture() as captured:
        console.print(heat_map(by_hand()))
    assert "█●" in captured.get()


def test_cells_without_a_head_stay_blank_in_colour_too() -> None:
    assert grounds(heat_map(by_hand()))[5:8] == [
        ["#efeeea", "#b34700", "#0b4a8f", "#f4b16f"],
        [],
        ["#88b7db", "#db7e30"],
    ]


@pytest.mark.parametrize(("layers", "heads"), [(30, 9), (18, 4), (32, 32), (80, 64), (48, 128)])
@pytest.mark.parametrize("width", [80, 120, 40])
def test_a_map_fits_the_console_and_shows_every_head(layers: int, heads: int, width: int) -> None:
    text = printed(heat_map(synthetic(layers, heads, chosen=0)), width)
    assert max(map(len, text.splitlines())) <= width
    drawn = [row[6:].rstrip() for row in rows(text)]
    assert len(drawn) % layers == 0
    cells = sum(len(row) for row in drawn[::layers])
    assert cells in {heads, 2 * heads - 1, 2 * heads, 3 * heads - 1}


@pytest.mark.parametrize("heads", [6, 12, 64])
def test_no_console_is_too_narrow_for_a_map(heads: int) -> None:
    for width in (1, 5, 9, 10, 11, 13, 17, 30):
        for drawing in (heat_map(synthetic(3, heads)), head_table(synthetic(3, heads))):
            assert all(len(line) <= width for line in printed(drawing, width).splitlines())


def test_eighty_layers_of_sixty_four_heads_need_no_folding_in_eighty_columns() -> None:
    assert len(rows(printed(heat_map(synthetic(80, 64))))) == 80


def test_a_map_too_wide_for_one_character_a_head_folds_into_blocks() -> None:
    text = printed(heat_map(synthetic(4, 64, chosen=0)), width=40)
    assert [line.split()[1] for line in text.splitlines() if line.startswith("layer")] == ["0", "30", "60"]
    assert len(rows(text)) == 12


@pytest.mark.parametrize("shape", [(0, 0), (1, 0), (1, 1), (2, 3)])
def test_maps_with_nothing_measured_can_be_drawn(shape: tuple[int, int], tmp_path: Path) -> None:
    hollow = scores_map(np.full(shape, NAN))
    assert "chosen: 0" in printed(heat_map(hollow))
    assert ranked_heads(hollow) == []
    assert "rank" in printed(head_table(hollow))
    assert not any("hold" in line for line in summary_lines(hollow))
    write_head_map_html(hollow, tmp_path / "map.html")


def test_a_model_name_cannot_send_escape_sequences() -> None:
    text = printed(heat_map(by_hand(model="a\x1b]0;gotcha\x07b [bold]c[/]")))
    assert "\x1b" not in text
    assert "b [bold]c[/]" in text


def test_a_few_outliers_do_not_wash_out_the_rest() -> None:
    pcs = np.full((20, 20), 0.01)
    pcs[3, 3] = 5.0
    text = printed(heat_map(scores_map(pcs)))
    assert "-0.0100 ≡ = - · ░ ▒ █ +0.0100" in text
    assert "best: +5.0000, layer 3, head 3" in text


# --- ranking ---


def test_the_table_lists_the_chosen_in_their_order_and_then_the_next_best() -> None:
    head_map = by_hand(selected=((2, 1), (0, 1)))
    order = [(head.layer, head.head) for head in ranked_heads(head_map)]
    assert order == [(2, 1), (0, 1), (0, 3), (0, 0), (2, 0), (0, 2)]
    assert cells(head_map, 80, top=3) == [
        ["rank", "layer", "head", "PCS", "gain", "z", "n", "chosen"],
        ["1", "2", "1", "+0.0700±0.0100", "+0.0350±0.0050", "+7.0", "12", "●"],
        ["2", "0", "1", "+0.1000±0.0100", "+0.0500±0.0050", "+10.0", "12", "●"],
        ["3", "0", "3", "+0.0400±0.0100", "+0.0200±0.0050", "+4.0", "12"],
    ]


def cells(head_map: HeadMap, width: int, top: int = 1) -> list[list[str]]:
    """The cells of the table's lines."""
    text = printed(head_table(head_map, top), width)
    assert max(map(len, text.splitlines())) <= width
    return [line.replace(" ± ", "±").split() for line in text.splitlines() if line.strip(" ─")]


@pytest.mark.parametrize(
    ("width", "header", "row"),
    [
        (
            120,
            "rank layer head PCS gain contrast pairwise z n chosen",
            "1 0 1 +0.1000±0.0100 +0.0500±0.0050 -0.1000±0.0200 +0.0200±0.0100 +10.0 12 ●",
        ),
        (
            100,
            "rank layer head PCS gain contrast pairwise z n chosen",
            "1 0 1 +0.1000±0.0100 +0.0500±0.0050 -0.1000 +0.0200 +10.0 12 ●",
        ),
        (
            80,
            "rank layer head PCS gain contrast pairwise n chosen",
            "1 0 1 +0.1000±0.0100 +0.0500 -0.1000 +0.0200 12 ●",
        ),
        (72, "rank layer head PCS gain contrast pairwise n chosen", "1 0 1 +0.1000 +0.0500 -0.1000 +0.0200 12 ●"),
        (50, "rank layer head PCS n chosen", "1 0 1 +0.1000±0.0100 12 ●"),
    ],
)
def test_a_table_shows_all_that_was_measured_and_narrow_consoles_less(width: int, header: str, row: str) -> None:
    table = cells(all_measured(selected=((0, 1),)), width)
    assert table == [header.split(), row.split()]


def test_a_narrow_table_keeps_what_the_map_is_ranked_by() -> None:
    head_map = all_measured(selected=((0, 2),), ranking="contrast")
    assert cells(head_map, 50) == [
        ["rank", "layer", "head", "contrast", "n", "chosen"],
        ["1", "0", "2", "+0.1000±0.0200", "12", "●"],
    ]


def test_what_was_not_measured_of_a_head_is_left_blank() -> None:
    head_map = by_hand(selected=())
    head_map.pcs_stderr[0, 1] = head_map.gain_stderr[0, 1] = head_map.gain[0, 1] = NAN
    head_map.counts[0, 1] = 1
    assert cells(head_map, 80)[1] == ["1", "0", "1", "+0.1000", "1"]
    head_map.counts[0, 1] = NAN
    assert cells(head_map, 80)[1] == ["1", "0", "1", "+0.1000"]


@pytest.mark.parametrize(
    ("ranking_", "label", "best", "scale"),
    [
        ("pcs", "PCS, nats per token", "best: +0.1000, layer 0, head 1", "+0.1000"),
        ("gain", "gain, nats per token", "best: +0.0500, layer 0, head 1", "+0.0500"),
        ("contrast", "contrast, nats per token", "best: +0.1000, layer 0, head 2", "+0.1000"),
    ],
)
def test_a_map_is_drawn_and_sorted_by_what_it_is_ranked_by(
    tmp_path: Path, ranking_: str, label: str, best: str, scale: str
) -> None:
    head_map = all_measured(ranking=ranking_, selected=())
    text = printed(heat_map(head_map))
    assert f"      {label}\n" in text
    assert best in text
    assert f"█ {scale}\n" in text
    html = page_of(head_map, tmp_path)
    assert f"\n{label}\n" in html
    assert f"+{scale[1:]}</b>" in html
    (strongest,) = (c for c in svg_of(html).findall("rect") if str(c.findtext("title")).startswith(best[15:]))
    assert strongest.get("class") == "c20"
    assert (ranked_heads(head_map)[0].layer, ranked_heads(head_map)[0].head) == (0, 2 if ranking_ == "contrast" else 1)


def test_the_table_holds_every_chosen_head_even_beyond_its_length() -> None:
    assert len(cells(synthetic(30, 9, chosen=12), 80, top=5)) == 1 + 12
    assert len(cells(synthetic(30, 9, chosen=2), 80, top=5)) == 1 + 5


@pytest.mark.parametrize(("error", "z"), [(0.05, "+2.0"), (0.0, ""), (NAN, "")])
def test_z_is_left_out_where_the_standard_error_says_nothing(error: float, z: str) -> None:
    assert Score(0.1, error).z == z


# --- findings ---


def test_findings_say_what_a_map_holds_a_line_each() -> None:
    assert summary_lines(by_hand()) == [
        "chosen by the lower bound of PCS: 2 heads",
        "the best 1 of 6 heads hold 48 % of all positive PCS; Gini coefficient 0.60",
        "halves of the examples agree on the ranking of 8 heads: Spearman 0.75, overlap of the best 0.50",
        "null control 0; 96 head evaluations",
        "steering is worth +0.050 [+0.010, +0.090] nats a token on your writing",
    ]


def test_findings_say_what_could_not_be_found() -> None:
    changes = {"selected": (), "reliability": None, "calibration": None, "evaluations": 1, "null_control": 1e-9}
    assert summary_lines(by_hand(ranking="gain", **changes)) == [
        "no head qualifies: no lower bound of gain is above 0",
        "the best 1 of 6 heads hold 48 % of all positive gain; Gini coefficient 0.60",
        "null control 1e-09; 1 head evaluation",
        "too little history to calibrate: steering is off",
    ]
    off = Calibration(0.0, 0.0, 0.0, 12, NO_STEERING, 1.0, 1.0)
    said = "steering does not help on your writing (+0.000 [+0.000, +0.000] nats a token); it stays off"
    assert summary_lines(by_hand(calibration=off))[-1] == said


# --- HTML ---


def page_of(head_map: HeadMap, folder: Path) -> str:
    write_head_map_html(head_map, folder / "map.html")
    return (folder / "map.html").read_text(encoding="utf-8")


def svg_of(page: str) -> ElementTree.Element:
    return ElementTree.fromstring(page[page.index("<svg") : page.index("</svg>") + len("</svg>")])


def test_the_page_is_well_formed(tmp_path: Path) -> None:
    page = Page(page_of(synthetic(6, 5), tmp_path))
    assert page.open == []
    assert {"svg", "table", "figure"} <= set(page.tags)


def test_the_svg_has_one_cell_a_head_with_its_numbers_and_outlines_the_chosen(tmp_path: Path) -> None:
    cells = svg_of(page_of(by_hand(), tmp_path)).findall("rect")
    tips = [cell.findtext("title") for cell in cells if cell.get("class") != "mark"]
    assert len(tips) == 6
    assert tips[0] == "layer 0, head 1: +0.1000 ± 0.0100 nats per token, chosen"
    assert "layer 0, head 2: \N{MINUS SIGN}0.1000 ± 0.0100 nats per token" in tips
    assert len([cell for cell in cells if cell.get("class") == "mark"]) == 2


def test_colours_run_from_blue_over_pale_to_orange(tmp_path: Path) -> None:
    cells = svg_of(page_of(by_hand(), tmp_path)).findall("rect")
    colour = {str(cell.findtext("title"))[:15]: cell.get("class") for cell in cells}
    assert colour["layer 0, head 2"] == "c0"
    assert colour["layer 0, head 0"] == "c10"
    assert colour["layer 0, head 1"] == "c20"


def test_the_page_says_what_was_found_and_how_heads_were_tried(tmp_path: Path) -> None:
    head_map = by_hand()
    words = Page(page_of(head_map, tmp_path)).words
    assert set(summary_lines(head_map)) <= set(words)
    assert "contrast, γ = 1.5" in words
    assert "muted" in words
    changed = Page(page_of(by_hand(gamma=0.0, ablation_scale=0.9, calibration=None, reliability=None), tmp_path)).words
    assert {"scaled by 0.9", "off", "too little history to calibrate: steering is off"} <= set(changed)


def test_the_page_shows_every_score_that_was_measured(tmp_path: Path) -> None:
    words = Page(page_of(all_measured(), tmp_path)).words
    at = words.index("rank")
    assert [w for w in words[at : at + 40] if w.strip()][:11] == [
        *("rank", "layer", "head", "PCS ± SE", "gain ± SE", "contrast ± SE", "pairwise ± SE", "z", "n", "chosen"),
        "1",
    ]
    assert {"+0.1000 ± 0.0100", "+0.0500 ± 0.0050", "\N{MINUS SIGN}0.1000 ± 0.0200", "+0.0200 ± 0.0100"} <= set(words)
    assert "pairwise ± SE" not in Page(page_of(by_hand(), tmp_path)).words


def test_a_model_name_is_text_and_nothing_else(tmp_path: Path) -> None:
    head_map = by_hand(model="<b>x</b>", architecture='"><script>alert(1)</script>\x1b', fingerprint="</dd><i>")
    html = page_of(head_map, tmp_path)
    page = Page(html)
    assert "<b>x</b>" in page.words
    assert "script" not in page.tags
    assert "\x1b" not in html


def test_the_page_needs_nothing_from_outside(tmp_path: Path) -> None:
    html = page_of(synthetic(4, 4), tmp_path)
    assert all(word not in html for word in ("http", "url(", "@import", "//"))
    page = Page(html)
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not {"src", "href"} & {name for name, _ in page.attributes}


def test_the_page_has_dark_colours_and_fits_a_phone(tmp_path: Path) -> None:
    html = page_of(by_hand(), tmp_path)
    assert "prefers-color-scheme: dark" in html
    assert 'name="viewport"' in html


def test_the_largest_map_makes_a_page_below_a_megabyte(tmp_path: Path) -> None:
    assert len(page_of(synthetic(80, 64, chosen=40), tmp_path)) < 1_000_000


# --- PNG ---


@pytest.mark.parametrize(("layers", "heads"), [(30, 9), (18, 4), (32, 32)])
def test_a_png_has_sensible_dimensions(layers: int, heads: int, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    write_head_map_png(synthetic(layers, heads), tmp_path / "map.png")
    data = (tmp_path / "map.png").read_bytes()
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    assert data.startswith(MAGIC)
    assert 800 <= width <= 2000
    assert 800 <= height <= 2000


def test_a_png_takes_missing_heads_and_odd_names(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    write_head_map_png(by_hand(model="$\\frac{" + "x" * 200), tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes().startswith(MAGIC)


@pytest.mark.usefixtures("_no_matplotlib")
def test_without_matplotlib_a_png_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(DpsError, match=r"pip install 'dps-local\[plot\]'"):
        write_head_map_png(by_hand(), tmp_path / "map.png")
    assert list(tmp_path.iterdir()) == []


# --- files ---


def break_off(path: Path) -> None:
    with atomic_write(path) as stream:
        stream.write(b"half")
        raise ZeroDivisionError


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "map.html"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError):
        break_off(path)
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("map.html", "old")]


def test_a_folder_that_does_not_exist_is_said_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "map.html"
    with pytest.raises(DpsError, match=r"^cannot write .*map.html: No such file or directory$"):
        write_head_map_html(by_hand(), path)


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    page_of(by_hand(), tmp_path)
    assert (tmp_path / "map.html").stat().st_mode & 0o777 == 0o600
