"""Text that others wrote, on a terminal: shown, never obeyed. An emulator (pyte) says what a terminal makes of it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyte
import pytest
from program import PROGRAM, QUICK, Program, Terminal
from tiny import TinyModel, write_parrot

from dps_local.maps.head_map import HeadMap

# sets the window's title, writes the clipboard, clears the screen by C1, hides text, turns text around, goes back
HOSTILE = "\x1b]2;pwned\x07\x1b]52;c;ZXZpbA==\x07\N{CONTROL SEQUENCE INTRODUCER}2J\x1b[8m\u202e\r\b"
SHOWN = "]2;pwned]52;c;ZXZpbA==2J[8m"  # typed by hand: what is left of it
KEPT = "a\tb 👩\N{ZERO WIDTH JOINER}🚀 e\N{COMBINING ACUTE ACCENT} \N{RIGHT-TO-LEFT MARK}"


class Emulated:
    """What a terminal makes of bytes: the text on its screen, and its title."""

    def __init__(self, output: bytes) -> None:
        screen = pyte.Screen(80, 300)
        pyte.ByteStream(screen).feed(output)
        self.title = screen.title
        self.text = "".join(line.rstrip() for line in screen.display)


def test_an_emulator_obeys_what_is_not_taken_out() -> None:
    seen = Emulated(b"before " + HOSTILE.encode() + b"after")
    assert seen.title == "pwned"
    assert "before" not in seen.text
    assert SHOWN not in seen.text


def assert_only_shown(output: bytes, times: int = 1) -> None:
    """Check that HOSTILE came to the screen as text, and to the terminal as nothing else."""
    text = Emulated(output).text
    assert re.sub("[\N{REPLACEMENT CHARACTER}│ ]", "", text).count(SHOWN) >= times, text
    assert_not_obeyed(output)


def assert_not_obeyed(output: bytes) -> None:
    seen = Emulated(output)
    assert "pwned" in seen.text
    assert seen.title == ""
    written = output.decode()
    assert not {"\x07", "\x9b", "\u202e"} & set(written)
    styles_and_modes = r"\x1b(\[[0-9;?]*[hlmABCDJK]|\[6n|[=>])"  # of rich and prompt_toolkit
    assert "\x1b" not in re.sub(styles_and_modes, "", written)
    assert "\x1b[8m" not in written


@pytest.fixture
def parrot(tmp_path: Path) -> Path:
    """A model named HOSTILE that answers everything with HOSTILE, in tokens that end within a sequence."""
    said = HOSTILE.encode()
    path = tmp_path / "parrot.gguf"
    write_parrot(path, [said[:2], said[2:7], said[7:15], said[15:30], said[30:], KEPT.encode()], HOSTILE)
    return path


def run(terminal: Callable[..., Terminal], *arguments: object) -> bytes:
    started = terminal(*arguments)
    started.exit_code(60)
    while started.read():
        pass
    return started.output


def test_an_answer_is_shown_and_not_obeyed(terminal: Callable[..., Terminal], parrot: Path) -> None:
    asked = ["-m", parrot, "-c", "512", "-n", "9", "--temp", "0", "hi"]
    assert_only_shown(run(terminal, "generate", *asked))
    output = run(terminal, "generate", *asked, "--markdown", "never")
    assert_only_shown(output)
    assert KEPT in output.decode()


def test_answers_in_a_chat_are_shown_and_not_obeyed(terminal: Callable[..., Terminal], parrot: Path) -> None:
    chat = terminal("chat", "-m", parrot, "-c", "512", "-n", "9", "--temp", "0")
    for line, end in (("hi", "👩"), ("/regen", "👩"), ("/undo", "taken back"), ("/wrong", "no command")):
        chat.wait_for(">>> ")
        chat.type(line)
        chat.wait_for(end)
    chat.wait_for(">>> ")
    chat.type("/exit")
    assert chat.exit_code() == 0
    assert_only_shown(chat.output, times=2)


def test_an_answer_in_a_file_is_exact_and_one_in_a_pipe_is_not(
    parrot: Path, environment: dict[str, str], program: Program, tmp_path: Path
) -> None:
    """A pipe may end in a terminal, as with | head; what is kept in a file is what was said."""
    command = [*PROGRAM, "generate", "-m", str(parrot), "-c", "512", "-n", "9", "--temp", "0", "hi"]
    with (tmp_path / "answer.txt").open("wb") as file:
        subprocess.run(command, stdout=file, env=environment, timeout=60, check=True)
    assert (tmp_path / "answer.txt").read_bytes().decode() == HOSTILE + KEPT + "\n"
    assert program(*command[len(PROGRAM) :]).stdout == SHOWN + KEPT + "\n"
    assert json.loads(program(*command[len(PROGRAM) :], "--json").stdout)["text"] == HOSTILE + KEPT


def test_a_comparison_is_shown_and_not_obeyed(terminal: Callable[..., Terminal], parrot: Path, profile: Path) -> None:
    said = ["-m", parrot, "-p", profile, "-c", "512", "-n", "9", "--temp", "0", "--mode", "cad", "--gamma", "0.5"]
    output = run(terminal, "generate", *said, "--compare", "hi")
    assert_only_shown(output, times=2)


def test_a_profile_and_a_model_that_are_scored_are_shown_and_not_obeyed(
    terminal: Callable[..., Terminal], tiny_model: TinyModel, tmp_path: Path
) -> None:
    model = tiny_model(name=HOSTILE)
    profile = tmp_path / f"{HOSTILE}.json"
    profile.write_text(json.dumps({"name": HOSTILE, "history": [{"output": f"{HOSTILE} {i}"} for i in range(3)]}))
    output = run(terminal, "score", "-m", model, "-p", profile, *QUICK, "-o", tmp_path / f"{HOSTILE}.dps.gguf")
    assert_only_shown(output)


def test_what_a_profile_holds_is_shown_and_not_obeyed(terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    profile = tmp_path / f"{HOSTILE}.json"
    history = [{"output": "Off.", "source": HOSTILE}]
    profile.write_text(json.dumps({"name": HOSTILE, "history": history}))
    assert_only_shown(run(terminal, "profile", "show", profile), times=2)
    assert_only_shown(run(terminal, "profile", "check", profile))
    assert_only_shown(run(terminal, "profile", "merge", profile, "-o", tmp_path / f"2{HOSTILE}.json"))


def test_a_map_is_shown_and_not_obeyed(terminal: Callable[..., Terminal], head_map: Path, tmp_path: Path) -> None:
    hostile = tmp_path / f"{HOSTILE}.dps.gguf"
    replace(HeadMap.load(head_map), model=HOSTILE, architecture=HOSTILE).save(hostile)
    assert_only_shown(run(terminal, "inspect", hostile), times=1)
    assert_only_shown(run(terminal, "inspect", hostile, head_map), times=1)


def test_an_error_is_shown_and_not_obeyed(terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    profile = tmp_path / "x.json"
    profile.write_text(json.dumps({"preferences": ["short"], HOSTILE: 1}))
    model = tmp_path / "no.gguf"
    model.write_text(HOSTILE)
    for arguments in (
        ["models", "path", HOSTILE],
        ["chat", "-m", HOSTILE],
        ["generate", "-m", tmp_path / HOSTILE, "hi"],
        ["inspect", tmp_path / HOSTILE],
        ["chat", "-m", model, "-p", profile],
    ):
        output = run(terminal, *arguments)
        assert b"error: " in output
        assert_not_obeyed(output)


@pytest.mark.parametrize(
    "arguments",
    [["models", "path", "x", HOSTILE], ["generate", "--gamma", HOSTILE, "hi"]],
)
def test_a_usage_error_commands_no_terminal(terminal: Callable[..., Terminal], arguments: list[str]) -> None:
    assert_not_obeyed(run(terminal, *arguments))
