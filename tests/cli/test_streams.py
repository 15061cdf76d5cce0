"""The program on streams of any kind: other encodings, bytes that are no text, closed ones."""

from __future__ import annotations

import json
import os
import subprocess
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from program import PROGRAM
from tiny import TinyModel

LATIN = b"Gr\xfc\xdfe"
SHOWN = "Gr\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}e"

Run = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`run(argument, …, stdin=b"", shell="", NAME=value)`: shell redirects streams, names go to the environment."""
    drop = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "PYTHONPATH", "PYTHONIOENCODING", "LC_ALL")
    kept = {key: value for key, value in os.environ.items() if key not in drop}
    kept |= {"DPS_LOCAL_CACHE": str(tmp_path / "cache"), "PYTHONWARNINGS": "error"}

    def program(
        *arguments: object, stdin: bytes = b"", shell: str = "", **environment: str
    ) -> subprocess.CompletedProcess[bytes]:
        command = [*PROGRAM, *(a if isinstance(a, bytes) else str(a) for a in arguments)]
        if shell:
            command = ["sh", "-c", f'exec "$@" {shell}', "sh", *command]
        result = subprocess.run(
            command, input=stdin, capture_output=True, env=kept | environment, timeout=120, check=False
        )
        assert b"Traceback" not in result.stderr, result.stderr.decode(errors="replace")
        assert b"Exception ignored" not in result.stderr, result.stderr.decode(errors="replace")
        return result

    return program


@pytest.fixture
def generate(tiny_model: TinyModel) -> list[object]:
    return ["generate", "-m", tiny_model(), "-c", "512", "-n", "5", "--temp", "0"]


# --- text that is not UTF-8


@pytest.mark.parametrize("locale", [{}, {"LC_ALL": "C"}])
def test_bytes_that_are_no_text_are_read_as_replacement_signs(
    run: Run, generate: list[object], locale: dict[str, str]
) -> None:
    expected = run(*generate, SHOWN)
    assert expected.returncode == 0, expected.stderr
    for result in (run(*generate, stdin=LATIN, **locale), run(*generate, LATIN, **locale)):
        assert (result.returncode, result.stdout) == (0, expected.stdout)


def test_a_piped_question_that_is_not_utf8_is_answered_and_so_is_the_next(run: Run, tiny_model: TinyModel) -> None:
    arguments = ["chat", "-m", tiny_model(), "-c", "512", "-n", "5", "--temp", "0"]
    result = run(*arguments, stdin=LATIN + b"\nagain\n")
    assert result.returncode == 0
    assert result.stdout == run(*arguments, stdin=f"{SHOWN}\nagain\n".encode()).stdout


@pytest.mark.parametrize("arguments", [["generate", "-m", LATIN, "hi"], ["chat", "-p", LATIN], ["inspect", LATIN]])
def test_a_name_that_is_not_utf8_is_one_line(run: Run, arguments: list[object]) -> None:
    for environment in ({}, {"PYTHONIOENCODING": "ascii"}):
        result = run(*arguments, **environment)
        assert result.returncode == 1
        assert result.stderr.splitlines()[-1].startswith(b"error: ")


def test_a_file_whose_name_is_not_utf8_is_found(run: Run, generate: list[object], tmp_path: Path) -> None:
    link = tmp_path / os.fsdecode(LATIN)
    link.symlink_to(str(generate[2]))
    assert run("generate", "-m", os.fsencode(link), *generate[3:], "hi").stdout == run(*generate, "hi").stdout


# --- encodings that lack letters


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_every_encoding_can_be_written(run: Run, generate: list[object], encoding: str, tmp_path: Path) -> None:
    environment = {"PYTHONIOENCODING": encoding}
    listed = run("models", "list", **environment)
    assert listed.returncode == 0
    assert b"smollm2-135m" in listed.stdout
    prompt = ["the γ of it ✓".encode()]
    wild = [*generate, "--temp", "3", "--top-k", "0", "--top-p", "1", "--min-p", "0", "--seed", "3", "-n", "60"]
    answer = run(*wild, *prompt, **environment)
    assert answer.returncode == 0
    said = json.loads(run(*wild, "--json", *prompt).stdout)["text"]
    assert not said.isascii()
    assert answer.stdout.decode(encoding) == shown(said).encode(encoding, "replace").decode(encoding) + "\n"
    written = run(*wild, "--json", *prompt, **environment)
    assert json.loads(written.stdout.decode(encoding))["text"] == said
    profile = tmp_path / "zoë.json"
    profile.write_text(json.dumps({"name": "Zoë ✓", "history": [{"output": "ü ✓ so be it"}] * 2}))
    scored = run("score", *generate[1:3], "-p", profile, "-c", "512", "--target-tokens", "4", **environment)
    assert scored.returncode == 0
    assert b"null control" in scored.stdout


def shown(text: str) -> str:
    """A text without control characters, as a terminal shows it."""
    turning = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    hidden = (c for c in text if unicodedata.category(c) == "Cc" or unicodedata.bidirectional(c) in turning)
    return text.translate({ord(c): None for c in hidden if c not in "\n\t"})


# --- what is printed is what was said


def test_an_answer_is_what_was_said_less_control_characters(run: Run, generate: list[object]) -> None:
    wild = [*generate, "--temp", "3", "--top-k", "0", "--top-p", "1", "--min-p", "0", "--seed", "22", "-n", "300", "hi"]
    said = json.loads(run(*wild, "--json").stdout)["text"]
    assert {"\t", "\x1b", "\b", "\r"} <= set(said)
    assert run(*wild).stdout.decode() == shown(said) + "\n"


def test_names_of_others_cannot_command_the_terminal(run: Run, tiny_model: TinyModel, tmp_path: Path) -> None:
    name = "\x1b]52;c;ZXZpbA==\x07evil\x9b31m\u202e\r"
    model = tiny_model(name=name)
    profile = tmp_path / f"{name}.json"
    profile.write_text(json.dumps({"name": name, name: 1}))
    for arguments in (
        ["generate", "-m", model, "-c", "512", "-n", "2", "--temp", "0", "hi"],
        ["bench", "scoring", "-m", model, "--repeats", "1", "--prompt-tokens", "9", "--target-tokens", "2"],
        ["score", "-m", model, "-p", profile],
        ["inspect", profile],
        ["generate", "-m", tmp_path / name, "hi"],
    ):
        result = run(*arguments)
        printed = (result.stdout + result.stderr).decode()
        assert "evil" in printed, arguments
        assert shown(printed) == printed, arguments


# --- closed streams


def test_a_closed_stdin_is_an_empty_one(run: Run, generate: list[object], tiny_model: TinyModel) -> None:
    empty, closed = run(*generate), run(*generate, shell="<&-")
    assert (closed.returncode, closed.stderr) == (empty.returncode, empty.stderr)
    assert b"the prompt is empty" in closed.stderr
    chat = run("chat", "-m", tiny_model(), "-c", "512", shell="<&-")
    assert (chat.returncode, chat.stdout) == (0, b"")
    assert run(*generate, "hi", shell="<&-").stdout == run(*generate, "hi").stdout


@pytest.mark.parametrize("shell", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_outputs_swallow_what_is_written(run: Run, generate: list[object], shell: str, tmp_path: Path) -> None:
    whole = run(*generate, "hi")
    result = run(*generate, "hi", shell=shell)
    assert result.returncode == 0
    assert result.stdout == (b"" if ">&-" in shell.replace("2>&-", "") else whole.stdout)
    assert run(*generate, "--json", "hi", shell=shell).returncode == 0
    assert run("models", "list", shell=shell).returncode == 0
    assert run("generate", "-m", tmp_path / "nothing", "hi", shell=shell).returncode == 1
