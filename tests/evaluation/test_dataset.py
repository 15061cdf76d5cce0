"""What the evaluation reads: tasks as data, files of benchmarks, and LaMP's prompts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opened import shared
from tiny import TinyModel

from dps_local.errors import DpsError
from dps_local.evaluation.benchmarks import TASKS
from dps_local.evaluation.dataset import Dataset, Query, User, load_dataset
from dps_local.evaluation.evaluation_options import ItemSelection
from dps_local.evaluation.task import Task
from dps_local.evaluation.task_prompter import TaskPrompter, task_prompter
from dps_local.prompting.chat_template import ChatTemplate
from dps_local.prompting.prompt import DEFAULT_REQUEST, Request
from dps_local.scoring.clusters import embed
from dps_local.scoring.example import make_example
from dps_local.scoring.options import ScoringOptions

HEADLINE = "Generate a headline for the following article: "
ITEMS = (
    {"id": "a", "title": "Ferry Late Again", "text": "The ferry was late."},
    {"id": "b", "title": "Bread Is Dear", "text": "Bread costs more."},
    {"id": "c", "title": "Ferry Sinks", "text": "The old ferry sank in rain."},
)
WRITER = {
    "user_id": "mara",
    "task": "news_headline",
    "profile": list(ITEMS),
    "queries": [{"id": "q", "input": f"{HEADLINE}A new ferry comes.", "output": "New Ferry, Old Jokes"}],
}


def saved(folder: Path, values: Any, name: str = "users.jsonl") -> Path:
    """Write values as a file: one a line of a .jsonl, one JSON value otherwise."""
    path = folder / name
    lines = [json.dumps(value) for value in values] if name.endswith(".jsonl") else [json.dumps(values, indent=1)]
    path.write_text("\n".join(lines) + "\n")
    return path


def loaded(folder: Path, *values: Any) -> Dataset:
    return load_dataset([saved(folder, values)])


# --- tasks


def test_every_task_says_what_its_items_are_for() -> None:
    assert {f"LaMP-{n}" for n in (1, 2, 3, 4, 5, 6, 7)} < TASKS.keys()
    for name, task in TASKS.items():
        assert task.name == name
        if task.fields:
            assert task.answer_field in task.fields
            assert f"{{{task.answer_field}}}" not in task.request  # the answer is not asked with
        assert (task.scale is not None) == (task.kind == "number")


FIELDS: dict[str, str] = dict.fromkeys(
    ("title", "text", "abstract", "description", "tag", "category", "summary", "content", "overall", "reviewText"), "?"
) | {"title": "T", "text": "X", "abstract": "X", "score": "4", "rating": "0.5"}


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("LaMP-1", "Generate a title for the following abstract of a paper: X"),
        ("LaMP-4", "Generate a headline for the following article: X"),
        ("LaMP-5", "Generate a title for the following abstract of a paper: X"),
        ("LaMP-6", "Generate a subject for the following email: X"),
        ("LaMP-7", ""),
        ("movie_rating", "What is the rating of the following movie review on a scale of 0 to 1? review: X"),
        ("LongLaMP-abstract", 'Generate an abstract for the title "T"'),
        ("LongLaMP-email", 'Generate an email with the title "T"'),
        ("LongLaMP-topic", "Generate the content for a reddit post ?"),
    ],
)
def test_an_item_answers_a_request_of_its_task(task: str, expected: str) -> None:
    assert TASKS[task].request_of(FIELDS) == expected


CITATION = (
    'For an author who has written the paper with the title "On "Bees"", which reference is related? '
    'Just answer with [1] or [2] without explanation. [1]: "Hives" [2]: "Taxes"'
)


@pytest.mark.parametrize(
    ("task", "text", "expected"),
    [
        ("LaMP-1", CITATION, '[1]: "Hives" [2]: "Taxes"'),
        ("LaMP-4", f"{HEADLINE}A ferry: late.", "A ferry: late."),
        ("LaMP-7", "Paraphrase the following tweet without any explanation before or after it: tea?", "tea?"),
        ("LaMP-4", "A ferry", "A ferry"),
        ("LongLaMP-review", "A ferry", "A ferry"),
    ],
)
def test_retrieval_looks_for_what_follows_the_fixed_beginning(task: str, text: str, expected: str) -> None:
    assert TASKS[task].query(text) == expected


def test_options_are_read_from_the_input_or_are_those_of_the_task() -> None:
    listed = "… explanation. tags: [sci-fi, true story, a] description: [x, y]"
    assert TASKS["LaMP-2"].options_of(listed) == ("sci-fi", "true story", "a")
    assert len(TASKS["LaMP-2"].options_of("no list")) == 15
    assert TASKS["LaMP-1"].options_of(CITATION) == ("[1]", "[2]")
    assert TASKS["movie_rating"].options[::9] == ("0.1", "1.0")
    for name in ("LaMP-2", "LaMP-2N"):  # what items are scored with lists the options of the task
        assert TASKS[name].options_of(TASKS[name].request) == TASKS[name].options


# --- files of one user a line


def test_users_are_read_with_their_items_and_queries(tmp_path: Path) -> None:
    query = WRITER["queries"][0] | {"extra_references": ["Ferry Comes"], "date": "2021-10-23"}  # type: ignore[operator]
    assert loaded(tmp_path, WRITER | {"queries": [query], "unknown": 1}) == Dataset(
        (
            User(
                "mara",
                "news_headline",
                tuple({"title": item["title"], "text": item["text"]} for item in ITEMS),
                (),
                (
                    Query(
                        "q",
                        f"{HEADLINE}A new ferry comes.",
                        "New Ferry, Old Jokes",
                        (),
                        ("New Ferry, Old Jokes", "Ferry Comes"),
                    ),
                ),
            ),
        ),
        0,
    )


def test_numbers_become_text_as_they_are_written(tmp_path: Path) -> None:
    line = (
        '{"user_id": 7, "task": "movie_rating", "profile": [{"id": 1, "text": "Fine.", "rating": 0.60, "label": 2}], '
        '"queries": [{"id": 2, "input": "review: Dull.", "output": "0.3"}]}'
    )
    (tmp_path / "users.jsonl").write_text(line)
    user = load_dataset([tmp_path / "users.jsonl"]).users[0]
    assert user.items == ({"text": "Fine.", "rating": "0.60"},)
    assert (user.id, user.queries[0].id) == ("7", "2")
    assert user.queries[0].options == TASKS["movie_rating"].options


def test_items_with_dates_are_put_oldest_first(tmp_path: Path) -> None:
    dated = [item | {"date": date} for item, date in zip(ITEMS, ("2018-10-3", "2018-9-30", "2017-12-31"), strict=True)]
    titles = [item["title"] for item in loaded(tmp_path, WRITER | {"profile": dated}).users[0].items]
    assert titles == ["Ferry Sinks", "Bread Is Dear", "Ferry Late Again"]


def test_preferences_stand_in_place_of_a_profile(tmp_path: Path) -> None:
    query = {"id": "p", "input": "What to eat?", "options": ["Eggs.", "Beans."], "output": "Beans."}
    user = {
        "user_id": "p",
        "task": "preference_following",
        "preferences": ["I eat no eggs."],
        "profile": [],
        "queries": [query],
    }
    found = loaded(tmp_path, user).users[0]
    assert found.preferences == ("I eat no eggs.",)
    assert found.queries[0].options == ("Eggs.", "Beans.")


def test_a_line_may_hold_any_character_of_text(tmp_path: Path) -> None:
    odd = WRITER | {"user_id": "a\u2028b\ud800"}
    path = tmp_path / "users.jsonl"
    path.write_text(json.dumps(odd, ensure_ascii=False).replace("\ud800", "\\ud800") + "\n\n", encoding="utf-8")
    assert load_dataset([path]).users[0].id == "a\u2028b?"


@pytest.mark.parametrize(
    "item",
    [
        {"id": "q"},
        {"title": " new ferry, OLD jokes", "text": "a new ferry comes. "},
        {"title": "New Ferry, Old Jokes", "text": "A new ferry"},  # an input that goes on
    ],
)
def test_what_gives_an_answer_away_is_dropped(item: dict[str, str], tmp_path: Path) -> None:
    leak = ITEMS[1] | item
    found = loaded(tmp_path, WRITER | {"profile": [ITEMS[0], leak, ITEMS[2]]})
    assert found.dropped == 1
    assert [item["title"] for item in found.users[0].items] == ["Ferry Late Again", "Ferry Sinks"]


@pytest.mark.parametrize(
    "item", [{"title": "New Ferry, Old Jokes"}, {"text": "A new ferry comes."}, {"title": "New Ferry"}]
)
def test_what_shares_only_the_answer_or_the_input_is_kept(item: dict[str, str], tmp_path: Path) -> None:
    found = loaded(tmp_path, WRITER | {"profile": [ITEMS[0] | item]})
    assert found.dropped == 0
    assert len(found.users[0].items) == 1


def test_a_tweet_that_is_the_answer_is_dropped(tmp_path: Path) -> None:
    profile = [{"id": "1", "text": "tea at six"}, {"id": "2", "text": "Rain."}]
    tweeter = WRITER | {"task": "LaMP-7", "profile": profile}
    tweeter["queries"] = [{"id": "q", "input": "Paraphrase: it rains", "output": "rain."}]
    assert loaded(tmp_path, tweeter).users[0].items == ({"text": "tea at six"},)


def changed(**changes: Any) -> dict[str, Any]:
    return WRITER | changes


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ({"user_id": "x"}, r"line 2: lacks 'task'"),
        (changed(task="news"), r"line 2: no task 'news': expected one of LaMP-1, "),
        (changed(queries=[]), r"line 2: has no query: 'queries' is empty"),
        (changed(queries=3), r"line 2: 'queries' must be a list"),
        (changed(profile=None), r"line 2: 'profile' must be a list"),
        (changed(profile=["x"]), r"line 2, profile\[0\] must be an object"),
        (changed(profile=[{"id": "1", "title": "T"}]), r"line 2, profile\[0\]: lacks 'text'"),
        (changed(profile=[{"id": "1", "title": "T", "text": None}]), r"'text' must be a string or a number"),
        (changed(queries=[{"id": "1", "input": "x"}]), r"line 2, queries\[0\]: lacks 'output'"),
        (changed(queries=[{"id": "1", "input": "x", "output": " "}]), r"queries\[0\]: 'output' is empty"),
        (changed(preferences="short"), r"line 2: 'preferences' must be a list of strings"),
        (
            changed(task="preference_following", queries=[{"id": "1", "input": "x", "output": "y"}]),
            r"'output' is none of the options \(there are none\)",
        ),
        (
            changed(task="LaMP-3", profile=[], queries=[{"id": "1", "input": "x", "output": "good"}]),
            r"queries\[0\]: 'output' must be a number, not 'good'",
        ),
    ],
)
def test_an_error_names_the_line_and_the_field(user: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DpsError, match=rf"users\.jsonl: .*{message}"):
        loaded(tmp_path, WRITER, user)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b"{}\n{", r"x\.jsonl: line 2: not valid JSON"),
        ("x.json", b"[\n{\n]", r"x\.json: line 3: not valid JSON"),
        ("x.json", b"{}", r"must hold a list of objects; of LaMP's files, give \*_questions\.json"),
        ("x.json", b"[3]", r"x\.json: entry 1 must be an object"),
        ("x.jsonl", b"\n", r"x\.jsonl holds no query"),
        ("x.jsonl", b"\xff", r"is not UTF-8 text \(byte 0\)"),
        ("x.json", b"[" * 100_000, r"line 1: nested too deeply"),
    ],
)
def test_what_is_no_data_is_refused(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DpsError, match=message):
        load_dataset([tmp_path / name])


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DpsError, match=r"cannot read .*none\.jsonl: No such file"):
        load_dataset([tmp_path / "none.jsonl"])


# --- LaMP


def lamp(folder: Path, task: str, questions: list[dict[str, Any]], golds: list[dict[str, Any]]) -> Path:
    saved(folder, {"task": task, "golds": golds}, "dev_outputs.json")
    return saved(folder, questions, "dev_questions.json")


QUESTIONS: list[dict[str, Any]] = [
    {"id": "11", "input": f"{HEADLINE}Rain.", "profile": [ITEMS[0]]},
    {"id": "21", "input": f"{HEADLINE}Sun.", "profile": [ITEMS[1], {"id": "9", "title": "Sunny", "text": "Sun."}]},
]
GOLDS: list[dict[str, Any]] = [{"id": "21", "output": "Sunny"}, {"id": "11", "output": "Wet"}]


def test_each_question_of_lamp_is_a_user_with_its_gold_answer(tmp_path: Path) -> None:
    found = load_dataset([lamp(tmp_path, "LaMP_4", QUESTIONS, GOLDS)])
    assert [(u.id, u.task, u.queries[0].id, u.queries[0].output) for u in found.users] == [
        ("11", "LaMP-4", "11", "Wet"),
        ("21", "LaMP-4", "21", "Sunny"),
    ]
    assert [len(u.items) for u in found.users] == [1, 1]
    assert found.dropped == 1


@pytest.mark.parametrize(
    ("item", "output", "task"),
    [
        ({"tag": "comedy", "description": "Bees sing."}, "classic", "LaMP-2"),
        ({"category": "travel", "title": "Bees", "text": "They fly."}, "sports", "LaMP-2N"),
    ],
)
def test_news_and_movies_are_told_apart(item: dict[str, str], output: str, task: str, tmp_path: Path) -> None:
    questions = [{"id": "1", "input": "Which?", "profile": [{"id": "5", **item}]}]
    found = load_dataset([lamp(tmp_path, "LaMP_2", questions, [{"id": "1", "output": output}])])
    assert found.users[0].task == task
    assert output in found.users[0].queries[0].options


def test_questions_and_outputs_must_go_together(tmp_path: Path) -> None:
    with pytest.raises(DpsError, match=r"entry 1: the question '11' has no output in dev_outputs\.json"):
        load_dataset([lamp(tmp_path, "LaMP_4", QUESTIONS, GOLDS[:1])])
    with pytest.raises(DpsError, match=r"golds\[1\]: the output '11' has no question in dev_questions\.json"):
        load_dataset([lamp(tmp_path, "LaMP_4", QUESTIONS[1:], GOLDS)])
    with pytest.raises(DpsError, match=r"dev_outputs\.json: no task 'LaMP-9'"):
        load_dataset([lamp(tmp_path, "LaMP_9", QUESTIONS, GOLDS)])
    with pytest.raises(DpsError, match=r"give \*_questions\.json"):
        load_dataset([tmp_path / "dev_outputs.json"])
    (tmp_path / "dev_outputs.json").unlink()
    with pytest.raises(DpsError, match=r"cannot read .*dev_outputs\.json"):
        load_dataset([tmp_path / "dev_questions.json"])


# --- LongLaMP

PAPER = {"id": "1", "title": "Wax", "abstract": "We melt wax.", "year": 2001}


@pytest.mark.parametrize("name", ["test.json", "test.jsonl"])
@pytest.mark.parametrize(
    ("user", "item", "task"),
    [
        ("name", PAPER, "LongLaMP-abstract"),
        (
            "reviewerId",
            {"overall": 5.0, "description": "A hive", "summary": "Good", "reviewText": "It hums."},
            "LongLaMP-review",
        ),
        ("author", {"id": "1", "author": "x", "summary": "Bees", "content": "They hum."}, "LongLaMP-topic"),
        ("name", {"id": "1", "title": "Bees", "text": "They hum."}, "LongLaMP-email"),
    ],
)
def test_the_task_of_longlamp_is_told_by_its_items(
    user: str, item: dict[str, Any], task: str, name: str, tmp_path: Path
) -> None:
    rows = [{user: "ada", "input": "Write.", "output": "Humming.", "profile": [item]}]
    found = load_dataset([saved(tmp_path, rows, name)]).users[0]
    assert (found.id, found.task, found.queries[0].output) == ("ada", task, "Humming.")
    if task == "LongLaMP-review":
        assert found.items[0]["overall"] == "5.0"


def test_rows_are_of_one_user_where_the_profiles_are_equal(tmp_path: Path) -> None:
    rows = [
        {"name": "ada", "input": "One.", "output": "1", "profile": [PAPER]},
        {"name": "ada", "input": "Two.", "output": "2", "profile": [PAPER | {"title": "Smoke"}]},
        {"name": "bo", "input": "Three.", "output": "3", "profile": [PAPER]},
        {"name": "ada", "input": "Four.", "output": "4", "profile": [PAPER]},
    ]
    users = load_dataset([saved(tmp_path, rows)]).users
    assert [(user.id, [q.input for q in user.queries]) for user in users] == [
        ("ada", ["One.", "Four."]),
        ("ada (2)", ["Two."]),
        ("bo", ["Three."]),
    ]
    assert len({query.id for user in users for query in user.queries}) == 4


def test_a_paper_that_is_asked_for_is_dropped(tmp_path: Path) -> None:
    asked = {"name": "ada", "output": "We melt wax.", "profile": [PAPER]}
    asked["input"] = 'Generate an abstract for the title "Wax" using the following items: 1. heat'
    assert load_dataset([saved(tmp_path, [asked])]).dropped == 1


def test_rows_of_no_known_form_are_refused(tmp_path: Path) -> None:
    row = {"name": "ada", "input": "x", "output": "y", "profile": [{"words": "z"}]}
    with pytest.raises(DpsError, match=r"no profile item has one of abstract, reviewText, content, text"):
        loaded(tmp_path, row)
    del row["name"]
    with pytest.raises(DpsError, match=r"line 1: lacks one of name, reviewerId, author"):
        loaded(tmp_path, row | {"profile": [PAPER]})


# --- prompts

Make = Callable[..., TaskPrompter]
ARTICLES = tuple(
    {"title": f"Note {i}", "text": f"All about {'boats' if i % 3 == 0 else 'bread'}, {'more ' * (i % 4)}."}
    for i in range(9)
)


@pytest.fixture(scope="module")
def make(tiny_model: TinyModel) -> Make:
    def prompter(
        items: tuple[dict[str, str], ...] = ARTICLES,
        task: Task = TASKS["LaMP-4"],
        budget: int = 700,
        most: int = 3,
        chosen_by: ItemSelection = "bm25",
        preferences: tuple[str, ...] = (),
    ) -> TaskPrompter:
        model = shared(tiny_model())
        user = User("mara", task.name, items, preferences, ())
        return task_prompter(model, ChatTemplate(model), user, task, budget, 1024, most, chosen_by)

    return prompter


def added(p: TaskPrompter, request: Request) -> int:
    """Tokens that exchanges add to a prompt."""
    return len(p.prompt("", request)) - len(p.prompt("", Request(request.text)))


def test_the_most_relevant_items_stand_before_the_input(make: Make) -> None:
    request = make(most=2).request(f"{HEADLINE}Some boats")
    assert request.items == [6, 0]  # the shortest of the three that are about boats next to the input
    assert request.exchanges == [
        (f"{HEADLINE}All about boats, more more .", "Note 6"),
        (f"{HEADLINE}All about boats, .", "Note 0"),
    ]
    assert request.text == f"{HEADLINE}Some boats"


def test_the_newest_make_up_for_too_few_that_are_relevant(make: Make) -> None:
    assert make(most=5).request(f"{HEADLINE}boats").items[:2] == [7, 8]
    assert make().request("Zzz?").items == [6, 7, 8]


def test_the_newest_items_come_last_where_they_are_asked_for(make: Make) -> None:
    p = make(chosen_by="recent")
    assert p.request("boats").items == [6, 7, 8]
    assert p.request("boats", before=4).items == [1, 2, 3]
    assert p.request("boats", exclude={8, 6}).items == [4, 5, 7]


def test_without_items_and_preferences_the_input_stands_alone(make: Make) -> None:
    alone = Request("boats", [], [])
    assert make(items=()).request("boats") == alone
    assert make(most=0).request("boats") == alone
    assert make().request("boats", before=0) == alone
    assert make().system == ""
    assert make().earlier() == []


def test_preferences_stand_before_the_input(make: Make) -> None:
    p = make(items=(), task=TASKS["preference_following"], preferences=("I eat no eggs. ", "Be brief"), most=0)
    assert p.request("What to eat?").text == "My preferences: I eat no eggs; Be brief.\n\nWhat to eat?"
    request = make(most=1, preferences=("Be brief",)).request("boats")
    assert request.text == "My preferences: Be brief.\n\nboats"
    assert request.items == [0]


def test_what_does_not_fit_loses_the_end_of_its_long_text(make: Make) -> None:
    items = tuple({"title": f"Note {i}", "text": "boats and " * 60} for i in range(2))
    p = make(items, budget=400, most=2)
    request = p.request("boats")
    assert request.items == [0, 1]
    assert 320 <= added(p, request) <= 400
    for i, exchange in enumerate(request.exchanges):
        assert exchange.request.startswith(f"{HEADLINE}boats and ")
        assert exchange.request.endswith(" …")
        assert exchange.answer == f"Note {i}"


def test_what_one_item_leaves_goes_to_the_next(make: Make) -> None:
    items = ({"title": "Long", "text": "bread " * 100}, {"title": "Short", "text": "boats"})
    alone = make(items[:1], budget=250, most=2, chosen_by="recent").request("Say.")
    both = make(items, budget=500, most=2, chosen_by="recent").request("Say.")
    assert both.items == [0, 1]
    assert len(both.exchanges[0].request) > len(alone.exchanges[0].request) + 100


def test_an_item_that_has_no_room_is_left_out(make: Make) -> None:
    assert make(budget=16, most=2).request("Say.") == Request("Say.", [], [])
    assert make(budget=0, most=2).request("Say.") == Request("Say.", [], [])


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.text(max_size=30), st.text(max_size=120)), max_size=6),
    st.text(max_size=40),
    st.integers(0, 300),
    st.integers(0, 6),
    st.sampled_from(["LaMP-4", "LaMP-5", "LaMP-6", "LongLaMP-email"]),
    st.sampled_from(["bm25", "recent"]),
)
def test_any_items_stay_within_the_budget(
    make: Make,
    texts: list[tuple[str, str]],
    request: str,
    budget: int,
    most: int,
    name: str,
    chosen_by: ItemSelection,
) -> None:
    items = tuple({"title": title, "text": text, "abstract": text} for title, text in texts)
    p = make(items, TASKS[name], budget, most, chosen_by)
    asked = p.request(request)
    assert len(set(asked.items)) == len(asked.items) == len(asked.exchanges) <= most
    assert added(p, asked) <= budget
    assert asked.text == request


# --- scoring examples


@pytest.mark.parametrize("chosen_by", ["bm25", "recent"])
def test_an_example_shows_nothing_of_itself_and_what_came_after(chosen_by: ItemSelection, make: Make) -> None:
    p = make(chosen_by=chosen_by)
    for i in range(9):
        prompt, target, _ = p.example(i, 32)
        text = p.model.detokenize(prompt)
        shown = [int(n[0]) for n in text.split("Note ")[1:]]
        assert len(shown) == min(3, i)
        assert all(n < i for n in shown)
        assert f"{HEADLINE}{ARTICLES[i]['text']}" in text
        assert p.model.detokenize(target) == f"Note {i}"


def test_a_bare_example_shows_nothing_of_the_user(make: Make) -> None:
    p = make(preferences=("Be brief",))
    text = p.model.detokenize(p.example(8, 32, with_profile=False)[0])
    assert f"{HEADLINE}All about bread" in text
    assert "Note" not in text
    assert "brief" not in text
    assert "brief" in p.model.detokenize(p.example(8, 32)[0])


def test_what_nobody_asked_for_is_scored_with_the_default_request(make: Make) -> None:
    p = make(({"text": "Rain."}, {"text": "Tea at six."}), TASKS["LaMP-7"])
    text = p.model.detokenize(p.example(1, 32)[0])
    assert text.count(DEFAULT_REQUEST) == 2
    assert text.index(DEFAULT_REQUEST) < text.index("Rain.") < text.rindex(DEFAULT_REQUEST)
    assert p.model.detokenize(p.example(1, 32)[1]) == "Tea at six."


def test_examples_are_made_as_of_any_profile(make: Make) -> None:
    example = make_example(make(), 4, ScoringOptions(contrast=True))
    assert example
    assert example.without_profile
    assert len(example.without_profile.prompt) < len(example.text.prompt)
    assert example.without_profile.target == example.text.target


def test_a_user_is_embedded_by_the_newest_of_the_items(make: Make) -> None:
    p = make(budget=100, preferences=("Be brief",))

    class Texts:  # in place of an embedder: returns what it is given
        n_ctx = 2000

        def __call__(self, text: str) -> str:
            return text

    text: Any = embed(Texts(), p, before=8)  # type: ignore[arg-type]
    assert text.startswith("My preferences: Be brief.\n\n")
    assert [f"Note {i}" in text for i in range(9)] == [True] * 8 + [False]
    assert text.index("Note 0") < text.index("Note 7")
    few = replace(p, budget=500).describe()
    assert "Note 8" in few
    assert "Note 0" not in few


def test_a_user_or_a_query_that_is_there_twice_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DpsError, match="the user 'mara' of news_headline is there 2 times: give each once"):
        loaded(tmp_path, WRITER, WRITER)
    with pytest.raises(DpsError, match="line 1: 'queries' has an 'id' twice"):
        loaded(tmp_path, WRITER | {"queries": [*WRITER["queries"], *WRITER["queries"]]})
