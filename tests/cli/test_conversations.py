"""`dps-local conversations`, and chats that go on with one, on pipes and on a pseudo-terminal."""

from __future__ import annotations

import json
import shlex
import sqlite3
import stat
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import psutil
import pytest
from program import QUICK, Inside, Program, Terminal
from tiny import TinyModel

from dps_local.maps.head_map import HeadMap
from dps_local.prompting.profile import Profile

GREEDY = ["--threads", "1", "-c", "512", "-n", "6", "--temp", "0"]
WORDS = "xylophone-harbour"  # of a question, and of nothing else on this disk


@pytest.fixture
def program(inside: Inside) -> Program:
    return inside


def all_bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def listed(program: Program) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(program("conversations", "list", "--json").stdout)
    return found


def answers(program: Program, number: int) -> list[str]:
    shown = json.loads(program("conversations", "show", number, "--json").stdout)
    return [message["content"] for message in shown["messages"] if message["role"] == "assistant"]


@pytest.mark.parametrize("gone_on", [["--continue"], ["-C"], ["--resume", "1"], ["--resume", "where is THE"]])
def test_a_resumed_chat_answers_as_the_uninterrupted_one(program: Program, model: Path, gone_on: list[str]) -> None:
    questions = ["Where is the harbour?", "And the tide?", "Who said so?"]
    assert program("chat", "-m", model, *GREEDY, stdin="\n".join(questions[:2])).returncode == 0
    result = program("chat", *gone_on, stdin=questions[2])  # as it was set up: the model, the context, -n and --temp
    assert result.returncode == 0, result.stderr
    assert "going on with 1: Where is the harbour?" in result.stderr
    whole = program("chat", "-m", model, *GREEDY, stdin="\n".join(questions))
    assert answers(program, 1) == answers(program, 2)
    assert whole.stdout.endswith(result.stdout)
    assert [(c["id"], c["turns"]) for c in listed(program)] == [(2, 3), (1, 3)]


def test_with_a_profile_a_map_and_a_contrast_too_and_from_another_folder(
    program: Program, model: Path, profile: Path, steering_map: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    long = [f"Where is it {i}? {'la ' * 12}" for i in range(8)]
    options = ["--map", steering_map.name, *QUICK[:-2], "-c", "256", "-n", "12", "--temp", "0", "--gamma", "0.7"]
    command = ["chat", "-m", model, "-p", profile.name, *options]
    assert "forgotten]" in program(*command, stdin="\n".join([*long, "/gamma 0.3", "Last?"])).stderr
    monkeypatch.chdir("/")
    result = program("chat", "-C", stdin="/gamma\nAnd so?\n")
    assert result.returncode == 0, result.stderr
    assert "γ = 0.3" in result.stderr
    assert "read again" not in result.stderr
    monkeypatch.chdir(tmp_path)
    whole = program(*command, stdin="\n".join([*long, "/gamma 0.3", "Last?", "And so?"]))
    assert answers(program, 1) == answers(program, 2)
    assert whole.stdout.endswith(result.stdout)


def test_with_another_model_or_map_it_says_so_and_reads_the_text_again(
    program: Program, model: Path, steering_map: Path, tiny_model: TinyModel, tmp_path: Path
) -> None:
    assert program("chat", "-m", model, "--map", steering_map, *GREEDY, stdin="Where?\nWhen?\n").returncode == 0
    other = tmp_path / "other.dps.gguf"
    replace(HeadMap.load(steering_map), selected=((2, 1),)).save(other)
    result = program("chat", "-C", "--map", other, stdin="Who?\n")
    assert "another head map than then: the text of the conversation is read again" in result.stderr
    steering_map.unlink()
    assert "read again" not in program("chat", "-C", stdin="So?\n").stderr  # with the other one, from now on
    other.unlink()
    assert "other.dps.gguf" in program.fails("chat", "-C", stdin="Who?\n")
    assert program("chat", "-m", model, *GREEDY, stdin="Where?\n").returncode == 0
    result = program("chat", "-C", "-m", tiny_model("qwen2"), stdin="Who?\n")
    assert "another model than then: the text of the conversation is read again" in result.stderr
    assert [(c["id"], c["turns"]) for c in listed(program)] == [(2, 2), (1, 4)]
    again = program("chat", "-C", stdin="So?\n")
    assert "read again" not in again.stderr, again.stderr


def test_it_says_once_that_conversations_are_kept(program: Program, model: Path, tmp_path: Path) -> None:
    assert listed(program) == []
    first = program("chat", "-m", model, *GREEDY, stdin="Hello\n")
    second = program("chat", "-m", model, *GREEDY, stdin="Hello\n")
    where = f"conversations are kept in {tmp_path / 'data' / 'conversations.db'}"
    assert where in first.stderr
    assert "--no-save" in first.stderr
    assert where not in second.stderr
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "data" / "conversations.db").stat().st_mode) == 0o600


def test_what_shall_not_be_kept_is_not(program: Program, model: Path, steering_map: Path, tmp_path: Path) -> None:
    said = f"{WORDS}\n"
    program("chat", "-m", model, *GREEDY, "--no-save", stdin=said)
    program("chat", "-m", model, "--map", steering_map, *GREEDY, "--compare", stdin=said)
    program("generate", "-m", model, *GREEDY, WORDS)
    assert not (tmp_path / "data").exists()
    program("chat", "-m", model, *GREEDY, stdin=f"{said}/forget\n{said}/clear\n{said}")
    assert listed(program) == []
    assert WORDS.encode() not in all_bytes(tmp_path / "data") + all_bytes(tmp_path / "cache")
    program("chat", "-m", model, *GREEDY, stdin="Hello\n")
    program("chat", "-C", "--no-save", stdin=said)
    assert [c["turns"] for c in listed(program)] == [1]


def test_a_folder_that_cannot_be_written_to_keeps_nothing_and_stops_nothing(
    program: Program, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").write_text("no folder")
    result = program("chat", "-m", model, *GREEDY, stdin="Hello\n")
    assert result.returncode == 0
    assert result.stdout.strip()
    assert "this conversation is not kept" in result.stderr
    assert "cannot make the folder" in program.fails("chat", "-m", model, "--continue")
    assert "cannot make the folder" in program.fails("conversations", "list")


def test_removed_conversations_leave_no_word(program: Program, model: Path, profile: Path, tmp_path: Path) -> None:
    """In the database, its log, the prefix cache, or anything else."""
    chat = ["chat", "-m", model, "-p", profile, *QUICK, "-n", "5", "--temp", "0"]
    program(*chat, stdin=f"Tell of the {WORDS}.\nAnd another {WORDS}?\n")
    program(*chat, stdin="Plain.\n")
    assert list((tmp_path / "cache" / "prefixes").iterdir())
    assert WORDS.encode() in all_bytes(tmp_path)
    assert program("conversations", "rm", WORDS, "--yes").stderr == "removed 1 conversation\n"
    assert WORDS.encode() not in all_bytes(tmp_path)
    assert [c["title"] for c in listed(program)] == ["Plain."]


def test_conversations_are_listed_searched_shown_and_exported(program: Program, model: Path, tmp_path: Path) -> None:
    program("chat", "-m", model, *GREEDY, stdin="Where is the Hafen?\nAnd 50 % of it?\n")
    program("chat", "-m", model, *GREEDY, stdin="Nothing\n")
    first = listed(program)[-1]
    assert {"id": 1, "title": "Where is the Hafen?", "model": "Tiny", "turns": 2}.items() <= first.items()
    assert "updated" in first
    table = program("conversations", "list").stdout
    assert "Where is the Hafen?" in table
    found = json.loads(program("conversations", "search", "hafen", "WHERE", "--json").stdout)
    assert [(hit["id"], hit["turn"]) for hit in found] == [(1, 0)]
    assert "50 %" in program("conversations", "search", "%").stdout
    assert program("conversations", "search", "nowhere").stdout.count("\n") == 1
    exported = json.loads(program("conversations", "export", 1).stdout)
    assert [m["role"] for m in exported["messages"]] == ["user", "assistant"] * 2
    assert {frozenset(message) for message in exported["messages"]} == {frozenset({"role", "content"})}
    page = tmp_path / "talk.md"
    program("conversations", "export", "hafen", "--format", "md", "-o", page)
    text = page.read_text()
    assert text.startswith("# Where is the Hafen?\n\n## You\n\nWhere is the Hafen?\n\n## Tiny\n\n")
    assert page.stat().st_mode & 0o777 == 0o600
    assert program("conversations", "show", "hafen").stdout[:60] == text[:60]  # then may come what no terminal gets
    assert program("conversations", "export", 1, "-o", page, stdin="n\n").returncode == 1
    assert page.read_text() == text
    assert program.fails("conversations", "show", 7) == (
        "error: there is no conversation '7': `dps-local conversations list` shows them"
    )


def test_rm_asks_first_and_takes_numbers_ages_and_all(program: Program, model: Path, tmp_path: Path) -> None:
    for question in ("one", "two", "three"):
        program("chat", "-m", model, *GREEDY, stdin=f"{question}\n")
    database = sqlite3.connect(tmp_path / "data" / "conversations.db", isolation_level=None)
    database.execute("UPDATE conversation SET updated = '2020-01-01T00:00:00+00:00' WHERE id = 1")
    database.close()
    asked = program("conversations", "rm", "--older-than", "30d", stdin="n\n")
    assert asked.returncode == 1
    assert "one" in asked.stdout
    assert "two" not in asked.stdout
    assert len(listed(program)) == 3
    assert program("conversations", "rm", "--older-than", "30d", stdin="y\n").returncode == 0
    assert [c["title"] for c in listed(program)] == ["three", "two"]
    program("conversations", "rm", "3", "three", "--yes")
    assert [c["title"] for c in listed(program)] == ["two"]
    for wrong in (["rm"], ["rm", "2", "--all"], ["rm", "--older-than", "month"]):
        assert program("conversations", *wrong, "--yes").returncode == 2
    program("conversations", "rm", "--all", "--yes")
    assert listed(program) == []
    assert "there is no conversation yet" in program.fails("chat", "--continue")


def test_leaving_says_how_to_come_back_and_coming_back_shows_where_it_was(
    terminal: Callable[..., Terminal], program: Program, model: Path
) -> None:
    chat = terminal("chat", "-m", model, *GREEDY)
    chat.wait_for(">>> ")
    chat.type("hello there")
    chat.wait_for("hello there\n")
    chat.wait_for(">>> ")
    chat.type("/exit")
    chat.wait_for("dps-local chat --resume 1` goes on with this conversation")
    assert chat.exit_code() == 0
    (answer,) = answers(program, 1)
    chat = terminal("chat", "--resume", "1")
    chat.wait_for(">>> hello there\n")
    chat.wait_for("/help lists")
    chat.wait_for(">>> ")
    chat.type("/forget")
    chat.wait_for("nothing of this conversation is kept")
    chat.wait_for(">>> ")
    chat.type("/exit")
    assert chat.exit_code() == 0
    assert listed(program) == []
    assert answer


def test_a_question_whose_answer_was_lost_is_shown(
    terminal: Callable[..., Terminal], program: Program, model: Path, tmp_path: Path
) -> None:
    """As `tests/killed.py` leaves it."""
    assert program("chat", "-m", model, *GREEDY, stdin="never stop\n").returncode == 0
    database = sqlite3.connect(tmp_path / "data" / "conversations.db", isolation_level=None)
    database.execute("UPDATE turn SET answer = NULL")
    database.close()
    assert [(c["title"], c["turns"]) for c in listed(program)] == [("never stop", 0)]
    again = terminal("chat", "-C")
    again.wait_for("without an answer yet: never stop")
    again.wait_for(">>> ")
    again.type("go on")
    again.wait_for("go on\n")
    again.wait_for(">>> ")
    again.type("/exit")
    again.exit_code()
    assert [(c["title"], c["turns"]) for c in listed(program)] == [("never stop", 1)]


@pytest.mark.slow
def test_a_days_use_takes_no_more_memory_loses_no_edit_and_no_command_takes_a_second(
    program: Program, model: Path, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """50 conversations, 500 turns, 40 edits, 3 times `learn`; commands beside the time that the program takes to start.

    All that the person wrote calibrates: 3 items, and 13, 26 and 40 edited ones when it is learned from.
    """
    editor = tmp_path / "editor.py"
    editor.write_text("import sys; text = open(sys.argv[1]).read(); open(sys.argv[1], 'w').write('By gum! ' + text)")
    monkeypatch.setenv("VISUAL", shlex.join([sys.executable, "-S", str(editor)]))
    of_person = ["-m", model, "-p", profile, *QUICK, "--examples", "12", "-t", "1"]
    used, asked, evidence, process = list[int](), list[str](), dict[int, int](), psutil.Process()
    before = Profile.load(profile)
    for i in range(50):
        lines = [f"Question {i} {k}?" for k in range(10)]
        goes_on = i % 5 == 4
        if not goes_on:
            asked.append(lines[-1])
            lines.append("/edit")
        chat = program("chat", *of_person, "-n", "6", "--temp", "0", *["-C"] * goes_on, stdin="\n".join(lines))
        assert chat.returncode == 0, chat.stderr
        if i in (15, 31, 49):
            learned = program("learn", *of_person, "--json")
            assert learned.returncode == 0, learned.stderr
            evidence[i] = json.loads(learned.stdout)["now"]["n"]
        used.append(process.memory_info().rss)
    assert sum(cast(int, c["turns"]) for c in listed(program)) == 500
    by_chats = [used[i] - used[i - 1] for i in range(11, 50) if i not in evidence]
    assert sum(by_chats) < 20_000_000, used
    assert used[-1] - used[31] < 20_000_000, used  # the third lesson has the memory that the first two took
    assert evidence == {15: 16, 31: 29, 49: 43}
    after = Profile.load(profile)
    assert replace(after, history=after.history[:3]) == before
    edited = after.history[3:]
    assert [(item.kind, item.input) for item in edited] == [("edited", question) for question in asked]
    assert len(edited) == 40
    assert [item.output.split() for item in edited] == [["By", "gum!", *item.rejected.split()] for item in edited]
    last = str(listed(program)[0]["id"])
    commands = [["list"], ["search", "nothing"], ["search", "question", "49"], ["show", last], ["export", last]]
    of_conversations = [["conversations", *one] for one in [*commands, ["rm", "1", "--yes"], ["rm", "--all", "--yes"]]]
    for command in [*of_conversations, ["feedback", "list", "-p", str(profile)]]:
        begun = time.monotonic()
        assert program(*command).returncode == 0
        assert time.monotonic() - begun < 1, command
