"""The prompt of a chat on an emulated terminal: what is typed, remembered and told there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from program import QUICK
from screen import ALT_ENTER, CTRL_C, CTRL_D, CTRL_G, ENTER, TAB, UP, Screen, pasted

from dps_local.cli.prompt import fitting, is_open

SHORT = ("-c", "512", "-n", "4", "--temp", "0", "-t", "1")
Start = Callable[..., Screen]


def asked(chat: Screen, folder: Path) -> list[str]:
    """The questions of a chat so far."""
    file = folder / "talk.json"
    chat.ask(f"/save {file}")
    return [m["content"] for m in json.loads(file.read_text())["messages"] if m["role"] == "user"]


def test_a_message_may_have_several_lines(screen: Start, model: Path, tmp_path: Path) -> None:
    chat = screen("chat", "-m", model, *SHORT)
    chat.ask(f"by Alt-Enter{ALT_ENTER}二つ目の行")
    assert "... 二" in chat.text
    chat.ask(f'"""{ENTER}  in quotes{ENTER}{ENTER}of three"""')
    chat.ask(pasted("pasted\nlines\r\nare one\n"))
    assert asked(chat, tmp_path) == ["by Alt-Enter\n二つ目の行", "in quotes\n\nof three", "pasted\nlines\nare one"]


def test_five_thousand_pasted_lines_are_one_message(screen: Start, model: Path, tmp_path: Path) -> None:
    chat = screen("chat", "-m", model, "-c", "256", "-n", "1", "-t", "1", columns=40)
    chat.until(lambda: chat.prompting)
    chat.send(pasted("\n".join(f"line {i}" for i in range(5000))))
    chat.until_shown("line 4999")
    chat.send(ENTER)
    chat.until_shown("the question needs more than the")
    chat.until(lambda: chat.prompting)
    assert chat.text.count("needs more") == 1
    assert asked(chat, tmp_path) == []


def test_messages_are_remembered_for_their_owner_alone(screen: Start, model: Path, tmp_path: Path) -> None:
    first = screen("chat", "-m", model, *SHORT)
    first.ask("the first one")
    first.ask(f"and{ALT_ENTER}another")
    first.send(CTRL_D)
    assert first.end() == 0
    file = tmp_path / "state" / "history"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    later = screen("chat", "-m", model, *SHORT)
    later.until(lambda: later.prompting)
    later.send(UP)
    later.until_shown("... another")
    later.send(UP * 2)
    later.until_shown("the first one")
    later.send(ENTER)
    later.until(lambda: later.prompting)
    assert asked(later, tmp_path) == ["the first one"]


def test_nothing_is_remembered_where_that_is_off(screen: Start, model: Path, tmp_path: Path) -> None:
    chat = screen("chat", "-m", model, *SHORT, "--no-history")
    chat.ask("a secret")
    chat.send(UP)
    chat.until(lambda: chat.text.count("a secret") == 2)  # within the chat
    chat.send(ENTER)
    chat.until(lambda: chat.prompting)
    chat.send("/exit" + ENTER)
    assert chat.end() == 0
    assert not (tmp_path / "state").exists()


def test_a_history_that_cannot_be_written_is_said_and_no_more(screen: Start, model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    chat = screen("chat", "-m", model, *SHORT, DPS_LOCAL_STATE=str(tmp_path / "file"), columns=200)
    chat.ask("hello")
    assert f"messages are not remembered: cannot make the folder {tmp_path / 'file'}: File exists" in chat.text


def test_the_older_half_of_a_long_history_goes(screen: Start, model: Path, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    file = tmp_path / "state" / "history"
    file.write_text("".join(f"\n# a date\n+message {i}\n+{'x' * 1000}\n" for i in range(1100)))
    chat = screen("chat", "-m", model, *SHORT)
    chat.until(lambda: chat.prompting)
    kept = [line for line in file.read_text().splitlines() if line.startswith("+message")]
    assert 400 < len(kept) < 600
    assert kept[-1] == "+message 1099"
    assert file.read_text().startswith("\n# a date\n+message")


def test_tab_completes_commands_and_lists_them(screen: Start, model: Path) -> None:
    chat = screen("chat", "-m", model, *SHORT)
    chat.until(lambda: chat.prompting)
    chat.send("/un" + TAB)
    chat.until_shown(">>> /undo")
    chat.send(ENTER)
    chat.until_shown("error: there is no answer yet")
    chat.until(lambda: chat.prompting)
    chat.send("/" + TAB)
    chat.until_shown("/undo  /compare")
    chat.until_shown(">>> /")


def test_ctrl_g_goes_on_in_the_editor(screen: Start, model: Path, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nls -ld "$(dirname "$1")" > "$0.seen"\ncat "$1" >> "$0.seen"\necho more >> "$1"\n')
    editor.chmod(0o755)
    chat = screen("chat", "-m", model, *SHORT, EDITOR=str(editor), VISUAL="")
    chat.until(lambda: chat.prompting)
    chat.send(f"begun{CTRL_G}")
    chat.until_shown(">>> begunmore")
    chat.send(ENTER)
    chat.until(lambda: chat.prompting)
    assert asked(chat, tmp_path) == ["begunmore"]
    seen = (tmp_path / "editor.seen").read_text()
    assert seen.startswith("drwx------")
    assert seen.endswith("begun")


def test_an_editor_that_is_not_there_loses_no_message(screen: Start, model: Path, tmp_path: Path) -> None:
    chat = screen("chat", "-m", model, *SHORT, EDITOR="/nowhere/editor", VISUAL="", columns=200)
    chat.until(lambda: chat.prompting)
    chat.send(f"begun{CTRL_G}")
    chat.until_shown("error: cannot run the editor '/nowhere/editor'")
    chat.until_shown(">>> begun")
    chat.send(ENTER)
    chat.until(lambda: chat.prompting)
    assert asked(chat, tmp_path) == ["begun"]


def test_ctrl_c_asks_and_leaves(screen: Start, model: Path) -> None:
    chat = screen("chat", "-m", model, *SHORT)
    chat.until(lambda: chat.prompting)
    chat.send(CTRL_C)
    chat.until_shown("Ctrl-C again leaves")
    chat.until(lambda: chat.prompting)
    chat.send(CTRL_C)
    assert chat.end() == 0


def test_the_line_below_tells_the_state(screen: Start, model: Path, profile: Path, steering_map: Path) -> None:
    steered = ["-p", profile, "--map", steering_map, *QUICK, "-n", "4", "--temp", "0"]
    chat = screen("chat", "-m", model, *steered)
    chat.until_shown("Ada · contrast γ 0.5 · 0/512 tokens")
    chat.ask("hello")
    chat.until(lambda: chat.lines[-1].endswith("tokens/s"))
    chat.ask("/gamma 0")
    chat.until(lambda: chat.lines[-1].startswith("Ada · not steered ·"))
    assert chat.text.count("not steered") == 1  # and is gone from the lines above


def test_a_terminal_that_does_not_answer_gets_no_line_below_and_no_warning(screen: Start, model: Path) -> None:
    chat = screen("chat", "-m", model, *SHORT, silent=True)
    chat.ask("hello")
    chat.until(lambda: not chat.read() or chat.prompting)
    for word in ("tokens", "WARNING"):
        assert word not in chat.text


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_a_dumb_terminal_is_read_line_by_line(screen: Start, model: Path, term: str, tmp_path: Path) -> None:
    chat = screen("chat", "-m", model, *SHORT, TERM=term)
    chat.ask("hello")
    chat.until(lambda: chat.prompting)
    chat.send(CTRL_C)
    chat.until_shown("Ctrl-C again leaves")
    chat.send("/exit" + ENTER)
    assert chat.end() == 0
    assert b"\x1b" not in chat.output.replace(b"\x1b[?2004h", b"").replace(b"\x1b[?2004l", b"")
    assert not (tmp_path / "state").exists()


def test_a_line_that_is_too_long_loses_its_end() -> None:
    parts = ["Ada", "contrast γ 0.5", "1,024/4,096 tokens"]
    assert fitting(parts, 80) == "Ada · contrast γ 0.5 · 1,024/4,096 tokens"
    assert fitting(parts, 40) == "Ada · contrast γ 0.5"
    assert fitting(["エイダ", "plain"], 14) == "エイダ · plain"
    assert fitting(["エイダ", "plain"], 13) == "エイダ"


def test_quotes_are_open_until_they_are_closed() -> None:
    assert [is_open(t) for t in ('"""', '"""a', '"""a\n', '""""')] == [True] * 4
    assert [is_open(t) for t in ("", "a", 'a """', '""""""', '"""a"""', ' """a\n""" ')] == [False] * 6
