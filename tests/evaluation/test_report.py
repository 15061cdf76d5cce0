"""The report of an evaluation: what it says is what the estimates say, for people and in every reader."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from maps import scores_map
from numpy.typing import NDArray
from rendered import Page, printed

from dps_local.drawing.text import MINUS
from dps_local.evaluation.comparison import Difference, Estimate, Unit, compare
from dps_local.evaluation.condition import METHOD_MEANINGS, METHODS, Condition, Method
from dps_local.evaluation.grid import Grid
from dps_local.evaluation.record import Record
from dps_local.evaluation.report.console import summary_table
from dps_local.evaluation.report.figures import BOTTOM, TOP, panels, scale_of, tone_of, user_gain_charts
from dps_local.evaluation.report.finding import Finding
from dps_local.evaluation.report.head_maps import mean_map, sparseness
from dps_local.evaluation.report.report import write_report
from dps_local.evaluation.report.tally import tallies
from dps_local.evaluation.report.task_results import Maps, results_by_task
from dps_local.maps.head_map import SCORES, HeadMap
from dps_local.scoring.calibrate import TEMPERATURES
from dps_local.scoring.intervals import FEWEST
from dps_local.steering.mixing import Gamma

PROFILE = Condition("profile")
GAIN = Condition("gain", Gamma(0.5), 8, 0.1)
PCS = Condition("pcs", Gamma(0.5), 8, 0.1)
RANDOM = Condition("random", Gamma(0.5), 8, 0.1)
AMPLIFY = Condition("amplify", Gamma(0.1))
CALIBRATED = Condition("calibrated")
INF = float("inf")
HOSTILE = "<script>alert(1)</script>|*x*_`[a](b) {{ 7 * 7 }}\x1b[31m\n# h"


def estimate(
    condition: Condition,
    value: float,
    profile: tuple[float, float, float] | None = None,
    random: tuple[float, float, float] | None = None,
    *,
    metric: str = "rouge_l",
    better: int = 1,
    by_user: Sequence[float] = (),
    shares: tuple[float, float] = (0.75, 0.25),
    task: str = "titles",
    model: str = "tiny",
    unit: Unit = "users",
    users: int = 8,
) -> Estimate:
    given = {"profile": profile, "random": random}
    helped, hurt = shares if users >= FEWEST else (None, None)
    against = {name: Difference(*found, helped, hurt, users) for name, found in given.items() if found}
    bounds = (value - 0.05, value + 0.05)
    return Estimate(task, model, condition, metric, better, value, *bounds, users, 96, unit, against, tuple(by_user))


def typed() -> list[Estimate]:
    """Text: gain helps and beats random heads, PCS hurts, and what calibration chose makes no difference."""
    users = (0.03, -0.01, 0.05, 0.01)
    return [
        estimate(PROFILE, 0.213),
        estimate(RANDOM, 0.21, (-0.003, -0.01, 0.004), by_user=users),
        estimate(PCS, 0.181, (-0.032, -0.05, -0.014), (-0.029, -0.04, -0.018), by_user=users),
        estimate(GAIN, 0.234, (0.021, 0.008, 0.034), (0.024, 0.011, 0.037), by_user=users),
        estimate(CALIBRATED, 0.216, (0.003, -0.004, 0.01), (0.006, -0.001, 0.013), by_user=users, shares=(0.5, 0.25)),
        estimate(PROFILE, 1, metric="time", better=-1),
        estimate(GAIN, 1.274, (0.274, 0.2, 0.35), metric="time", better=-1),
    ]


def report(
    estimates: Sequence[Estimate], folder: Path, maps: Maps | None = None, about: Mapping[str, str] | None = None
) -> str:
    write_report(folder, estimates, maps or {}, about or {})
    return (folder / "report.html").read_text(encoding="utf-8")


def markdown(estimates: Sequence[Estimate], folder: Path, maps: Maps | None = None) -> str:
    report(estimates, folder, maps)
    return (folder / "report.md").read_text(encoding="utf-8")


def squeezed(words: Sequence[str]) -> str:
    return " ".join(" ".join(words).split())


def a_map(pcs: NDArray[np.float32] | Sequence[Sequence[float]]) -> HeadMap:
    scores = np.asarray(pcs, np.float32)
    others: dict[str, Any] = {name: scores * 0 + 1 for name in SCORES if name != "pcs"}
    return scores_map(scores, ranking="gain", selected=((0, 0),), gamma=0.5, **others)


# --- at a glance ---


def test_a_glance_says_whether_it_helps_whom_by_how_much_and_at_what_cost() -> None:
    best = results_by_task(typed(), {})[0].best
    assert best is not None
    assert best.estimate.condition == GAIN
    assert best.estimate.verdict() == "helps"
    assert str(best) == (
        "gain (γ = 0.5, K = 8, β = 0.1), best of 2 conditions: ROUGE-L 0.234, better by 0.021 than with the profile "
        "alone (95 %: 0.008 to 0.034 better); 75 % of users helped, 25 % hurt; a token takes 1.27 times as long; "
        "beats random heads"
    )


def test_what_calibration_chose_is_not_called_the_best_of_many() -> None:
    calibrated = results_by_task(typed(), {})[0].calibrated
    assert calibrated is not None
    assert calibrated.estimate.verdict() == "no difference shown"
    assert str(calibrated) == (
        "calibrated: ROUGE-L 0.216, better by 0.003 than with the profile alone (95 %: 0.004 worse to 0.010 better); "
        "50 % of users helped, 25 % hurt; not shown to beat random heads"
    )


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        ((-0.5, -0.75, -0.25), "better by 0.500 than with the profile alone (95 %: 0.250 to 0.750 better)"),
        ((0.5, 0.25, 0.75), "worse by 0.500 than with the profile alone (95 %: 0.250 to 0.750 worse)"),
        ((0.5, -0.25, 0.75), "worse by 0.500 than with the profile alone (95 %: 0.750 worse to 0.250 better)"),
        ((0.0, 0.0, 0.0), "as with the profile alone"),
    ],
)
def test_where_lower_is_better_the_words_turn_round(difference: tuple[float, float, float], said: str) -> None:
    finding = Finding(estimate(GAIN, 1.5, difference, metric="mae_answer", better=-1), None)
    assert str(finding).split("; ")[0].split(": ", 1)[1].split(", ", 1)[1] == said


def test_where_lower_is_better_the_lowest_is_the_best() -> None:
    against = {PCS: (-0.25, -0.5, -0.125), GAIN: (0.5, 0.25, 0.75), AMPLIFY: (-0.125, -0.25, 0.0)}
    estimates = [
        estimate(condition, 1.0 + d[0], d, metric="nll_matched", better=-1) for condition, d in against.items()
    ]
    best = results_by_task(estimates, {})[0].best
    assert best is not None
    assert (best.estimate.condition, best.best_of) == (PCS, 3)


def test_a_control_that_does_better_than_the_best_steered_arm_is_named() -> None:
    cad = Condition("cad", Gamma(1), beta=0.1)
    estimates = [*typed(), estimate(cad, 0.25, (0.037, 0.02, 0.05))]
    assert str(results_by_task(estimates, {})[0].best).endswith("; 'cad (γ = 1, β = 0.1)' does better (0.250)")
    longer = [*typed(), estimate(Condition("profile", items=8), 0.24, (0.027, 0.02, 0.05))]
    assert str(results_by_task(longer, {})[0].best).endswith("; 'profile (items = 8)' does better (0.240)")
    assert "does better" not in str(results_by_task(typed(), {})[0].best)


@pytest.mark.parametrize(
    ("metrics", "primary"),
    [
        (["nll", "nll_matched", "meteor", "rouge_l"], "rouge_l"),
        (["nll", "nll_matched", "time"], "nll_matched"),
        (["nll_matched", "accuracy_answer", "accuracy_likelihood"], "accuracy_likelihood"),
        (["nll_matched", "accuracy_answer"], "accuracy_answer"),
        (["accuracy_answer", "mae_answer", "rmse_answer"], "mae_answer"),
        (["mae_answer", "mae_likelihood"], "mae_likelihood"),
        (["time"], "time"),
    ],
)
def test_the_primary_metric_goes_with_the_kind_of_task(metrics: Sequence[str], primary: str) -> None:
    results = results_by_task([estimate(GAIN, 0.5, metric=metric) for metric in metrics], {})[0]
    assert results.primary == primary
    assert next(iter(results.metrics)) == primary


def test_a_glance_tells_likelihood_beside_answers(tmp_path: Path) -> None:
    """A few answers show no difference where the likelihood of the same texts does."""
    likelihood = [
        estimate(PROFILE, 4.2, metric="nll_matched", better=-1),
        estimate(CALIBRATED, 4.1, (-0.1, -0.13, -0.07), metric="nll_matched", better=-1),
        estimate(GAIN, 4.0, (-0.2, -0.23, -0.17), metric="nll_matched", better=-1),
    ]
    estimates = [*typed(), *likelihood]
    (results,) = results_by_task(estimates, {})
    assert [f.estimate.metric for f in results.findings] == ["rouge_l", "rouge_l"]
    found = [str(finding) for finding in results.likelihood]
    assert found[0].startswith("calibrated: NLL at the best temperature 4.1000, better by 0.1000 than with the profile")
    assert found[1].startswith(f"{GAIN}, best of 1 condition: NLL at the best temperature 4.0000, better by 0.2000")
    assert [str(tally).split(":")[1] for tally in tallies([results])] == [
        " helps in 0, no difference shown in 1, hurts in 0, of 1; 50 % of users helped.",
        " helps in 1, no difference shown in 0, hurts in 0, of 1; 75 % of users helped.",
        " helps in 1, no difference shown in 0, hurts in 0, of 1; 75 % of users helped; a token takes 1.27 times as "
        "long.",
    ]
    text, page = markdown(estimates, tmp_path), Page(report(estimates, tmp_path))
    output = printed(summary_table(estimates), width=200)
    for finding in found:
        assert finding in text
        assert f"{finding}." in squeezed(page.words)
    assert "by NLL at the best temperature" in output
    assert f"{MINUS}0.1000 [{MINUS}0.1300, {MINUS}0.0700]" in output
    only = results_by_task(likelihood, {})[0]
    assert [f.estimate.metric for f in only.findings] == ["nll_matched", "nll_matched"]
    assert only.likelihood == []


def test_all_tasks_and_models_are_counted_together() -> None:
    other = [replace(r, model="larger") for r in typed() if r.condition != CALIBRATED]
    calibrated, best = tallies(results_by_task([*typed(), *other], {}))
    assert calibrated.counts == {"helps": 0, "no difference shown": 1, "hurts": 0}
    assert best.counts == {"helps": 2, "no difference shown": 0, "hurts": 0}
    assert str(best) == (
        "The best condition each time, picked by these results: helps in 2, no difference shown in 0, hurts in 0, of "
        "2; 75 % of users helped; a token takes 1.27 times as long."
    )


# --- the page ---


def test_the_numbers_of_the_page_are_those_of_the_rows(tmp_path: Path) -> None:
    page = Page(report(typed(), tmp_path, about={"date": "2025-06-01"}))
    assert page.open == []
    words = [word.strip() for word in page.words]
    said = squeezed(words)
    for finding in results_by_task(typed(), {})[0].findings:
        assert f"{finding}." in words
    assert {"0.234 (+0.021)", f"0.181 ({MINUS}0.032)", "[0.184, 0.284]", "1.27 (+0.27)"} <= set(words)
    assert f"{MINUS}0.029 [{MINUS}0.040, {MINUS}0.018]" in words
    assert "ROUGE-L (higher is better); 8 users, 96 queries, intervals over users" in said
    assert "75 % / 25 %" in words
    assert "date 2025-06-01" in said
    assert all(meaning in words for meaning in METHOD_MEANINGS.values())


def test_only_what_is_sure_is_tinted_orange_for_better_and_blue_for_worse(tmp_path: Path) -> None:
    html = report(typed(), tmp_path)
    tints = {text: int(place or 10) for place, text in re.findall(r'<td(?: class="c(\d+)")?>([^<]+)<', html)}
    assert tints["0.234 (+0.021)"] > 10
    assert tints[f"0.181 ({MINUS}0.032)"] == 0
    assert tints["0.216 (+0.003)"] == 10
    # more time is worse
    assert tints["1.27 (+0.27)"] == 0


def test_a_small_gain_is_told_from_none_and_the_largest_has_the_end_of_the_scale() -> None:
    assert [tone_of(gain, 2.0) for gain in (2.0, 1e-9, 0.0, -1e-9, -2.0, -5.0)] == [20, 13, 10, 7, 0, 0]


def test_names_are_text_and_nothing_else(tmp_path: Path) -> None:
    estimates = [replace(r, task=HOSTILE, model=HOSTILE) for r in typed()]
    maps = {(HOSTILE, HOSTILE): {HOSTILE: a_map([[0.1, 0.2]]), "bob": a_map([[0.2, 0.1]])}}
    html = report(estimates, tmp_path, maps, about={HOSTILE: HOSTILE})
    page = Page(html)
    assert "script" not in page.tags
    assert page.open == []
    assert "\x1b" not in html
    assert "{{ 7 * 7 }}" in squeezed(page.words)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "\x1b" not in text
    assert "<script" not in text.replace("\\<", "")
    assert r"\|\*x\*\_\`\[a\](b)" in text
    assert not re.search(r"^# h", text, re.MULTILINE)


def test_the_page_needs_nothing_from_outside_and_is_dark_at_night(tmp_path: Path) -> None:
    maps = {("titles", "tiny"): {"ada": a_map([[0.1, 0.2]]), "bob": a_map([[0.2, 0.1]])}}
    html = report(swept(), tmp_path, maps)
    assert all(word not in html for word in ("http", "url(", "@import", "//", "{%", "{{"))
    page = Page(html)
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not {"src", "href"} & {name for name, _ in page.attributes}
    assert "prefers-color-scheme: dark" in html


@pytest.mark.parametrize(
    "estimates",
    [
        [],
        [estimate(PROFILE, 0.2)],
        [estimate(GAIN, 0.2)],
        [estimate(GAIN, 0.2), estimate(replace(GAIN, gamma=Gamma(1)), 0.2)],
        [estimate(PROFILE, 0.2), estimate(GAIN, 0.2, (0.0, 0.0, 0.0), by_user=[0.0])],
        [estimate(GAIN, 30.0, (1.0, 0.5, 2.0), metric="length", better=0)],
        [replace(estimate(PROFILE, 0.2, users=1), low=-INF, high=INF), estimate(GAIN, 0.2, (0.1, -INF, INF), users=1)],
        [estimate(replace(GAIN, gamma=Gamma(g)), 0.2, (0.1 * g, -INF, INF), users=1, by_user=[0.1]) for g in (1, 2)],
    ],
)
def test_little_makes_a_report_too(estimates: list[Estimate], tmp_path: Path) -> None:
    html = report(estimates, tmp_path)
    assert Page(html).open == []
    assert not re.search(r"\b(nan|inf)\b", html + (tmp_path / "report.md").read_text())
    assert printed(summary_table(estimates))


def test_a_few_users_give_numbers_and_no_verdict(tmp_path: Path) -> None:
    estimates = [estimate(PROFILE, 0.2, users=5), estimate(GAIN, 0.3, (0.1, 0.05, 0.15), (0.1, 0.05, 0.15), users=5)]
    text, page = markdown(estimates, tmp_path), report(estimates, tmp_path)
    assert "| gain (γ = 0.5, K = 8, β = 0.1) | 0.300 [0.250, 0.350] | +0.100 [+0.050, +0.150] |" in text
    assert "**too few users**: gain (γ = 0.5, K = 8, β = 0.1), best of 1 condition: ROUGE-L 0.300" in text
    (tally,) = tallies(results_by_task(estimates, {}))
    assert tally.counts == {"helps": 0, "no difference shown": 0, "hurts": 0, "too few users": 1}
    assert str(tally).endswith(", of 1.")
    assert "users helped, " not in text + page
    assert "+0.100 [+0.050, +0.150]" in printed(summary_table(estimates), width=200)


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    report(typed(), tmp_path)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "report.md": 0o600,
        "report.html": 0o600,
    }


# --- Markdown ---


def test_markdown_marks_what_helps_and_what_hurts(tmp_path: Path) -> None:
    lines = markdown(typed(), tmp_path).splitlines()
    assert (
        "| gain (γ = 0.5, K = 8, β = 0.1) | 0.234 [0.184, 0.284] | **+0.021 [+0.008, +0.034]** | "
        "**+0.024 [+0.011, +0.037]** | 75 % / 25 % | 1.27 [1.22, 1.32] |"
    ) in lines
    assert any(line.startswith("| pcs ") and f"{MINUS}0.032 [{MINUS}0.050, {MINUS}0.014] ▼" in line for line in lines)
    assert any(line.startswith("  - **helps**: gain (γ = 0.5, K = 8, β = 0.1), best of 2 conditions") for line in lines)


def test_every_line_of_a_markdown_table_has_as_many_cells(tmp_path: Path) -> None:
    tables = re.findall(r"(?:^\|.*\n)+", markdown(swept(), tmp_path), re.MULTILINE)
    assert len(tables) == 2
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


# --- lines over γ and K ---


def swept() -> list[Estimate]:
    """γ of 1, 0.5 and the entropy, and K of 8 and 4; amplification with one γ alone."""
    conditions = [
        replace(GAIN, gamma=Gamma(1)),
        GAIN,
        replace(GAIN, gamma=Gamma.parse("entropy:normalised")),
        replace(GAIN, heads=4),
        AMPLIFY,
        RANDOM,
    ]
    return [
        estimate(PROFILE, 0.2),
        *(estimate(condition, 0.2 + i / 64, (i / 64, i / 64 - 0.01, 0.2)) for i, condition in enumerate(conditions)),
    ]


def test_lines_join_arms_that_differ_in_one_setting_in_its_order() -> None:
    results = results_by_task(swept(), {})[0]
    (over_gamma,) = results.curves("rouge_l", "gamma")
    assert over_gamma.condition == Condition("gain", None, 8, 0.1)
    assert [over_gamma.at(r) for r in over_gamma.estimates] == ["0.5", "1", "entropy:normalised"]
    (over_heads,) = results.curves("rouge_l", "heads")
    assert [over_heads.at(r) for r in over_heads.estimates] == ["4", "8"]
    assert results.curves("meteor", "gamma") == []


def test_an_entropy_is_a_point_at_the_right_end_that_no_line_leads_to() -> None:
    results = results_by_task(swept(), {})[0]
    (panel,) = panels(results, results.curves("rouge_l", "gamma"))
    assert [dot.names for dot in panel.dots] == [["0.5"], ["1"], ["entropy", "normalised"]]
    assert panel.dots[0].x < panel.dots[1].x < panel.dots[2].x < panel.width
    assert panel.line.split() == [f"{dot.x:g},{dot.y:g}" for dot in panel.dots[:2]]
    # random heads were tried at γ = 0.5 alone
    assert [dot.random_y is not None for dot in panel.dots] == [True, False, False]


def test_a_point_lies_where_its_difference_is_and_says_it() -> None:
    results = results_by_task(swept(), {})[0]
    (panel,) = panels(results, results.curves("rouge_l", "heads"))
    four, eight = panel.dots
    assert panel.zero is not None
    # 3/64 and 1/64 above the profile, so three times as far from it
    assert panel.zero - four.y == pytest.approx(3 * (panel.zero - eight.y), abs=0.3)
    assert four.high < four.y < four.low
    assert four.tip == "gain (γ = 0.5, K = 4, β = 0.1): +0.047 [+0.037, +0.200]"


def test_figures_appear_only_where_a_setting_was_changed(tmp_path: Path) -> None:
    both = Page(report(swept(), tmp_path)).words
    assert {"ROUGE-L against γ", "ROUGE-L against K"} <= set(both)
    gammas = [r for r in swept() if r.condition.heads != 4]
    assert "ROUGE-L against K" not in Page(report(gammas, tmp_path)).words
    assert not any("against γ" in word for word in Page(report(typed(), tmp_path)).words)


def test_without_a_profile_arm_lines_show_the_values_themselves() -> None:
    estimates = [replace(r, against={}) for r in swept() if r.condition != PROFILE]
    results = results_by_task(estimates, {})[0]
    (panel,) = panels(results, results.curves("rouge_l", "heads"))
    assert panel.zero is None
    assert panel.dots[1].tip == "gain (γ = 0.5, K = 8, β = 0.1): 0.216 [0.166, 0.266]"


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8))
def test_every_value_has_room_on_its_axis_and_numbers_beside_it(values: list[float]) -> None:
    scale = scale_of(values)
    assert all(TOP <= scale(value) <= BOTTOM for value in values)
    places = [place for _, place in scale.ticks]
    assert 1 <= len(places) <= 8
    assert places == sorted(places, reverse=True)
    assert len({text for text, _ in scale.ticks}) == len(places)


def test_ticks_are_round_numbers() -> None:
    ticks = [text for text, _ in scale_of([-0.01, 0.02]).ticks]
    assert ticks == [f"{MINUS}0.010", f"{MINUS}0.005", "0", "0.005", "0.010", "0.015", "0.020"]


# --- users ---


def test_users_are_sorted_by_what_they_gain_and_up_is_better() -> None:
    finding = Finding(
        estimate(GAIN, 0.5, (0.01, 0, 0.1), metric="mae_answer", better=-1, by_user=(0.2, -0.4, 0.0)), None
    )
    (chart,) = user_gain_charts([finding])
    assert [bar.tip for bar in chart.bars] == [
        "MAE by answer 0.400 better",
        "MAE by answer 0.000 better",
        "MAE by answer 0.200 worse",
    ]
    assert [bar.tone > 10 for bar in chart.bars] == [True, False, False]
    assert chart.bars[0].y < chart.zero
    assert chart.bars[2].y == chart.zero
    assert chart.bars[0].height == pytest.approx(2 * chart.bars[2].height, abs=0.2)


def test_the_page_has_a_bar_for_each_user_of_the_calibrated_and_of_the_best_arm(tmp_path: Path) -> None:
    html = report(typed(), tmp_path)
    drawings = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL)]
    bars = [svg for svg in drawings if svg.get("aria-label") == "Gain of each user, best first"]
    assert [len(svg.findall("rect")) for svg in bars] == [4, 4]


def test_an_arm_that_answered_fewer_queries_says_how_many(tmp_path: Path) -> None:
    """Else its mean would be compared with those of others, which are of other queries."""
    estimates = [replace(r, queries=7) if r.condition == GAIN else r for r in typed()]
    assert f"| {GAIN}; 7 queries |" in markdown(estimates, tmp_path)
    assert f"{GAIN}; 7 queries" in Page(report(estimates, tmp_path)).words
    assert f"| {GAIN} |" in markdown(typed(), tmp_path)


# --- head maps ---

NAN = float("nan")


def test_the_heat_map_is_the_mean_over_users() -> None:
    found = mean_map({"a": a_map([[0.1, 0.3], [NAN, 0.2]]), "b": a_map([[0.3, 0.3], [NAN, NAN]])})
    assert found.pcs.ravel().tolist() == pytest.approx([0.2, 0.3, NAN, 0.2], nan_ok=True)
    # the standard error of 0.1 and 0.3 is 0.1
    assert found.pcs_stderr.ravel().tolist() == pytest.approx([0.1, 0, NAN, NAN], nan_ok=True, abs=1e-7)
    assert found.ranking == "pcs"


def test_head_maps_are_drawn_and_compared(tmp_path: Path) -> None:
    maps = {"ada": a_map([[0.1, 0.2]]), "bob": a_map([[0.3, -0.1]])}
    html = report(typed(), tmp_path, {("titles", "tiny"): maps})
    page = Page(html)
    assert "PCS of each head, mean of 2 maps" in page.words
    assert "layer 0, head 0: +0.2000 ± 0.1000 nats per token" in page.words
    assert "Do the maps share heads?" in page.words
    assert html.count('<td class="c20">1.00</td>') == 4
    assert sparseness(maps) in page.words


def test_one_map_is_drawn_and_not_compared(tmp_path: Path) -> None:
    page = Page(report(typed(), tmp_path, {("titles", "tiny"): {"ada": a_map([[0.1, 0.2]])}}))
    assert "PCS of each head, one map" in page.words
    assert "Do the maps share heads?" not in page.words
    assert "matrix" not in {value for _, value in page.attributes}


def test_sparseness_is_a_mean_over_maps() -> None:
    # of 25 heads the best one holds all, and 1/25
    one, even = np.zeros((5, 5), np.float32), np.ones((5, 5), np.float32)
    one[2, 3] = 1
    assert sparseness({"a": a_map(one), "b": a_map(even)}) == (
        "The best 1 of 25 heads hold 52 % of all positive PCS; Gini coefficient 0.48 (means of 2 maps)."
    )
    assert sparseness({"a": a_map(-even)}) == ""


# --- terminal ---


def test_the_terminal_says_what_the_page_says_at_a_glance() -> None:
    text = squeezed(printed(summary_table(typed()), width=200).split())
    assert "titles, tiny ROUGE-L (higher is better); 8 users, 96 queries, intervals over users" in text
    assert (
        "gain (γ = 0.5, K = 8, β = 0.1), best of 2 conditions +0.021 [+0.008, +0.034] 75 % / 25 % 1.27 helps; "
        "beats random" in text
    )
    assert f"calibrated +0.003 [{MINUS}0.004, +0.010] 50 % / 25 % no difference shown" in text


@pytest.mark.parametrize("code", ["utf8", "ascii"])
def test_the_summary_fits_eighty_columns_and_speaks_ascii(code: str) -> None:
    condition = Condition("gain", Gamma.parse("entropy:normalised:cap=0.25"), 128, 0.25)
    estimates = [estimate(PROFILE, 2.5, metric="nll_matched", better=-1, task="t" * 100, model="m" * 100)]
    against = (-0.1234, -0.2345, -0.0123)
    estimates.append(replace(estimates[0], condition=condition, against={"profile": Difference(*against, 1.0, 0.0, 8)}))
    text = printed(summary_table(estimates), code=code)
    assert max(map(len, text.splitlines())) <= 80
    minus = MINUS if code == "utf8" else "-"
    assert f"{minus}0.1234 [{minus}0.2345, {minus}0.0123]" in text
    assert ("gamma" in text) == (code == "ascii")
    assert "?" not in text


# --- a whole evaluation ---


def test_records_of_a_whole_grid_make_a_report(tmp_path: Path) -> None:
    gammas = tuple(map(Gamma.parse, ("0.5", "1", "entropy")))
    conditions = Grid(gammas=gammas, heads=(8, 2), seeds=2).conditions(METHODS)
    worth: dict[Method, float] = {"gain": 0.2, "calibrated": 0.1, "random": -0.1}
    records = [
        Record(
            setting="s",
            task="titles",
            model="tiny",
            user=f"user {u}",
            query=str(q),
            condition=condition,
            nll=(2.5, 2.25, 2.0, *(2.5,) * (len(TEMPERATURES) - 3)),
            values={"rouge_l": 0.3 + worth.get(condition.method, 0) + u / 64 + q / 128, "time": 1.25},
        )
        for condition in conditions
        for u in range(6)
        for q in range(2)
    ]
    estimates = compare(records)
    maps = {("titles", "tiny"): {f"user {u}": a_map(np.eye(5, dtype=np.float32) * u) for u in range(6)}}
    page = Page(report(estimates, tmp_path, maps))
    assert page.open == []
    said = squeezed(page.words)
    assert "ROUGE-L 0.543, better by 0.200 than with the profile alone (95 %: 0.200 to 0.200 better)" in said
    assert "ROUGE-L 0.443, better by 0.100 than with the profile alone" in said
    assert "100 % of users helped, 0 % hurt; a token takes 1.25 times as long; beats random heads" in said
    assert not re.search(r"\bnan\b", said)
