"""An evaluation on tiny models: whose text scores heads, what each condition means, and interruptions."""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from maps import hand_made_map
from opened import shared
from tiny import TinyModel

from dps_local.assistant import Assistant, Settings
from dps_local.bench.forced_sampler import ForcedSampler
from dps_local.chat.session import Session
from dps_local.engine.context import Context, Run
from dps_local.engine.model import Model, head_mask
from dps_local.engine.sampler import Sampling
from dps_local.errors import DataError, DpsError, Remedy
from dps_local.evaluation import evaluation, evaluation_options, head_map_store
from dps_local.evaluation.condition import METHODS, Condition
from dps_local.evaluation.dataset import Query, User
from dps_local.evaluation.evaluation import Evaluation
from dps_local.evaluation.evaluation_options import EvaluationOptions
from dps_local.evaluation.grid import Grid
from dps_local.evaluation.head_map_store import HeadMapStore, halves
from dps_local.evaluation.likelihood import Likelihood
from dps_local.evaluation.outcome import outcomes_of
from dps_local.evaluation.prompted_query import PromptedQuery
from dps_local.evaluation.record import Record
from dps_local.evaluation.record_file import RecordFile
from dps_local.evaluation.treatment import UNSTEERED, Treatment, random_heads, treatment_of
from dps_local.prompting.chat_template import ChatTemplate
from dps_local.prompting.profile import Profile
from dps_local.scoring.calibrate import TEMPERATURES
from dps_local.scoring.options import ScoringOptions
from dps_local.scoring.scoring import Scoring
from dps_local.steering.mixing import Gamma
from dps_local.steering.steering import Steering

REQUEST = "Generate a headline for the following article: "
SCORING = ScoringOptions(examples=2, target_tokens=6)
OPTIONS = EvaluationOptions(
    methods=("none", "profile", "cad", "random", "gain", "amplify", "calibrated"),
    grid=Grid(heads=(2,), seeds=2),
    source="task",
    profile_tokens=120,
    n_ctx=768,
    n_threads=1,
    n_predict=8,
    target_tokens=8,
    scoring=replace(SCORING, n_threads=1),
)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPS_LOCAL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def model(tiny_model: TinyModel) -> Model:
    return shared(tiny_model())


def user(name: str, items: int = 3, queries: int = 2) -> User:
    """Return a user whose every text has their name in it."""
    return User(
        name,
        "news_headline",
        tuple({"title": f"{name} item {i}", "text": f"What {name} saw, part {i}."} for i in range(items)),
        (),
        tuple(
            Query(f"q{i}", f"{REQUEST}{name} asks, {i}.", gold := f"{name} gold {i}", (), (gold,))
            for i in range(queries)
        ),
    )


USERS = [user(name) for name in ("Ada", "Bob", "Cyd", "Dot")]


def evaluated(model: Model, folder: Path, people: Sequence[User] = USERS, **changes: Any) -> list[Record]:
    run = Evaluation(model, people, replace(OPTIONS, **changes), folder)
    run.run()
    return run.records()


def without_time(records: Sequence[Record]) -> list[Record]:
    return [replace(r, values={name: x for name, x in r.values.items() if name != "time"}) for r in records]


def test_every_query_has_a_record_in_every_arm(model: Model, tmp_path: Path) -> None:
    found = evaluated(model, tmp_path, methods=METHODS, clusters=2)
    conditions = OPTIONS.grid.conditions(METHODS)
    assert len({r.key for r in found}) == len(found) == len(USERS) * 2 * len(conditions)
    for record in found:
        assert len(record.nll) == len(TEMPERATURES)
        assert {"rouge_1", "rouge_l", "repetition", "length"} <= record.values.keys()
    file = tmp_path / "records.jsonl"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [Record.from_json(json.loads(line)) for line in file.read_text().splitlines()] == found


def test_the_perplexity_of_a_contrast_comes_with_its_tokens(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Likelihood, "plain_loss", None)  # one more forward pass
    found = evaluated(model, tmp_path, methods=("profile", "random"))
    assert len({r.values["answer_nll"] for r in found if r.answer}) > 2


def test_a_run_that_was_broken_off_goes_on(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluated(model, tmp_path / "whole")
    add, calls = RecordFile.add, 0

    def interrupted(self: RecordFile, records: list[Record]) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        add(self, records)

    with monkeypatch.context() as patch:
        patch.setattr(RecordFile, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            evaluated(model, tmp_path / "parts")
    with (tmp_path / "parts" / "records.jsonl").open("a") as file:
        file.write('{"setting": "cut o')
    assert without_time(evaluated(model, tmp_path / "parts")) == without_time(whole)
    monkeypatch.setattr(evaluation, "outcomes_of", None)  # nothing is computed again
    assert len(evaluated(model, tmp_path / "parts")) == len(whole)


def test_what_is_not_a_result_is_left_alone(model: Model, tmp_path: Path) -> None:
    for notes in ("notes of mine\n", f"{'[' * 100_000}\n"):
        (tmp_path / "records.jsonl").write_text(notes)
        with pytest.raises(DataError, match=r"line 1, is no result of eval$") as info:
            evaluated(model, tmp_path)
        assert info.value.remedy is Remedy.OTHER_FOLDER
        assert (tmp_path / "records.jsonl").read_text() == notes


def test_other_settings_are_computed_anew_and_not_mixed(model: Model, tmp_path: Path) -> None:
    first = evaluated(model, tmp_path, methods=("profile",))
    second = evaluated(model, tmp_path, methods=("profile",), items=0)
    assert len(first) == len(second) == len(RecordFile(tmp_path / "records.jsonl").records) / 2
    assert {r.setting for r in first}.isdisjoint(r.setting for r in second)


def changed(person: User, item: str = "", gold: str = "") -> User:
    """Return the user with another first item, or another answer to the first query."""
    items = ({**person.items[0], "text": item}, *person.items[1:]) if item else person.items
    query = replace(person.queries[0], output=gold, references=(gold,)) if gold else person.queries[0]
    return replace(person, items=items, queries=(query, *person.queries[1:]))


OTHER_HALF = [u.id for u in USERS if halves([u.id for u in USERS], SCORING.seed)[u.id] == "confirm"]


@pytest.mark.parametrize(
    ("people", "again"),
    [
        # of 4 users, 2 queries each, in the conditions 'profile' and 'gain'
        (USERS, 0),
        (list(reversed(USERS)), 0),
        ([changed(u, gold="Another end") if u.id == "Ada" else u for u in USERS], 2),
        ([replace(u, preferences=("short",)) if u.id == OTHER_HALF[0] else u for u in USERS], 4 + 4),
        ([changed(u, item="What nobody saw.") if u.id == OTHER_HALF[0] else u for u in USERS], 4 + 4),
    ],
    ids=["same", "reversed", "answer", "preference", "item"],
)
def test_a_result_is_taken_up_only_where_all_it_was_made_from_is_the_same(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, people: list[User], again: int
) -> None:
    """A user's text is in the heads of the other half: 'gain' of its 2 users is made anew, beside the user's own 2."""
    before = evaluated(model, tmp_path / "out", methods=("profile", "gain"))
    added: list[Record] = []
    add = RecordFile.add

    def counted(self: RecordFile, records: list[Record]) -> None:
        added.extend(records)
        add(self, records)

    monkeypatch.setattr(RecordFile, "add", counted)
    run = Evaluation(model, people, replace(OPTIONS, methods=("profile", "gain")), tmp_path / "out")
    news = [f"taking up an earlier run: {len(before) - again} of {len(before)} results are known"]
    if again:
        where = tmp_path / "out" / "records.jsonl"
        news.append(f"{again} results in {where} are of other data, options or code: they are not used")
    assert run.notices() == news
    run.run()
    assert len(added) == again
    fresh = evaluated(model, tmp_path / "fresh", people, methods=("profile", "gain"))

    def in_order(records: Sequence[Record]) -> list[Record]:
        return sorted(without_time(records), key=lambda r: str(r.key))

    assert in_order(run.records()) == in_order(fresh)


def test_results_of_another_version_or_of_none_are_not_taken_up(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = evaluated(model, tmp_path, methods=("profile",))
    file = tmp_path / "records.jsonl"
    old = [{k: x for k, x in json.loads(line).items() if k != "content"} for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(line) + "\n" for line in old))
    note = f"{len(old)} results in {file} are of other data, options or code: they are not used"
    options = replace(OPTIONS, methods=("profile",))
    assert Evaluation(model, USERS, options, tmp_path).notices() == [note]
    assert evaluated(model, tmp_path, methods=("profile",)) == found
    monkeypatch.setattr(evaluation_options, "VERSION", 0)
    run = Evaluation(model, USERS, options, tmp_path)
    assert run.notices() == [note.replace(str(len(old)), str(2 * len(old)), 1)]
    assert run.records() == []


def test_results_of_other_tasks_stay_in_the_report(model: Model, tmp_path: Path) -> None:
    evaluated(model, tmp_path, methods=("profile",))
    other = [replace(u, task="email_subject", items=(), queries=u.queries[:1]) for u in USERS[:2]]
    found = evaluated(model, tmp_path, other, methods=("profile",))
    assert [r.task for r in found] == ["news_headline"] * 8 + ["email_subject"] * 2
    assert Evaluation(model, other, replace(OPTIONS, methods=("profile",)), tmp_path).notices() == [
        "taking up an earlier run: 2 of 2 results are known"
    ]


def test_one_half_of_the_users_is_evaluated(model: Model, tmp_path: Path) -> None:
    half = halves([u.id for u in USERS], SCORING.seed)
    assert sorted(half.values()) == ["choose", "choose", "confirm", "confirm"]
    for subset in ("choose", "confirm"):
        found = evaluated(model, tmp_path / subset, methods=("profile",), subset=subset)
        assert {r.user for r in found} == {name for name in half if half[name] == subset}


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All text that heads are scored or calibrated on, one string for each scoring."""
    seen: list[str] = []
    original = Scoring.__init__

    def noted(self: Scoring, model: Model, examples: Any, *others: Any) -> None:
        texts = [t for example in examples.values() for t in (example.text.prompt, example.text.target)]
        seen.append(" ".join(model.detokenize(tokens) for tokens in texts))
        original(self, model, examples, *others)

    monkeypatch.setattr(Scoring, "__init__", noted)
    return seen


def test_heads_from_other_users_know_nothing_of_the_user(model: Model, tmp_path: Path, scored: list[str]) -> None:
    half = halves([u.id for u in USERS], SCORING.seed)
    evaluated(model, tmp_path, methods=("gain", "calibrated"))
    assert len(scored) == 2  # one for each half
    for text in scored:
        mentioned = {half[name] for name in half if name in text}
        assert len(mentioned) == 1
    assert not any("gold" in text or "asks" in text for text in scored)
    assert (
        len(list((tmp_path / "cache" / "scores").glob("*.f64"))) == 4
    )  # two examples of each half, and none forgotten


def test_of_other_users_each_counts_once_in_calibration(model: Model, tmp_path: Path) -> None:
    people = [user(name, items=4) for name in ("Ada", "Bob", "Cyd", "Dot", "Eve", "Fay", "Gus", "Hal", "Ivy", "Jim")]
    scoring = replace(OPTIONS.scoring, examples=4)
    own = Evaluation(model, people, replace(OPTIONS, scoring=scoring), tmp_path).stores["news_headline"]
    found = own.head_map("Ada", "gain").calibration  # from two of five users, two items each
    assert found is not None
    assert found.n == 2


def test_heads_from_the_users_own_items_know_nothing_of_the_queries(
    model: Model, tmp_path: Path, scored: list[str]
) -> None:
    people = [user(name, items=8, queries=1) for name in ("Ada", "Bob")]
    evaluated(model, tmp_path, people, source="user", methods=("gain",))
    assert len(scored) == 2
    for text in scored:
        assert ("Ada" in text) != ("Bob" in text)
        assert "gold" not in text
        assert "asks" not in text


def test_users_who_wrote_nothing_before_have_heads_from_the_queries_of_others(
    model: Model, tmp_path: Path, scored: list[str]
) -> None:
    options = ("Yes, by all means", "No, thank you")
    people = [
        User(name, "preference_following", (), (f"{name} likes {name}",), (Query("q", f"{name}?", o, options, (o,)),))
        for name, o in zip(["Ada", "Bob", "Cyd", "Dot"], options * 2, strict=True)
    ]
    found = evaluated(model, tmp_path, people, source="user", methods=("profile", "gain"))
    half = halves([u.id for u in people], SCORING.seed)
    assert [len({half[name] for name in half if name in text}) for text in scored] == [1, 1]
    for record in found:
        assert record.labels.keys() == {"gold", "likelihood", "answer"}
        assert record.labels["likelihood"] in options


def test_numbers_are_measured_by_how_far_they_are(model: Model, tmp_path: Path) -> None:
    item = {"text": "A film of great length.", "rating": "0.4"}
    person = User("Ada", "movie_rating", (item,), (), (Query("q", "Rate this. review: Long.", "0.9", (), ("0.9",)),))
    (record,) = evaluated(model, tmp_path, [person], methods=("profile",))
    assert record.values["mae_answer"] == pytest.approx(0.9)  # no number: the far end of 0 to 1
    assert record.values["mae_likelihood"] == pytest.approx(abs(0.9 - best_number(model, person)))


def best_number(model: Model, person: User) -> float:
    """Return the rating whose tokens, with the end of the turn, a context finds the likeliest, on average."""
    prompter = Evaluation(model, [person], OPTIONS, Path("unused")).stores["movie_rating"].prompters["Ada"]
    prompt = prompter.prompt("", prompter.request(person.queries[0].input)[0])
    options = [f"{i / 10:.1f}" for i in range(1, 11)]
    losses = []
    for option in options:
        target = model.tokenize(f"{option}<|im_end|>", special=True)
        context = Context(model, 768, n_outputs=8, n_threads=1)
        context.decode([Run(0, 0, prompt[:-1])])
        rows = context.decode([Run(0, len(prompt) - 1, [prompt[-1], *target[:-1]], len(target))]).astype(np.float64)
        context.close()
        losses.append((np.log(np.exp(rows).sum(axis=1)) - rows[np.arange(len(target)), target]).mean())
    return float(options[int(np.argmin(losses))])


def forced_nll(model: Model, request: str, target: Sequence[int], steering: Steering | None, alone: str = "") -> float:
    """Return the NLL of a target by the probabilities that a session gives its tokens, one after the other."""
    options: dict[str, Any] = {"engine": "eager", "probs": True, "n_threads": 1}
    session = Session(model, ChatTemplate(model), recall=lambda *_: (request, ()), steering=steering, **options)
    session.sampler = ForcedSampler(Sampling(temp=0), list(target))
    try:
        tokens = list(session.ask(alone or request, len(target)))
    finally:
        session.close()
    assert [t.id for t in tokens] == list(target)
    return -float(np.mean([math.log(t.p_steered or math.nan) for t in tokens]))


@pytest.mark.parametrize("mode", ["contrast", "contrast, entropy", "cad", "amplify", "plain"])
def test_likelihoods_are_those_of_the_session(model: Model, tmp_path: Path, mode: str) -> None:
    muted = head_mask(model, [(1, 0), (2, 2)])
    steering = {
        "contrast": Steering(muted, Gamma(1.5), beta=0.0),
        "contrast, entropy": Steering(muted, Gamma(entropy=True, normalised=True), beta=0.0),
        "cad": Steering(head_mask(model, []), Gamma(1.5), beta=0.0, mode="cad"),
        "amplify": Steering(2 - muted, Gamma(0.7), mode="amplify"),
        "plain": None,
    }[mode]
    run = Evaluation(model, USERS[:1], OPTIONS, tmp_path)
    asked = PromptedQuery(run.stores["news_headline"].prompters["Ada"], USERS[0].queries[0], 8)
    treatments = [Treatment(steering=steering), UNSTEERED, Treatment("question")]
    likelihood = Likelihood(model, asked.texts(treatments, 8), "generated", n_threads=1)
    found = outcomes_of(asked, treatments, likelihood, None)
    likelihood.close()
    question = asked.question
    request = asked.request("profile")
    expected = [
        forced_nll(model, request, asked.targets[0], steering, question),
        forced_nll(model, request, asked.targets[0], None),
        forced_nll(model, question, asked.targets[0], None),
    ]
    # scoring's attention kernel rounds otherwise than chat's
    assert [r.nll[0] for r in found] == pytest.approx(expected, abs=0.02)
    assert mode == "plain" or abs(expected[0] - expected[1]) > 0.05


def test_arms_are_what_their_names_say(model: Model, tmp_path: Path) -> None:
    run = Evaluation(model, USERS, OPTIONS, tmp_path)
    own = run.stores["news_headline"]
    gain = own.head_map("Ada", "gain")
    grid = Grid((Gamma(0.5),), (3,))
    assert (
        treatment_of(Condition("profile"), "Ada", own, model) == UNSTEERED
        or UNSTEERED.key == treatment_of(Condition("profile"), "Ada", own, model).key
    )
    assert treatment_of(Condition("profile", items=1), "Ada", own, model).prompt_kind == 1
    assert treatment_of(Condition("none"), "Ada", own, model).prompt_kind == "question"
    steering = treatment_of(grid.conditions(["gain"])[0], "Ada", own, model).steering
    assert steering is None or set(zip(*np.nonzero(steering.scales == 0), strict=True)) == set(gain.top_heads(3))
    random = [treatment_of(condition, "Ada", own, model).steering for condition in grid.conditions(["random"])]
    assert [int((s.scales == 0).sum()) for s in random if s] == [3, 3, 3]
    up = treatment_of(Condition("amplify-positive", Gamma(0.2)), "Ada", own, model).steering
    assert up is None or ((up.scales >= 1).all() and up.mode == "amplify")


@pytest.mark.parametrize(("mode", "gamma"), [("contrast", 0.25), ("amplify", 0.2), ("contrast", 0.0)])
def test_calibrated_is_what_chat_would_do(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Any, gamma: float
) -> None:
    head_map = hand_made_map(model, mode=mode, gamma=gamma)
    monkeypatch.setattr(HeadMapStore, "head_map", lambda *_: head_map)
    own = Evaluation(model, USERS, OPTIONS, tmp_path).stores["news_headline"]
    found = treatment_of(Condition("calibrated"), "Ada", own, model)
    assistant = Assistant(model, Profile(preferences=("short",)), head_map, Settings(n_ctx=512))
    expected = assistant.steering
    assert found.key == (Treatment(steering=expected) if gamma else UNSTEERED).key


def test_random_heads_differ_by_seed_and_user_and_are_the_same_again(model: Model) -> None:
    chosen = [random_heads(model, 6, seed, name) for seed in (0, 1) for name in ("Ada", "Bob")]
    assert all(len(set(c)) == 6 and set(c) <= set(model.heads()) for c in chosen)
    assert len({frozenset(c) for c in chosen}) == 4
    assert random_heads(model, 6, 1, "Bob") == chosen[3]


def test_the_top_heads_are_those_of_the_highest_lower_bound(model: Model) -> None:
    shape = (model.n_layer, model.n_head_max)
    gain, stderr, counts = (np.zeros(shape, np.float32) for _ in range(3))
    counts += 5
    gain[0, 1], stderr[0, 1] = 0.5, 0.3  # high, but unsure: t(4, 0.95) = 2.13
    gain[1, 2], stderr[1, 2] = 0.2, 0.01
    gain[2, 3], stderr[2, 3] = 0.1, 0.01
    gain[2, 0], counts[2, 0] = 0.9, 2  # dropped on the way
    gain[1, 1] = -0.2
    head_map = hand_made_map(model, gain=gain, gain_stderr=stderr, counts=counts)
    assert head_map.top_heads(2) == [(1, 2), (2, 3)]
    assert head_map.top_heads(50) == [(1, 2), (2, 3), (0, 1)]
    assert head_map.top_heads(0) == []


def test_one_user_alone_has_nobody_to_learn_from(model: Model, tmp_path: Path) -> None:
    with pytest.raises(DpsError, match="need at least two users"):
        evaluated(model, tmp_path, USERS[:1], methods=("gain",))


def test_users_and_queries_are_drawn_the_same_way_each_time(model: Model, tmp_path: Path) -> None:
    found = evaluated(model, tmp_path, methods=("profile",), users=2, queries=1)
    assert len(found) == 2
    again = evaluated(model, tmp_path / "other", list(reversed(USERS)), methods=("profile",), users=2, queries=1)
    assert {(r.user, r.query) for r in again} == {(r.user, r.query) for r in found}


def test_maps_are_kept_and_found_again(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated(model, tmp_path, methods=("gain",))
    monkeypatch.setattr(head_map_store, "score", None)
    monkeypatch.setattr(head_map_store, "Scoring", None)
    run = Evaluation(model, USERS, OPTIONS, tmp_path)
    (found,) = run.maps().values()
    # not one for each user: the report would say that all users have the same heads
    assert sorted(found) == ["part choose", "part confirm"]
