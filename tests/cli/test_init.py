"""`dps-local init`: from nothing to a chat, on an emulated terminal."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from program import Program
from screen import CTRL_C, CTRL_D, ENTER, Screen

Start = Callable[..., Screen]
QUESTIONS = (
    "Model (it",
    "Your name",
    "Your sent mail",
    "How answers",
    "Keep conversations",
    "Write ",
    "Begin to chat?",
)

NOTES = (
    "I walk to the harbour before breakfast and count the boats that came in overnight, seldom more than six.",
    "The roof of the shed leaks again; on Saturday I shall buy tar and ask Tom for his long ladder.",
    "Nobody at the meeting wanted to say it, so I did: the old pump has to go before winter comes.",
    "Grandmother's bread needs less salt than the recipe says, and twice the time it grants the dough.",
)


@pytest.fixture
def settings(environment: dict[str, str]) -> Path:
    return Path(environment["DPS_LOCAL_CONFIG"])


def answered(init: Screen, answers: dict[str, str], until: str = "Begin to chat?") -> list[str]:
    """Answer questions by how they begin, others with Enter, up to one that is left open; return those that came."""
    asked: list[str] = []

    def open_question() -> str | None:
        line = init.lines[init.emulated.cursor.y]
        if init.emulated.cursor.x != len(line) + 1:  # it does not wait yet
            return None
        return next((q for q in QUESTIONS if re.match(rf"{re.escape(q)}.*:$", line) and q not in asked), None)

    while not asked or asked[-1] != until:
        init.until(lambda: open_question() is not None)
        asked.append(open_question() or "")
        if asked[-1] != until:
            init.send(answers.get(asked[-1], "") + ENTER)
    return asked


def read(file: Path) -> dict[str, Any]:
    return tomllib.loads(file.read_text())


def test_six_questions_lead_from_nothing_to_a_steered_chat(
    screen: Start, model: Path, settings: Path, tmp_path: Path
) -> None:
    notes = tmp_path / "Zoë's notes"
    notes.mkdir()
    for i, text in enumerate(NOTES):
        (notes / f"{i}.md").write_text(text)
    init = screen("init", columns=240)
    asked = answered(init, {"Model (it": str(model), "Your name": "Zoë", "Your sent mail": str(notes), "Write ": "y"})
    assert len(asked) <= 6
    init.send(ENTER)
    init.until(lambda: init.prompting)
    init.send("/exit" + ENTER)
    assert init.end() == 0
    profile = settings.parent / "me.json"
    assert read(settings)["model"] == str(model)
    assert read(settings)["profile"] == str(profile)
    kept = json.loads(profile.read_text())
    assert kept["name"] == "Zoë"
    assert len(kept["history"]) == 4
    for file in (settings, profile):
        assert file.stat().st_mode & 0o777 == 0o600


def test_wishes_make_a_profile_where_there_are_no_texts(screen: Start, model: Path, settings: Path) -> None:
    init = screen("init", columns=160)
    asked = answered(init, {"Model (it": str(model), "How answers": "short; no emoji"})
    assert len(asked) <= 6
    init.send("n" + ENTER)
    assert init.end() == 0
    assert "`dps-local chat` begins a chat with these settings" in init.text
    assert json.loads((settings.parent / "me.json").read_text())["preferences"] == ["short", "no emoji"]


def test_what_was_answered_is_not_asked_again(screen: Start, model: Path, settings: Path) -> None:
    first = screen("init", columns=160)
    assert answered(first, {"Model (it": str(model)}, until="Your sent mail") == [*QUESTIONS[:3]]
    first.send(CTRL_C)
    assert first.end() == 1
    assert list(read(settings)) == ["model"]
    (settings.parent / "me.json").write_text('{"preferences": ["short"]}')
    second = screen("init", columns=160)
    asked = answered(second, {})
    assert set(asked) <= {"Keep conversations", "Begin to chat?"}
    second.send(CTRL_D)
    assert second.end() == 1
    assert read(settings)["profile"] == str(settings.parent / "me.json")


def test_a_model_that_is_not_there_is_asked_for_again(screen: Start, model: Path, settings: Path) -> None:
    init = screen("init", columns=160)
    init.until_shown("or the path of a GGUF [smollm2-135m]:")
    init.send("/nowhere.gguf" + ENTER)
    init.until_shown("error: '/nowhere.gguf' is neither a file nor a known model")
    init.send(str(model) + ENTER)
    init.until_shown("Your name")
    assert read(settings) == {"model": str(model)}


def test_an_import_that_fails_says_how_to_go_on(screen: Start, model: Path, settings: Path) -> None:
    init = screen("init", columns=240)
    answered(init, {"Model (it": str(model)}, until="Your sent mail")
    init.send("/nowhere.mbox" + ENTER)
    assert init.end() == 1
    assert f"once `dps-local profile import /nowhere.mbox -o {settings.parent / 'me.json'}` works" in init.text
    assert not (settings.parent / "me.json").exists()


def test_without_a_person_it_says_what_to_run(program: Program) -> None:
    line = program.fails("init")
    assert line.startswith("error: init asks questions, and nobody can answer here: run `dps-local models pull`")
