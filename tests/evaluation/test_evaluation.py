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
from dps_local.engine.sampler import Sampler, Sampling
from dps_local.errors import DataError, DpsError, Remedy
from dps_local.evaluation import evaluation, evaluation_options, head_map_store
from dps_local.evaluation.answer_generator import AnswerGenerator
from dps_local.evaluation.condition import METHODS, Condition
from dps_local.evaluation.dataset import Query, User
from dps_local.evaluation.evaluation import Evaluation
from dps_local.evaluation.evaluation_options import EvaluationOptions
from dps_local.evaluation.grid import Grid
from dps_local.evaluation.head_map_store import HeadMapStore, halves
from dps_local.evaluation.likelihood import Likelihood
from dps_local.evaluation.ngram_cache import NgramCache, NgramModel
from dps_local.evaluation.outcome import outcomes_of
from dps_local.evaluation.prompted_query import PromptedQuery
from dps_local.evaluation.record import Record
from dps_local.evaluation.record_file import RecordFile
from dps_local.evaluation.style_margin import StyleMargin
from dps_local.evaluation.task_prompter import TaskPrompter
from dps_local.evaluation.treatment import UNSTEERED, Treatment, random_heads, treatment_of
from dps_local.maps.head_map import HeadMap
from dps_local.prompting.chat_template import ChatTemplate, Exchange
from dps_local.prompting.profile import Profile
from dps_local.prompting.prompt import Request
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
    samples=1,
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
    people = [*USERS, *(user(name) for name in ("Eve", "Fay", "Gus", "Hal"))]  # a step is made of three or more
    found = evaluated(model, tmp_path, people, methods=METHODS, clusters=2)
    conditions = OPTIONS.grid.conditions(METHODS)
    assert len({r.key for r in found}) == len(found) == len(people) * 2 * len(conditions)
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


def test_results_of_another_head_map_are_not_taken_up(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = evaluated(model, tmp_path, methods=("profile", "gain"))
    paths = sorted((tmp_path / "maps").iterdir())
    assert len(paths) == 2  # of the two halves, which each have 2 users of 2 queries
    found = HeadMap.load(paths[0])
    replace(found, gain=found.gain[::-1].copy()).save(paths[0])
    options, file = replace(OPTIONS, methods=("profile", "gain")), tmp_path / "records.jsonl"
    known = f"taking up an earlier run: {len(before) - 4} of {len(before)} results are known"
    outdated = f"4 results in {file} are of other data, options or code: they are not used"
    assert Evaluation(model, USERS, options, tmp_path).notices() == [known, outdated]
    again = evaluated(model, tmp_path, methods=("profile", "gain"))
    assert len({r.key for r in again} - {r.key for r in before}) == 4
    # a map that is lost is made again, and is the same
    for path in paths:
        path.unlink()
    monkeypatch.setattr(evaluation, "outcomes_of", None)
    lost = evaluated(model, tmp_path, methods=("profile", "gain"))
    assert sorted(r.key for r in without_time(lost)) == sorted(r.key for r in without_time(before))


def test_results_of_another_prompt_are_not_taken_up(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = evaluated(model, tmp_path, methods=("none", "profile"))

    def exchange(self: TaskPrompter, i: int, _: int | None = None) -> Exchange:
        return Exchange("Put a title over it.", self.profile.history[i].output)

    monkeypatch.setattr(TaskPrompter, "exchange", exchange)
    again = evaluated(model, tmp_path, methods=("none", "profile"))
    by_method = [{r.key for r in records if r.condition.method == m} for records in (found, again) for m in METHODS[:2]]
    assert by_method[0] == by_method[2]  # which shows no item
    assert by_method[1].isdisjoint(by_method[3])


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
    prompt = prompter.prompt("", prompter.request(person.queries[0].input))
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


def forced_nll(
    model: Model, request: Request, target: Sequence[int], steering: Steering | None, alone: str = ""
) -> float:
    """Return the NLL of a target by the probabilities that a session gives its tokens, one after the other."""
    options: dict[str, Any] = {"engine": "eager", "probs": True, "n_threads": 1}
    session = Session(model, ChatTemplate(model), recall=lambda *_: request, steering=steering, **options)
    session.sampler = ForcedSampler(Sampling(temp=0), list(target))
    try:
        tokens = list(session.ask(alone or request.text, len(target)))
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
        forced_nll(model, Request(question), asked.targets[0], None),
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


def generator_of(model: Model, samples: int, seed: int = 3) -> AnswerGenerator:
    return AnswerGenerator(Session(model, n_ctx=768, n_threads=1), Sampling(temp=0.8, seed=seed), 8, samples)


ASKED = Request("Ada says much. Who asks?")


def test_several_answers_share_one_reading_of_the_prompt(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = generator_of(model, 4)
    read: list[int] = []
    original = Context.decode

    def counted(self: Context, runs: Sequence[Run]) -> Any:
        read.extend(len(run.tokens) for run in runs)
        return original(self, runs)

    monkeypatch.setattr(Context, "decode", counted)
    cad = Treatment(steering=Steering(head_mask(model, []), Gamma(0.5), mode="cad"))
    muted = Treatment(steering=Steering(head_mask(model, [(1, 0)]), Gamma(0.5)))
    answers = [generator.answers("Who asks?", ASKED, t) for t in (UNSTEERED, muted, cad)]
    n_prompts = sum(n > 8 for n in read)
    assert n_prompts == 2  # with the profile, and the question alone
    texts = [[turn.text for turn in turns] for turns in answers]
    assert all(len(set(its)) > 1 for its in texts)
    generator.chat.close()
    for i in (0, 3):  # as if they had been asked for alone
        alone = generator_of(model, 1, seed=3 + i)
        for treatment, its in zip((UNSTEERED, muted, cad), texts, strict=True):
            assert alone.answers("Who asks?", ASKED, treatment)[0].text == its[i]
        alone.chat.close()


def test_each_answer_has_a_record_and_likelihoods_come_with_the_first(model: Model, tmp_path: Path) -> None:
    found = evaluated(model, tmp_path, methods=("profile",), samples=3)
    assert [r.sample for r in found] == [0, 1, 2] * 8
    assert not any("end_nll" in r.values for r in found)  # texts are cut
    found = evaluated(model, tmp_path, methods=("profile",), samples=3, target_tokens=16)
    assert all(bool(r.nll) == ("end_nll" in r.values) == (r.sample == 0) for r in found)
    assert all({"rouge_l", "style", "answer_tokens", "answer_ended", "repetition"} <= r.values.keys() for r in found)
    assert len({r.answer for r in found}) > 8
    again = evaluated(model, tmp_path / "again", methods=("profile",), samples=3, target_tokens=16)
    assert without_time(again) == without_time(found)
    greedy = evaluated(model, tmp_path, methods=("profile",), samples=3, sampling=Sampling(temp=0))
    assert [r.sample for r in greedy] == [0] * 8


def test_an_answer_has_ended_where_its_end_came_before_the_cap(model: Model, tmp_path: Path) -> None:
    ended = set()
    for n in (1, 64):
        for record in evaluated(model, tmp_path, methods=("profile",), n_predict=n, samples=4):
            assert record.values["answer_ended"] == (record.values["answer_tokens"] < n)
            ended.add(record.values["answer_ended"])
    assert ended == {0.0, 1.0}


def test_style_margins_are_of_what_everyone_writes_now(model: Model, tmp_path: Path) -> None:
    before = evaluated(model, tmp_path, methods=("profile",))
    people = [*USERS[:3], replace(USERS[3], items=({"title": before[0].answer or "", "text": "Dot's."},))]
    margin = StyleMargin({person.id: [item["title"] for item in person.items] for person in people})
    after = evaluated(model, tmp_path, people, methods=("profile",))
    assert len({r.key for r in after} & {r.key for r in before}) == 6  # not measured again
    assert [r.values["style"] for r in after] == [margin(r.user, r.answer or "") for r in after]
    assert before[0].user != "Dot"
    (same,) = [r for r in after if r.key == before[0].key]
    assert same.values["style"] < before[0].values["style"]  # Dot writes like that, now


def test_the_end_is_measured_where_the_text_is_not_cut(model: Model, tmp_path: Path) -> None:
    run = Evaluation(model, USERS[:1], OPTIONS, tmp_path)
    prompter, query = run.stores["news_headline"].prompters["Ada"], USERS[0].queries[0]
    n = len(prompter.answer(query.output)) + len(prompter.end)
    ends = []
    for n_target in (n, n - 1):
        asked = PromptedQuery(prompter, query, n_target)
        likelihood = Likelihood(model, asked.texts([UNSTEERED], 8), "generated", n_threads=1)
        ends.append(outcomes_of(asked, [UNSTEERED], likelihood, None)[0].values.get("end_nll"))
        likelihood.close()
    prompt = PromptedQuery(prompter, query, n).prompts([])["profile"]
    context = Context(model, 768, n_threads=1)
    logits = context.decode([Run(0, 0, [*prompt, *prompter.answer(query.output)], 1)])[0].astype(np.float64)
    context.close()
    (end,) = model.tokenize("<|im_end|>", special=True)
    assert ends == [pytest.approx(np.log(np.exp(logits).sum()) - logits[end], abs=0.05), None]


@pytest.mark.parametrize("peer", ["style-vector", "cache"])
def test_the_answers_of_a_peer_are_those_that_its_likelihoods_favour(model: Model, tmp_path: Path, peer: Any) -> None:
    """Greedy: each token is the likeliest of all, by the losses of the answer with another one in its place."""
    run = Evaluation(model, USERS, replace(OPTIONS, samples=1), tmp_path)
    store = run.stores["news_headline"]
    treatment = treatment_of(Condition(peer, Gamma(2.0)), "Ada", store, model)
    assert treatment.key != UNSTEERED.key
    asked = PromptedQuery(store.prompters["Ada"], USERS[0].queries[0], 8)
    generator = AnswerGenerator(Session(model, n_ctx=768, n_threads=1), Sampling(temp=0), 4, 1)
    answers = [
        generator.answers(asked.question, asked.request("profile"), t)[0].ids for t in (treatment, UNSTEERED, treatment)
    ]
    generator.chat.close()
    assert answers[0] == answers[2] != answers[1]
    ids = answers[0]
    likelihood = Likelihood(model, asked.texts([treatment], 8), "generated", n_threads=1)
    rng = np.random.default_rng(0)
    prompts = asked.prompts([treatment])
    best = likelihood.losses([treatment], prompts, ids)[0][:, 0]
    for i in range(len(ids)):
        for other in rng.integers(model.n_vocab, size=5).tolist():
            if other != ids[i]:
                assert likelihood.losses([treatment], prompts, [*ids[:i], other])[0][i, 0] > best[i] - 0.02
    likelihood.close()


def test_the_likelihood_under_a_cache_is_that_of_the_sum(model: Model, tmp_path: Path) -> None:
    prompter = Evaluation(model, USERS[:1], OPTIONS, tmp_path).stores["news_headline"].prompters["Ada"]
    asked = PromptedQuery(prompter, USERS[0].queries[0], 8)
    target = asked.targets[0]
    cache = NgramCache(NgramModel([target, target]), NgramModel([target[::-1]]), model.n_vocab, 0.7)
    likelihood = Likelihood(model, asked.texts([UNSTEERED], 8), "generated", n_threads=1)
    prompts = asked.prompts([])
    found, plain = likelihood.losses([Treatment(cache=cache), UNSTEERED], prompts, target)
    likelihood.close()
    context = Context(model, 768, n_outputs=8, n_threads=1)
    prompt = prompts["profile"]
    context.decode([Run(0, 0, prompt[:-1])])
    rows = context.decode([Run(0, len(prompt) - 1, [prompt[-1], *target[:-1]], len(target))]).astype(np.float64)
    context.close()
    rows += [cache.bias(target[:i]) for i in range(len(target))]
    expected = np.log(np.exp(rows).sum(axis=1)) - rows[np.arange(len(target)), target]
    np.testing.assert_allclose(found[:, 0], expected, atol=0.05)
    assert found[:, 0].mean() < plain[:, 0].mean() - 1


def test_a_style_vector_leads_from_the_model_s_answer_to_the_person_s(model: Model, tmp_path: Path) -> None:
    store = Evaluation(model, USERS, OPTIONS, tmp_path).stores["news_headline"]
    vectors, prompter = store.style_vector("Ada"), store.prompters["Ada"]
    assert vectors is not None
    differences = []
    context = Context(model, 768, n_outputs=8, n_threads=1)
    for i in (1, 2):  # as many as heads are scored on, of three
        prompt = prompter.example(i, 6, with_profile=False)[0]
        states = []
        own = model.tokenize(f"Ada item {i}", special=False)[:6]
        session = Session(model, n_ctx=768, n_threads=1)
        neutral = [t.id for t in session.ask(prompter.profile.history[i].input, 6, sampler=Sampler(Sampling(temp=0)))]
        session.close()
        for answer in (own, neutral):
            context.truncate(0, 0)
            with context.keep_layers(range(3)):
                context.decode([Run(0, 0, [*prompt, *answer], len(answer))])
            kept = context.layer_output(1, len(prompt) + len(answer))
            assert kept is not None
            states.append(kept[-len(answer) :].mean(axis=0))
        differences.append(states[0] - states[1])
    context.close()
    np.testing.assert_allclose(vectors[0], np.mean(differences, axis=0), atol=0.02)
    assert np.abs(vectors[0]).max() > 0.2
    nobody = replace(USERS[0], id="Eve", items=())
    store = Evaluation(model, [*USERS, nobody], OPTIONS, tmp_path).stores["news_headline"]
    assert treatment_of(Condition("style-vector", Gamma(1.0)), "Eve", store, model) == UNSTEERED
