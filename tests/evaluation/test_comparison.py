"""The rows of an evaluation: means, intervals and verdicts, against numbers typed by hand, scipy and simulation."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import sem, t

from dps_local.evaluation.comparison import Estimate, compare
from dps_local.evaluation.condition import METHODS, Condition
from dps_local.evaluation.grid import Grid
from dps_local.evaluation.record import Record
from dps_local.scoring.calibrate import TEMPERATURES
from dps_local.scoring.intervals import FEWEST
from dps_local.steering.mixing import Gamma

PROFILE, STEERED = Condition("profile"), Condition("pcs", Gamma(0.5), 4, 0.1)


def random(seed: int) -> Condition:
    return Condition("random", Gamma(0.5), 4, 0.1, seed=seed)


def record(user: str, query: str, condition: Condition, **changes: Any) -> Record:
    return Record("s", "task", "model", user, query, condition, **changes)


def scored(condition: Condition, by_user: dict[str, list[float]], name: str = "rouge_l") -> list[Record]:
    return [
        record(user, str(i), condition, values={name: x})
        for user, values in by_user.items()
        for i, x in enumerate(values)
    ]


def row(records: list[Record], condition: Condition, metric: str) -> Estimate:
    (found,) = [r for r in compare(records) if r.condition == condition and r.metric == metric]
    return found


def test_a_user_with_many_queries_counts_as_much_as_one_with_few() -> None:
    users = {"a": [1.0, 1.0, 1.0, 1.0], "b": [0.0], "c": [0.5], "d": [0.0], "e": [0.0]}
    found = row(scored(PROFILE, users), PROFILE, "rouge_l")
    assert found.value == pytest.approx(1.5 / 5)
    assert (found.users, found.queries, found.unit) == (5, 8, "users")


def test_several_answers_to_a_query_are_one_mean() -> None:
    users = {"a": [[1.0, 0.0], [1.0, 1.0]], "b": [[0.0, 0.0]]}
    records = [
        record(user, str(i), PROFILE, values={"style": x}, sample=j)
        for user, queries in users.items()
        for i, samples in enumerate(queries)
        for j, x in enumerate(samples)
    ]
    found = row(records, PROFILE, "style")
    assert found.value == pytest.approx((0.75 + 0) / 2)
    assert (found.users, found.queries) == (2, 3)
    alone = row([r for r in records if r.user == "a"], PROFILE, "style")
    assert (alone.low + alone.high) / 2 == pytest.approx(0.75)
    assert alone.high - alone.value >= t.ppf(0.975, 1) * sem([0.5, 1.0]) - 1e-12  # of two queries, not four answers


def test_of_one_user_the_interval_is_over_queries() -> None:
    found = row(scored(PROFILE, {"a": [1.0, 1.0, 1.0, 1.0, 0.0]}), PROFILE, "rouge_l")
    assert found.unit == "queries"
    assert found.value == pytest.approx(4 / 5)
    two = row(scored(PROFILE, {"a": [1.0, 1.0, 1.0, 1.0], "b": [0.0]}), PROFILE, "rouge_l")
    assert two.value == pytest.approx(0.5)
    assert two.unit == "users"


@pytest.mark.parametrize("skewed", [False, True])
@pytest.mark.parametrize("n", [2, 5, 6, 9])
def test_intervals_of_a_few_users_cover_what_they_promise(n: int, skewed: bool) -> None:
    """95 % are promised; 83 % is the least for skewed values of fewer users than a verdict takes."""
    rng, held, runs = np.random.default_rng(n), 0, 300
    for _ in range(runs):
        values = rng.exponential(size=n) - 1 if skewed else rng.standard_normal(n)
        found = row(scored(PROFILE, {str(i): [x] for i, x in enumerate(values)}), PROFILE, "rouge_l")
        held += found.low <= 0 <= found.high
    assert held >= (0.91 if n >= FEWEST or not skewed else 0.83) * runs


@pytest.mark.parametrize("n", [4, 25])
def test_intervals_are_at_least_students(n: int) -> None:
    values = np.random.default_rng(0).standard_normal(n).tolist()
    found = row(scored(PROFILE, {f"{i:02}": [x] for i, x in enumerate(values)}), PROFILE, "rouge_l")
    low, high = t.interval(0.95, n - 1, np.mean(values), sem(values))
    assert found.low <= low + 1e-12
    assert found.high >= high - 1e-12
    assert n < 25 or (found.low, found.high) == pytest.approx((low, high), abs=0.2 * (high - low))


def test_an_interval_of_a_root_of_means_is_that_of_the_delta_method() -> None:
    errors = np.random.default_rng(0).uniform(0.5, 1.5, 200)
    found = row(scored(PROFILE, {f"{i:03}": [x] for i, x in enumerate(errors)}, "mae_answer"), PROFILE, "rmse_answer")
    stderr = sem(errors**2) / (2 * found.value)
    assert found.value == pytest.approx(np.sqrt((errors**2).mean()))
    assert (found.low, found.high) == pytest.approx(
        (found.value - 1.97 * stderr, found.value + 1.97 * stderr), abs=0.01
    )


def test_one_query_has_no_interval() -> None:
    found = row(scored(PROFILE, {"a": [1.0]}) + scored(STEERED, {"a": [2.0]}), STEERED, "rouge_l")
    assert found.verdict() == "too few users"
    said = found.as_json()
    assert (said["value"], said["low"], said["high"]) == (2.0, None, None)
    assert said["against"]["profile"] == {
        "value": 1.0,
        "low": None,
        "high": None,
        "helped": None,
        "hurt": None,
        "users": 1,
    }


def test_below_six_users_there_is_no_verdict_however_large_the_difference() -> None:
    """They are not counted as helped, either; the value is shown."""
    for n, verdict in ((5, "too few users"), (6, "helps")):
        plain = scored(PROFILE, {str(i): [0.1 + i / 100, 0.2] for i in range(n)})
        found = row(plain + scored(STEERED, {str(i): [0.8, 0.9] for i in range(n)}), STEERED, "rouge_l")
        assert found.verdict() == verdict
        difference = found.against["profile"]
        assert difference.value == pytest.approx(0.7 - (n - 1) / 400)
        assert (difference.helped, difference.hurt) == ((1.0, 0.0) if n == 6 else (None, None))


def test_differences_are_paired() -> None:
    plain = {str(i): [float(i)] for i in range(8)}  # users differ far more than conditions do
    better = {user: [values[0] + 0.25] for user, values in plain.items()}
    found = row(scored(PROFILE, plain) + scored(STEERED, better), STEERED, "rouge_l")
    difference = found.against["profile"]
    assert difference.value == pytest.approx(0.25)
    assert difference.low == pytest.approx(0.25)
    assert difference.high == pytest.approx(0.25)
    assert (difference.helped, difference.hurt) == (1.0, 0.0)
    assert found.by_user == pytest.approx((0.25,) * 8)
    assert found.verdict() == "helps"
    assert found.high - found.low > 1


def test_only_queries_that_both_arms_have_are_compared() -> None:
    plain = scored(PROFILE, {str(i): [0.0, 5.0] for i in range(6)})
    steered = scored(STEERED, {str(i): [1.0] for i in range(6)})
    assert row(plain + steered, STEERED, "rouge_l").against["profile"].value == pytest.approx(1.0)


def test_an_arm_that_changes_nothing_makes_no_difference() -> None:
    users = {str(i): [float(i % 3)] for i in range(7)}
    found = row(scored(PROFILE, users) + scored(STEERED, users), STEERED, "rouge_l")
    difference = found.against["profile"]
    assert (difference.value, difference.low, difference.high) == (0, 0, 0)
    assert (difference.helped, difference.hurt) == (0, 0)
    assert found.verdict() == "no difference shown"


@pytest.mark.parametrize(("metric", "verdict"), [("rouge_l", "helps"), ("repetition", "hurts"), ("length", "")])
def test_what_more_means_depends_on_the_measure(metric: str, verdict: str) -> None:
    records = [*scored(PROFILE, {str(i): [0.1] for i in range(6)}, metric)]
    records += scored(STEERED, {str(i): [0.2] for i in range(6)}, metric)
    assert row(records, STEERED, metric).verdict() == verdict


def test_random_heads_of_all_seeds_are_one_arm() -> None:
    records = scored(random(0), {str(i): [0.0] for i in range(6)})
    records += scored(random(1), {str(i): [1.0] for i in range(6)})
    records += scored(STEERED, {str(i): [0.75] for i in range(6)})
    assert row(records, random(0).without_seed, "rouge_l").value == pytest.approx(0.5)
    assert row(records, STEERED, "rouge_l").against["random"].value == pytest.approx(0.25)


def test_arms_are_compared_with_random_heads_of_the_same_settings() -> None:
    other = Condition("random", Gamma(0.5), 8, 0.1, seed=0)
    records = scored(other, {str(i): [1.0] for i in range(6)}) + scored(random(0), {str(i): [0.0] for i in range(6)})
    records += scored(STEERED, {str(i): [0.5] for i in range(6)})
    assert row(records, STEERED, "rouge_l").against["random"].value == pytest.approx(0.5)


def test_likelihoods_are_compared_at_the_best_temperature_of_each_arm() -> None:
    rest = (3.0,) * (len(TEMPERATURES) - 3)
    losses = {"a": (2.0, 1.0, 1.5, *rest), "b": (2.0, 3.0, 2.0, *rest)}  # the third is best on average
    records = [record(user, "q", PROFILE, nll=nll) for user, nll in losses.items()]
    assert row(records, PROFILE, "nll").value == pytest.approx(2.0)
    assert row(records, PROFILE, "nll_matched").value == pytest.approx(1.75)


def test_likelihoods_at_the_temperatures_of_an_earlier_version_are_left_out() -> None:
    records = [record("a", "q", PROFILE, nll=(2.0, 1.0), values={"rouge_l": 1.0})]
    assert {r.metric for r in compare(records)} == {"rouge_l"}


def test_the_root_of_the_mean_square_is_taken_over_all() -> None:
    records = scored(PROFILE, {"a": [1.0], "b": [3.0]}, "mae_answer")
    assert row(records, PROFILE, "mae_answer").value == pytest.approx(2.0)
    assert row(records, PROFILE, "rmse_answer").value == pytest.approx(np.sqrt(5.0))


def macro_f1(gold: Sequence[Hashable], predicted: Sequence[Hashable]) -> float:
    """Return the mean over the labels in `gold` of each one's F1, by definition."""
    found = []
    for label in set(gold):
        right = sum(g == p == label for g, p in zip(gold, predicted, strict=True))
        precision = right / max(1, sum(p == label for p in predicted))
        recall = right / sum(g == label for g in gold)
        found.append(2 * precision * recall / (precision + recall) if right else 0.0)
    return sum(found) / len(found)


def test_macro_f1_is_that_of_the_confusion_table() -> None:
    assert macro_f1("aaabbc", "aacbaa") == pytest.approx((2 * 2 / (3 + 4) + 2 * 1 / (2 + 1) + 0) / 3)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["a", "b", "c", ""])), min_size=1, max_size=12))
def test_accuracy_and_macro_f1_are_those_of_all_queries(pairs: list[tuple[str, str]]) -> None:
    records = [
        record("one", str(i), PROFILE, labels={"gold": gold, "answer": said}) for i, (gold, said) in enumerate(pairs)
    ]
    gold, said = zip(*pairs, strict=True)
    assert row(records, PROFILE, "accuracy_answer").value == pytest.approx(np.mean(np.array(gold) == np.array(said)))
    if 2 * len(set(gold)) <= len(gold):
        assert row(records, PROFILE, "macro_f1_answer").value == pytest.approx(macro_f1(gold, said))
    else:
        assert not [r for r in compare(records) if r.metric == "macro_f1_answer"]


def test_tasks_and_models_are_rows_of_their_own() -> None:
    records = scored(PROFILE, {"a": [1.0]})
    other = [Record("s", "other", "model", "a", "0", PROFILE, values={"rouge_l": 0.0})]
    assert [(r.task, r.value) for r in compare(records + other)] == [("task", 1.0), ("other", 0.0)]


def test_a_row_is_the_contracts_json() -> None:
    users = {str(i): [float(i)] for i in range(FEWEST)}
    found = row(scored(PROFILE, users) + scored(STEERED, users), STEERED, "rouge_l").as_json()
    assert {"task", "model", "method", "metric", "value", "low", "high", "users", "queries"} <= found.keys()
    assert (found["method"], found["gamma"], found["heads"], found["beta"]) == ("pcs", "0.5", 4, 0.1)


def test_own_texts_are_compared_with_a_prior_alone_and_with_another_users() -> None:
    conditions = {method: Condition(method, Gamma(0.4)) for method in ("prior", "another", "prior-own")}
    values = {"prior": 1.0, "another": 1.5, "prior-own": 1.75}
    records = [r for name, one in conditions.items() for r in scored(one, {str(i): [values[name]] for i in range(6)})]
    records += scored(replace(conditions["prior"], gamma=Gamma(0.2)), {str(i): [9.0] for i in range(6)})
    against = row(records, conditions["prior-own"], "rouge_l").against
    assert {name: difference.value for name, difference in against.items()} == {"prior": 0.75, "another": 0.25}
    assert "prior" not in row(records, conditions["another"], "rouge_l").against


def test_settings_change_one_at_a_time() -> None:
    grid = Grid((Gamma(0.5), Gamma(1.0)), (8, 4), (0.1, 0.0), (Gamma(0.1), Gamma(0.2)), (1,), seeds=2)
    pcs = [(str(a.gamma), a.heads, a.beta) for a in grid.conditions(["pcs"])]
    assert pcs == [("0.5", 8, 0.1), ("1", 8, 0.1), ("0.5", 4, 0.1), ("0.5", 8, 0.0)]
    assert [str(a) for a in grid.conditions(["none", "profile", "amplify"])] == [
        "none",
        "profile",
        "profile (items = 1)",
        "amplify (γ = 0.1)",
        "amplify (γ = 0.2)",
    ]
    few = replace(grid, step_heads=(3,)).conditions(["prior", "own"])
    assert [str(a) for a in few] == [
        "prior (γ = 0.1)",
        "prior (γ = 0.2)",
        "prior (γ = 0.1, K = 3)",
        "prior (γ = 0.2, K = 3)",
        "own (γ = 0.1)",
        "own (γ = 0.2)",
    ]
    assert [(a.heads, a.seed) for a in grid.conditions(["random"])][:4] == [(8, 0), (8, 1), (8, 0), (8, 1)]
    assert all(condition.heads is None for condition in grid.conditions(["cad", "cluster-hard"]))


def test_an_arm_reads_back_from_json() -> None:
    grid = Grid((Gamma(0.5), Gamma(entropy=True, cap=2.0)), items=(0, 2))
    for condition in grid.conditions(METHODS):
        assert Condition.from_json(condition.as_json()) == condition


def test_perplexity_is_that_of_the_mean_nll() -> None:
    records = scored(PROFILE, {"a": [1.0], "b": [3.0]}, "answer_nll")
    assert row(records, PROFILE, "answer_perplexity").value == pytest.approx(np.exp(2.0))
