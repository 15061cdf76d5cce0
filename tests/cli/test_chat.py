"""`dps-local chat` on pipes, and the whole conversation on a pseudo-terminal."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from program import PROFILE, QUICK, Program, Terminal

from dps_local.maps.calibration import NO_STEERING, Calibration, Candidate
from dps_local.maps.head_map import HeadMap
from dps_local.prompting.profile import examples


def test_piped_questions_are_answered_one_a_line(
    program: Program, model: Path, profile: Path, steering_map: Path
) -> None:
    arguments = ["chat", "-m", model, "-p", profile, "--map", steering_map, *QUICK, "-n", "5", "--temp", "0"]
    result = program(*arguments, stdin="hello\n\nagain\n")
    assert result.returncode == 0, result.stderr
    assert "steering with 2 heads (L1H2 L0H3), γ = 0.5" in result.stderr
    assert result.stdout.endswith("\n")
    again = program(*arguments, stdin="hello\n\nagain\n")
    assert again.stdout == result.stdout


def test_a_profile_is_scored_once_and_then_cached(program: Program, model: Path, profile: Path, tmp_path: Path) -> None:
    assert program("chat", "-m", model, "-p", profile, *QUICK, "-n", "2", stdin="hi\n").returncode == 0
    (cached,) = (tmp_path / "cache" / "maps").iterdir()
    assert cached.stat().st_mode & 0o777 == 0o600
    assert cached.parent.stat().st_mode & 0o777 == 0o700
    before = cached.stat().st_mtime_ns
    assert program("chat", "-m", model, "-p", profile, *QUICK, "-n", "2", stdin="hi\n").returncode == 0
    assert cached.stat().st_mtime_ns == before
    profile.write_text(json.dumps(PROFILE | {"name": "Grace"}))
    assert program("chat", "-m", model, "-p", profile, *QUICK, "-n", "2", stdin="hi\n").returncode == 0
    assert len(list(cached.parent.iterdir())) == 2


def test_a_line_that_is_no_command_is_a_question(program: Program, model: Path, tmp_path: Path) -> None:
    saved = tmp_path / "talk.json"
    arguments = ["chat", "-m", model, "-c", "512", "-n", "3", "--temp", "0"]
    result = program(*arguments, stdin=f"/etc/passwd says what?\n/nonsense\n/ 2\n/save {saved}\n/exit\nno\n")
    assert result.returncode == 0, result.stderr
    asked = [m["content"] for m in json.loads(saved.read_text())["messages"] if m["role"] == "user"]
    assert asked == ["/etc/passwd says what?", "/nonsense", "/ 2"]


def test_a_line_that_fails_does_not_end_a_piped_chat(program: Program, model: Path, tmp_path: Path) -> None:
    saved = tmp_path / "talk.json"
    arguments = ["chat", "-m", model, "-c", "256", "-n", "3", "--temp", "0"]
    lines = ["/regen", "/compare maybe", "first", "word " * 400, f"/save {tmp_path / 'none' / 'x'}", "second"]
    result = program(*arguments, stdin="\n".join([*lines, f"/save {saved}"]))
    assert result.returncode == 1
    assert [line for line in result.stderr.splitlines() if line.startswith("error: ")] == [
        "error: there is no answer yet",
        "error: /compare takes on or off",
        "error: the question needs more than the context of 256 tokens: --ctx-size makes it larger",
        f"error: cannot write {tmp_path / 'none' / 'x'}: No such file or directory",
    ]
    asked = [m["content"] for m in json.loads(saved.read_text())["messages"] if m["role"] == "user"]
    assert asked == ["first", "second"]


def test_a_chat_says_at_its_start_what_steering_is_worth(program: Program, model: Path, profile: Path) -> None:
    result = program("chat", "-m", model, "-p", profile, *QUICK, "-n", "1", stdin="hi\n")
    assert "steering does not help on your writing" in result.stderr
    assert "no head qualifies: steering stays off" in result.stderr
    forced = program("chat", "-m", model, "-p", profile, *QUICK, "-n", "1", "--gamma", "1", stdin="/gamma\n")
    assert "it stays off" in forced.stderr  # as no head can be steered by
    assert forced.stderr.splitlines()[-1] == (
        "error: nothing to steer: no head was chosen, or chat was started without --profile and --map"
    )


def test_what_was_measured_and_what_is_done_do_not_contradict_each_other(
    program: Program, model: Path, steering_map: Path
) -> None:
    calibration = Calibration(-0.05, -0.09, -0.01, 12, NO_STEERING, 1.1, 1.2)
    replace(HeadMap.load(steering_map), calibration=calibration, gamma=0.0).save(steering_map)
    arguments = ["chat", "-m", model, "--map", steering_map, "-c", "512", "-n", "1"]
    off, on = program(*arguments, stdin="hi\n").stderr, program(*arguments, "--gamma", "1", stdin="hi\n").stderr
    assert "it stays off" in off
    assert "steering with" not in off
    assert on.splitlines()[0].endswith("--gamma steers all the same")
    assert "steering with 2 heads (L1H2 L0H3), γ = 1" in on
    assert "off" not in on


def test_a_map_that_helps_says_so_at_the_start(program: Program, model: Path, steering_map: Path) -> None:
    calibration = Calibration(0.05, 0.01, 0.09, 12, Candidate("contrast", 2, 0.5), 1.1, 1.2)
    replace(HeadMap.load(steering_map), calibration=calibration).save(steering_map)
    result = program("chat", "-m", model, "--map", steering_map, "-c", "512", "-n", "1", stdin="hi\n")
    assert result.stderr.splitlines()[:2] == [
        "steering is worth +0.050 [+0.010, +0.090] nats a token on your writing",
        "Tiny: steering with 2 heads (L1H2 L0H3), γ = 0.5",
    ]


def test_the_shipped_profiles_can_be_named() -> None:
    assert examples() == ["idris", "mara", "nell", "odile"]


def test_a_whole_conversation(
    terminal: Callable[..., Terminal], model: Path, profile: Path, steering_map: Path, tmp_path: Path
) -> None:
    arguments = ["--map", str(steering_map), *QUICK, "-n", "8", "--temp", "0"]
    chat = terminal("chat", "-m", model, "-p", profile, *arguments)
    assert "steering with" in chat.wait_for(">>> ")
    chat.type("/help")
    listed = chat.wait_for(">>> ")
    for command in ("/help", "/gamma", "/clear", "/regen", "/save", "/exit"):
        assert command in listed
    chat.type("hello there")
    first = chat.wait_for(">>> ").removeprefix("hello there\n")
    chat.type("/regen")
    assert chat.wait_for(">>> ").removeprefix("/regen\n") == first
    chat.type("/gamma")
    assert "γ = 0.5" in chat.wait_for(">>> ")
    chat.type("/gamma 0")
    assert "γ = 0" in chat.wait_for(">>> ")
    chat.type("/gamma lots")
    assert "error: γ is 'lots'" in chat.wait_for(">>> ")
    chat.type("/nonsense")
    assert "there is no command /nonsense" in chat.wait_for(">>> ")
    chat.type("and again")
    chat.wait_for(">>> ")
    chat.type(f"/save {tmp_path / 'talk.json'}")
    assert "saved to" in chat.wait_for(">>> ")
    saved = json.loads((tmp_path / "talk.json").read_text())
    assert [m["role"] for m in saved["messages"]] == ["user", "assistant"] * 2
    assert saved["messages"][0]["content"] == "hello there"
    assert (tmp_path / "talk.json").stat().st_mode & 0o777 == 0o600
    chat.type("/undo")
    assert "taken back: and again" in chat.wait_for(">>> ")
    chat.type("/clear")
    chat.wait_for(">>> ")
    chat.type("/regen")
    assert "there is no answer yet" in chat.wait_for(">>> ")
    chat.type("/exit")
    assert chat.exit_code() == 0


def test_ctrl_c_stops_an_answer_and_keeps_the_turn_and_a_second_one_leaves(
    terminal: Callable[..., Terminal], model: Path, tmp_path: Path
) -> None:
    endless = ["-n", "-1", "--temp", "1.5", "--top-k", "0", "--seed", "1", "-c", "8192", "--markdown", "never"]
    chat = terminal("chat", "-m", model, *endless)
    chat.wait_for(">>> ")
    chat.type("never stop")
    chat.wait_for("never stop\n")
    while not chat.screen:
        chat.read()
    chat.interrupt()
    chat.wait_for(">>> ")
    chat.type(f"/save {tmp_path / 'talk.json'}")
    chat.wait_for(">>> ")
    question, answer = json.loads((tmp_path / "talk.json").read_text())["messages"]
    assert question["content"] == "never stop"
    assert answer["content"]
    time.sleep(1)  # readline shows its prompt a moment before it listens to signals
    chat.interrupt()
    assert "Ctrl-C again leaves" in chat.wait_for(">>> ")
    chat.type("/gamma")
    chat.wait_for(">>> ")
    time.sleep(1)
    chat.interrupt()
    assert "Ctrl-C again leaves" in chat.wait_for(">>> ")  # something else came between
    time.sleep(1)
    chat.interrupt()
    assert chat.exit_code() == 0


def test_a_pasted_block_is_one_question(terminal: Callable[..., Terminal], model: Path, tmp_path: Path) -> None:
    pytest.importorskip("readline")
    chat = terminal("chat", "-m", model, "-c", "512", "-n", "3", "--temp", "0")
    chat.wait_for(">>> ")
    os.write(chat.fd, b"\x1b[200~one line\nand another\n\x1b[201~\n")
    chat.wait_for(">>> ")
    os.write(chat.fd, b"Gr\xfc\xdfe\n")  # not UTF-8: no reason to end
    chat.wait_for(">>> ")
    chat.type(f"/save {tmp_path / 'talk.json'}")
    chat.wait_for("saved to")
    chat.wait_for(">>> ")
    asked = [m["content"] for m in json.loads((tmp_path / "talk.json").read_text())["messages"] if m["role"] == "user"]
    assert asked[0].split("\n") == ["one line", "and another"]
    assert len(asked) == 2


def test_ctrl_d_leaves(terminal: Callable[..., Terminal], model: Path) -> None:
    chat = terminal("chat", "-m", model, "-c", "512")
    chat.wait_for(">>> ")
    os.write(chat.fd, b"\x04")
    assert chat.exit_code() == 0
