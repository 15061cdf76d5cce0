"""What is printed: as logs have it, and without what would command a terminal."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import signal
import sys
import threading
import time
import unicodedata
from collections.abc import Callable

import pytest
import typer
from rich.panel import Panel
from rich.text import Text

from dps_local.cli.terminal import (
    Terminal,
    on_interrupt,
    readable_usage_errors,
    show_traceback,
    without_controls,
)
from dps_local.drawing.console import ConsoleText


def test_the_time_left_is_by_the_pace_of_now(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that goes on where it stopped is past the first half at once, and slow from there."""
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with Terminal().progress("reading") as progress:
        progress(0, 20)
        progress(10, 20)
        for done in (11, 12, 15, 20):
            now += 6.0
            progress(done, 20)
    # 12 s for 2 of 20, then 6 s for 3
    assert capsys.readouterr().err.splitlines() == [
        "reading: 50 %, 0 s left",
        "reading: 60 %, 48 s left",
        "reading: 70 %, 10 s left",
        "reading: 100 %, 0 s left",
    ]


def test_progress_begins_at_once_with_what_is_done_first(capsys: pytest.CaptureFixture[str]) -> None:
    with Terminal().progress("scoring", preparation="reading") as progress:
        assert capsys.readouterr().err == ""  # not where nothing is to be done
        progress(0, 20)
        assert capsys.readouterr().err == "scoring: reading\n"
        progress(0, 20)
        progress(20, 20)
    assert capsys.readouterr().err == "scoring: 100 %, 0 s left\n"


def test_a_bar_says_what_is_done_first_and_how_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    tty = on_a_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "120")
    with Terminal().progress("scoring", preparation="reading") as progress:
        progress(0, 20)
        time.sleep(0.3)  # ten times a second
        assert re.search(r"scoring: reading .* 0/20\S* .*0:00:0\d\S* taken", tty.getvalue())
        progress(5, 20)
        time.sleep(0.3)
    assert "reading" not in tty.getvalue().rpartition("5/20")[0].rpartition("scoring")[2]


def test_ctrl_c_is_answered_at_once_even_while_native_code_runs(capfd: pytest.CaptureFixture[str]) -> None:
    """A hash that takes a second stands for a batch: Python runs no handler of its own before it returns."""
    said: list[float] = []
    interrupt = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
    rounds = 100_000
    while (took := seconds(rounds)) < 1.5:
        rounds = round(rounds * 2 / took)
    with pytest.raises(KeyboardInterrupt), on_interrupt(lambda: said.append(time.monotonic())):  # noqa: PT012
        begun = time.monotonic()
        interrupt.start()
        seconds(rounds)
        time.sleep(1)
    ended = time.monotonic()
    assert len(said) == 1
    assert said[0] - begun < ended - said[0]
    with pytest.raises(KeyboardInterrupt), Terminal().progress("scoring"):  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    assert "Ctrl-C: stopping as soon as this step is done" in capfd.readouterr().err


def seconds(rounds: int) -> float:
    begun = time.monotonic()
    hashlib.pbkdf2_hmac("sha256", b"word", b"salt", rounds)
    return time.monotonic() - begun


# --- control characters: an independent list, by what Unicode says of each character

HOSTILE = "\x1b]52;c;ZXZpbA==\x07\x9b31m\r\b\x7f\u202eevil\u2066"


def obeyed(text: str) -> list[str]:
    """The characters of a text that a terminal obeys instead of showing, but for tabs and line ends."""
    turning = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    controls = (c for c in text if unicodedata.category(c) == "Cc" or unicodedata.bidirectional(c) in turning)
    return [c for c in controls if c not in "\n\t"]


def test_every_control_character_is_known() -> None:
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    dropped = set(obeyed(every))
    assert len(dropped) == 2 * 32 + 1 - 2 + 9
    assert without_controls(every) == "".join(c for c in every if c not in dropped)


@pytest.mark.parametrize(
    "show",
    [
        lambda terminal: terminal.notice(HOSTILE),
        lambda terminal: terminal.error(HOSTILE),
        lambda terminal: terminal.write(HOSTILE),
        lambda terminal: terminal.show(HOSTILE),
        lambda terminal: terminal.show(Text(HOSTILE, style="")),
        lambda terminal: terminal.show(Panel(ConsoleText(Text(HOSTILE)))),
        lambda terminal: terminal.table([HOSTILE], [[HOSTILE]]),
        lambda terminal: terminal.json({HOSTILE: [HOSTILE]}),
        lambda terminal: show_progress(terminal),
    ],
)
def test_nothing_that_is_printed_can_command_the_terminal(
    show: Callable[[Terminal], None], capsys: pytest.CaptureFixture[str]
) -> None:
    show(Terminal())
    shown = "".join(capsys.readouterr())
    assert "evil" in shown
    assert obeyed(shown) == []


def test_a_usage_error_loses_control_characters_too() -> None:
    with pytest.raises(typer.BadParameter) as info, readable_usage_errors():
        raise typer.BadParameter(HOSTILE)
    assert "evil" in info.value.message
    assert obeyed(info.value.message) == []


def test_a_traceback_loses_control_characters_too(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError(HOSTILE)
    except ValueError as exc:
        show_traceback(ValueError, exc, exc.__traceback__)
    said = capsys.readouterr().err
    assert "ValueError: ]52;c;ZXZpbA==" in said
    assert obeyed(said) == []


def test_a_question_loses_control_characters_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for answer, expected in (("y", True), ("", False)):
        monkeypatch.setattr(sys, "stdin", io.StringIO(f"{answer}\n"))
        assert Terminal().confirm(f"overwrite {HOSTILE}?") is expected
    said = "".join(capsys.readouterr())
    assert "evil? [y/N]" in said
    assert obeyed(said) == []


def test_a_sequence_that_comes_in_pieces_is_no_sequence_either(monkeypatch: pytest.MonkeyPatch) -> None:
    tty = on_a_terminal(monkeypatch)
    for style in ("", "dim"):
        for piece in HOSTILE:
            Terminal().write(piece, style)
    assert obeyed(re.sub(r"\x1b\[\d*m", "", tty.getvalue())) == []


def test_emoji_combining_marks_and_right_to_left_text_survive(capsys: pytest.CaptureFixture[str]) -> None:
    text = "👩\u200d🚀 🏳\ufe0f e\u0301 שלום\u200e! ‏عربي\u061c :rocket: [b]\n"
    terminal = Terminal()
    terminal.write(text)
    terminal.show(text.strip())
    terminal.notice(text.strip())
    assert capsys.readouterr() == (text * 2, text)


def show_progress(terminal: Terminal) -> None:
    with terminal.progress(HOSTILE) as progress:
        progress(10, 10)


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Let stdout and stderr be a terminal with colours, as far as rich sees."""
    stream = io.StringIO()
    stream.isatty = lambda: True  # type: ignore[method-assign]
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, stream)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    return stream


def test_a_terminal_gets_the_escapes_of_this_program_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    tty = on_a_terminal(monkeypatch)
    terminal = Terminal()
    terminal.notice(HOSTILE)
    terminal.write(HOSTILE, "bold green")
    terminal.table(["name"], [[HOSTILE]])
    with terminal.progress(HOSTILE) as progress:
        progress(1, 2)
    shown = tty.getvalue()
    assert "\x1b[1;32m" in shown
    styles_and_moves = r"\x1b\[[0-9;?]*[A-Za-z]"
    assert set(obeyed(re.sub(styles_and_moves, "", shown))) <= {"\r"}  # of the bar, which goes back to its start
    assert "\x1b]" not in shown
    assert "\x1b[31m" not in shown.replace("\x1b[0m", "")


def test_an_answer_is_printed_as_it_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    tty = on_a_terminal(monkeypatch)
    said = "a\tb  c \n\n\tdef main():\n\t\treturn [bold]x[/]  \n" + "long " * 40
    terminal = Terminal()
    for piece in (said[:2], said[2:9], said[9:]):
        terminal.write(piece)
    assert tty.getvalue() == said
    tty.truncate(0)
    terminal.write(said, "dim")
    assert re.sub(r"\x1b\[[0-9]*m", "", tty.getvalue()).lstrip("\0") == said


def test_a_table_in_a_pipe_is_whole_and_one_on_a_terminal_breaks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    path = "/a/long/path/" + "to/" * 30 + "libllama.so"
    Terminal().table(["", "where"], [["library", path]])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["library", path]
    assert len(lines) == 2


def test_a_table_on_a_terminal_breaks_what_is_too_long_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    tty = on_a_terminal(monkeypatch)
    path = "/a/long/path/" + "to/" * 30 + "libllama.so"
    Terminal().table(["", "where"], [["library", path]])
    cells = [line[8:].strip() for line in re.sub(r"\x1b\[[0-9]*m", "", tty.getvalue()).splitlines()[1:]]
    assert "".join(cells) == path


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_json_is_valid_in_every_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    data = {"text": f"γ = 0.5 ✓ {HOSTILE}", "file": "gr\udcfc"}
    Terminal().json(data)
    assert json.loads(raw.getvalue().decode(encoding)) == data
