"""`Dataset`: users with what they wrote before and what they are asked now, read from the files of benchmarks."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dps_local.errors import DataError
from dps_local.evaluation.answer_metrics import number_of
from dps_local.evaluation.benchmarks import TASKS
from dps_local.evaluation.task import Task

USER_FIELDS = ("name", "reviewerId", "author")  # of LongLaMP's rows
LONG_TASKS = {  # LongLaMP's, by a field of a profile item that the others lack
    "abstract": "LongLaMP-abstract",
    "reviewText": "LongLaMP-review",
    "content": "LongLaMP-topic",
    "text": "LongLaMP-email",
}


@dataclass(frozen=True)
class Query:
    """A request whose gold answer is `output`; references: that, and others that are as good."""

    id: str
    input: str
    output: str
    options: tuple[str, ...]
    references: tuple[str, ...]


@dataclass(frozen=True)
class User:
    """Items are what the user wrote before, oldest first: the fields that the task needs."""

    id: str
    task: str
    items: tuple[dict[str, str], ...]
    preferences: tuple[str, ...]
    queries: tuple[Query, ...]


@dataclass(frozen=True)
class Dataset:
    """dropped: how many profile items were left out because they hold the answer to a query of their user."""

    users: tuple[User, ...]
    dropped: int


def load_dataset(paths: Sequence[Path]) -> Dataset:
    """Read users from files; raises DataError that names the file, the line and the field.

    A file holds one user a line, or one query with its profile in each row (LongLaMP), or is LaMP's *_questions.json,
    which has *_outputs.json beside it.
    """
    users = [user for path in paths for user in _read(path)]
    for (task, id_), times in Counter((user.task, user.id) for user, _ in users).items():
        if times > 1:
            raise DataError(f"the user {id_!r} of {task} is there {times} times: give each once")
    return Dataset(tuple(user for user, _ in users), sum(dropped for _, dropped in users))


@dataclass(frozen=True)
class _JsonObject:
    """An object of a file, and where it stands."""

    where: str
    data: dict[str, Any]

    def fail(self, problem: str) -> DataError:
        return DataError(f"{self.where}: {problem}")

    def text(self, field: str) -> str:
        if field not in self.data:
            raise self.fail(f"lacks {field!r}")
        if not isinstance(self.data[field], str):
            raise self.fail(f"{field!r} must be a string or a number")
        return _tokenizable(self.data[field])

    def texts(self, field: str) -> tuple[str, ...]:
        """Return a list of strings; none where the field is missing."""
        values = self.data.get(field) or []
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise self.fail(f"{field!r} must be a list of strings")
        return tuple(map(_tokenizable, values))

    def rows(self, field: str) -> list[_JsonObject]:
        if not isinstance(self.data.get(field), list):
            raise self.fail(f"{field!r} must be a list")
        return [_row(f"{self.where}, {field}[{i}]", value) for i, value in enumerate(self.data[field])]


def _read(path: Path) -> list[tuple[User, int]]:
    """Return the users of a file, each with how many of their profile items were dropped."""
    rows = _rows(path)
    if not rows:
        raise DataError(f"{path} holds no query: give a file with users")
    if path.name.endswith("_questions.json"):
        return _lamp(path, rows)
    if any("input" in row.data and "queries" not in row.data for row in rows):
        return _longlamp(path, rows)
    return [_user_of(row) for row in rows]


def _user_of(row: _JsonObject) -> tuple[User, int]:
    """Return the user of a row that holds one."""
    task = _task(row, row.text("task"))
    queries = [_query(q, task, q.text("id"), q.text("output")) for q in row.rows("queries")]
    if not queries:
        raise row.fail("has no query: 'queries' is empty")
    if len({query.id for query in queries}) < len(queries):
        raise row.fail("'queries' has an 'id' twice")
    return _user(row.text("user_id"), task, row.rows("profile"), queries, row.texts("preferences"))


def _lamp(path: Path, questions: Sequence[_JsonObject]) -> list[tuple[User, int]]:
    """Return a user for each question of LaMP, which has a profile of its own."""
    beside = path.with_name(path.name.replace("_questions.json", "_outputs.json"))
    outputs = _row(str(beside), _parsed(beside, _text(beside)))
    golds = {gold.text("id"): gold for gold in outputs.rows("golds")}
    task = _lamp_task(outputs, questions)
    users = []
    for row in questions:
        gold = golds.pop(id_ := row.text("id"), None)
        if gold is None:
            raise row.fail(f"the question {id_!r} has no output in {beside.name}")
        users.append(_user(id_, task, row.rows("profile"), [_query(row, task, id_, gold.text("output"))]))
    for id_, gold in golds.items():
        raise gold.fail(f"the output {id_!r} has no question in {path.name}")
    return users


def _lamp_task(outputs: _JsonObject, questions: Sequence[_JsonObject]) -> Task:
    """Return the task of LaMP's outputs; LaMP-2 was of news (now LaMP-2N) before it was of movies."""
    name = outputs.text("task").replace("_", "-")
    if name.startswith("LaMP-2"):
        item = next((item for row in questions for item in row.rows("profile")), None)
        name = "LaMP-2N" if item and "category" in item.data else "LaMP-2"
    return _task(outputs, name)


def _longlamp(path: Path, rows: Sequence[_JsonObject]) -> list[tuple[User, int]]:
    """Return the users of LongLaMP's rows; rows are of one user where they have the same user and profile."""
    fields = {field for row in rows for item in row.rows("profile")[:1] for field in item.data}
    name = next((task for field, task in LONG_TASKS.items() if field in fields), None)
    if name is None:
        raise DataError(f"{path}: no profile item has one of {', '.join(LONG_TASKS)}: is this LongLaMP's?")
    task = TASKS[name]
    together: dict[tuple[str, str], list[_JsonObject]] = {}
    for row in rows:
        key = _long_user(row), json.dumps(row.data.get("profile"), sort_keys=True)
        together.setdefault(key, []).append(row)
    users, times = [], dict.fromkeys((user for user, _ in together), 0)
    for (user, _), same in together.items():
        times[user] += 1
        id_ = user if times[user] == 1 else f"{user} ({times[user]})"
        queries = [_query(row, task, f"{id_}:{n}", row.text("output")) for n, row in enumerate(same)]
        users.append(_user(id_, task, same[0].rows("profile"), queries))
    return users


def _long_user(row: _JsonObject) -> str:
    for field in USER_FIELDS:
        if field in row.data:
            return row.text(field)
    raise row.fail(f"lacks one of {', '.join(USER_FIELDS)}")


def _task(row: _JsonObject, name: str) -> Task:
    if name not in TASKS:
        raise row.fail(f"no task {name!r}: expected one of {', '.join(TASKS)}")
    return TASKS[name]


def _query(row: _JsonObject, task: Task, id_: str, output: str) -> Query:
    text = row.text("input")
    options = row.texts("options") or task.options_of(text)
    if not output.strip():
        raise row.fail("'output' is empty")
    if task.kind == "choice" and output not in options:
        raise row.fail(f"'output' is none of the options {', '.join(options) or '(there are none)'}")
    if task.kind == "number" and number_of(output) is None:
        raise row.fail(f"'output' must be a number, not {output[:40]!r}")
    return Query(id_, text, output, options, (output, *row.texts("extra_references")))


def _user(
    id_: str, task: Task, profile: Sequence[_JsonObject], queries: Sequence[Query], preferences: tuple[str, ...] = ()
) -> tuple[User, int]:
    """Return a user without the profile items that hold an answer, and how many these were."""
    fields = task.fields
    rows = sorted(profile, key=_date) if all("date" in row.data for row in profile) else profile
    items = [({field: row.text(field) for field in fields}, row.data.get("id")) for row in rows if fields]
    kept = tuple(item for item, number in items if not _holds_answer(task, item, number, queries))
    return User(id_, task.name, kept, preferences, tuple(queries)), len(items) - len(kept)


def _date(row: _JsonObject) -> list[int]:
    """Return a date (2018-05-03) to sort by."""
    return [int(number) for number in re.findall(r"\d+", row.text("date"))]


def _holds_answer(task: Task, item: Mapping[str, str], id_: str | None, queries: Iterable[Query]) -> bool:
    """Whether an item is a query's: the same id, or the same answer to an input that begins in the same way."""
    request, answer = task.request_of(item), item.get(task.answer_field, "")
    return any(
        query.id == id_
        or (
            _normalized(answer) == _normalized(query.output)
            and _normalized(query.input).startswith(_normalized(request))
        )
        for query in queries
    )


def _normalized(text: str) -> str:
    return text.strip().casefold()


def _rows(path: Path) -> list[_JsonObject]:
    """Return the objects of a .jsonl file, or of a list in a .json file."""
    text = _text(path)
    if path.suffix == ".jsonl":
        lines = [(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
        return [_row(f"{path}: line {n}", _parsed(path, line, n)) for n, line in lines]
    values = _parsed(path, text)
    if not isinstance(values, list):
        raise DataError(f"{path} must hold a list of objects; of LaMP's files, give *_questions.json")
    return [_row(f"{path}: entry {n}", value) for n, value in enumerate(values, 1)]


def _row(where: str, value: Any) -> _JsonObject:
    if not isinstance(value, dict):
        raise DataError(f"{where} must be an object")
    return _JsonObject(where, value)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as exc:
        raise DataError(f"{path} is not UTF-8 text (byte {exc.start}): save it as UTF-8") from exc
    except (OSError, ValueError) as exc:  # a NUL byte in the name
        raise DataError(f"cannot read {path}: {getattr(exc, 'strerror', exc)}") from exc


def _parsed(path: Path, text: str, line: int = 1) -> Any:
    """Return the value of a JSON text, numbers as they are written there."""
    try:
        return json.loads(text, parse_float=str, parse_int=str)
    except json.JSONDecodeError as exc:
        raise DataError(f"{path}: line {line + exc.lineno - 1}: not valid JSON: {exc.msg}") from exc
    except RecursionError as exc:
        raise DataError(f"{path}: line {line}: nested too deeply") from exc


def _tokenizable(text: str) -> str:
    return text.encode(errors="replace").decode()  # lone surrogates cannot be
