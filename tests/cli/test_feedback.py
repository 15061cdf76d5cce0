"""`dps-local feedback`: what a profile has of its chats."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from program import PROFILE, Inside, Program
from screen import ENTER, Screen

from dps_local.prompting.profile import Profile

KEPT = {"input": "Where?", "output": "At sea, by gum.", "source": "chat", "date": "2026-01-01", "kind": "kept"}
EDITED = {
    "input": "When?",
    "output": "Ten ✓",
    "rejected": "It is\nten.",
    "source": "chat",
    "date": "2026-01-02",
    "kind": "edited",
}
PAIR = KEPT | {"rejected": "On land.", "date": "2026-01-03"}


@pytest.fixture
def program(inside: Inside) -> Program:
    return inside


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """With other people's formats in between."""
    path = tmp_path / "me.json"
    own, *rest = PROFILE["history"]
    history = [own, KEPT, *rest, EDITED, {"output": "mine", "source": "mail", "kind": "edited"}, PAIR]
    path.write_text(json.dumps(PROFILE | {"history": history}))
    return path


def test_what_came_of_chats_is_listed_with_numbers(program: Program, profile: Path) -> None:
    shown = program("feedback", "list", "-p", profile).stdout.splitlines()
    assert shown[0].split() == ["date", "kind", "question", "answer", "rejected"]
    assert [line.split()[:3] for line in shown if line[:1].isdigit()] == [
        ["1", "2026-01-01", "kept"],
        ["2", "2026-01-02", "edited"],
        ["3", "2026-01-03", "kept"],
    ]
    assert json.loads(program("feedback", "list", "-p", profile, "--json").stdout) == [
        {"number": 1, **KEPT},
        {"number": 2, **EDITED},
        {"number": 3, **PAIR},
    ]


def test_a_profile_without_any_has_an_empty_list(program: Program) -> None:
    assert json.loads(program("feedback", "list", "-p", "mara", "--json").stdout) == []
    assert program("feedback", "export", "-p", "mara").stdout == ""


def test_numbers_are_removed_and_all_else_stays(program: Program, profile: Path) -> None:
    before = Profile.load(profile).history
    result = program("feedback", "rm", "3", "1", "3", "-p", profile, "--yes")
    assert result.stderr == f"removed 2 answers from {profile}\n"
    assert Profile.load(profile).history == tuple(item for i, item in enumerate(before) if i not in (1, 6))


def test_it_asks_before_it_removes(screen: Callable[..., Screen], profile: Path) -> None:
    before = profile.read_bytes()
    for answer, code in (("n", 1), ("y", 0)):
        one = screen("feedback", "rm", "2", "-p", profile)
        one.until_shown("Remove them for good? [y/N]:")
        assert "Ten ✓" in one.text
        assert "At sea" not in one.text
        assert profile.read_bytes() == before
        one.send(answer + ENTER)
        assert one.end() == code
    assert [item.kind for item in Profile.load(profile).history] == [
        "wrote",
        "kept",
        "wrote",
        "wrote",
        "edited",
        "kept",
    ]


def test_an_unknown_number_removes_nothing(program: Program, profile: Path) -> None:
    before = profile.read_bytes()
    for number in ("0", "4"):
        assert program.fails("feedback", "rm", "1", number, "-p", profile, "--yes") == (
            f"error: there is no number {number}: `dps-local feedback list -p {profile}` has the numbers"
        )
    assert profile.read_bytes() == before


def test_nothing_of_a_shipped_example_is_removed(program: Program) -> None:
    assert "is an example that ships" in program.fails("feedback", "rm", "1", "-p", "mara", "--yes")


PAIRS = """\
{"prompt": [{"role": "user", "content": "When?"}], "chosen": [{"role": "assistant", "content": "Ten ✓"}], \
"rejected": [{"role": "assistant", "content": "It is\\nten."}]}
{"prompt": [{"role": "user", "content": "Where?"}], "chosen": [{"role": "assistant", "content": "At sea, by gum."}], \
"rejected": [{"role": "assistant", "content": "On land."}]}
"""
LABELLED = """\
{"prompt": [{"role": "user", "content": "Where?"}], "completion": [{"role": "assistant", "content": "At sea, by gum."}]\
, "label": true}
{"prompt": [{"role": "user", "content": "When?"}], "completion": [{"role": "assistant", "content": "Ten ✓"}], \
"label": true}
{"prompt": [{"role": "user", "content": "When?"}], "completion": [{"role": "assistant", "content": "It is\\nten."}], \
"label": false}
{"prompt": [{"role": "user", "content": "Where?"}], "completion": [{"role": "assistant", "content": "At sea, by gum."}]\
, "label": true}
{"prompt": [{"role": "user", "content": "Where?"}], "completion": [{"role": "assistant", "content": "On land."}], \
"label": false}
"""


@pytest.mark.parametrize(("form", "lines"), [("trl", PAIRS), ("kto", LABELLED)])
def test_answers_are_exported_as_json_lines(
    program: Program, profile: Path, tmp_path: Path, form: str, lines: str
) -> None:
    assert program("feedback", "export", "-p", profile, "--format", form).stdout == lines
    file = tmp_path / "out.jsonl"
    result = program("feedback", "export", "-p", profile, "--format", form, "-o", file)
    assert file.read_text("utf-8") == lines
    assert result.stdout == ""
    assert result.stderr == f"{len(lines.splitlines())} lines in {file}\n"
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_file_is_written_over_when_that_is_said(program: Program, profile: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    file.write_text("mine")
    assert program("feedback", "export", "-p", profile, "-o", file).returncode == 1  # nobody answers
    assert file.read_text() == "mine"
    assert program("feedback", "export", "-p", profile, "-o", file, "--yes").returncode == 0
    assert file.read_text("utf-8") == PAIRS
