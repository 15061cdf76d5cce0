"""/keep, /reject, /edit and /pick: what a person says of answers in a chat, and what their profile has of it then."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from program import PROFILE, QUICK, Inside, Program
from screen import ENTER, Screen

from dps_local.cli.terminal import without_controls

GREEDY = ["-n", "6", "--temp", "0", "-t", "1"]
Start = Callable[..., Screen]


def kept(profile: Path) -> list[dict[str, str]]:
    """Return what came to a profile."""
    history: list[dict[str, str]] = json.loads(profile.read_text())["history"]
    assert history[: len(PROFILE["history"])] == PROFILE["history"]
    return history[len(PROFILE["history"]) :]


def undated(items: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return items without their dates, and texts as a terminal shows them: this model writes control characters."""
    return [{key: without_controls(value) for key, value in item.items() if key != "date"} for item in items]


@pytest.fixture
def editor(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """`editor("text")`: the environment in which the editor makes this of whatever it is given."""

    def make(script: str) -> dict[str, str]:
        program = tmp_path / "editor.py"
        program.write_text(f"import sys\nfrom pathlib import Path\nfile = Path(sys.argv[1])\n{script}", "utf-8")
        return {"EDITOR": shlex.join([sys.executable, str(program)]), "VISUAL": ""}

    return make


@pytest.fixture
def chat(inside: Inside, model: Path, profile: Path, steering_map: Path) -> Callable[..., Any]:
    """`chat(lines…)` on a pipe: returns the answers, and what was said of them, without what steers."""

    def run(*lines: str, more: tuple[str, ...] = ()) -> tuple[list[str], list[str]]:
        arguments = ["-p", profile, "--map", steering_map, *QUICK, *GREEDY, "--no-save", "--gamma", "3", *more]
        result = inside("chat", "-m", model, *arguments, stdin="\n".join(lines))
        said = result.stderr.splitlines()
        start = next(i for i, line in enumerate(said) if "steering with" in line) + 1
        return result.stdout.splitlines(), [line for line in said[start:] if line != "[-n reached]"]

    return run


def test_an_answer_that_is_kept_is_an_item_of_the_profile(chat: Callable[..., Any], profile: Path) -> None:
    (answer,), said = chat("Where is it?", "/keep", "/keep")
    assert undated(kept(profile)) == [
        {"input": "Where is it?", "output": answer.strip(), "source": "chat", "kind": "kept"}
    ]
    assert said == [f"kept: {profile}; this chat goes on as it began", f"{profile} has it already"]


def test_a_rejected_answer_waits_for_a_better_one_to_the_same_question(chat: Callable[..., Any], profile: Path) -> None:
    answers, said = chat("Where?", "/reject", "/gamma 0", "/regen", "/keep", "And when?", "/keep")
    bad, good, other = (answer.strip() for answer in answers)
    assert bad != good
    assert undated(kept(profile)) == [
        {"input": "Where?", "output": good, "rejected": bad, "source": "chat", "kind": "kept"},
        {"input": "And when?", "output": other, "source": "chat", "kind": "kept"},
    ]
    assert said[0] == "rejected: /edit it, or /regen and /keep a better one, and your profile has both"
    assert f"kept, and preferred to the other answer: {profile}; this chat goes on as it began" in said


def test_a_rejected_answer_that_is_kept_after_all_is_no_pair(chat: Callable[..., Any], profile: Path) -> None:
    chat("Where?", "/reject", "/keep")
    assert "rejected" not in kept(profile)[0]


def test_a_rejection_alone_writes_nothing_and_ends_with_the_conversation(
    chat: Callable[..., Any], profile: Path
) -> None:
    before = profile.read_bytes()
    chat("Where?", "/reject")
    assert profile.read_bytes() == before
    for end in ("/clear", "/forget"):
        chat("Where?", "/reject", end, "/gamma 0", "Where?", "/keep")
    assert ["rejected" in item for item in kept(profile)] == [False] * len(kept(profile))


@pytest.mark.parametrize(("name", "picked"), [("plain", 0), ("steered", 1)])
def test_of_two_answers_the_picked_one_is_kept_and_the_other_rejected(
    chat: Callable[..., Any], profile: Path, name: str, picked: int
) -> None:
    answers, _ = chat("/compare on", "Where?", f"/pick {name}")
    shown = [answer.removeprefix("plain").removeprefix("steered").strip() for answer in answers]
    assert len(set(shown)) == 2
    assert undated(kept(profile)) == [
        {"input": "Where?", "output": shown[picked], "rejected": shown[1 - picked], "source": "chat", "kind": "kept"}
    ]


def test_what_cannot_be_kept_is_said_in_a_line(chat: Callable[..., Any]) -> None:
    _, said = chat(
        "/keep", "/pick plain", "Where?", "/pick both", "/pick plain", "/compare on", "So?", "/regen", "/pick plain"
    )
    assert said == [
        "error: there is no answer yet",
        "error: there is no answer yet",
        "error: /pick takes plain or steered",
        "error: there is nothing to pick: after /compare on, each question has two answers",
        "error: there is nothing to pick: after /compare on, each question has two answers",
    ]


def test_a_profile_that_was_broken_or_deleted_meanwhile_is_said(screen: Start, model: Path, profile: Path) -> None:
    chat = screen("chat", "-m", model, "-p", profile, *QUICK, *GREEDY, columns=200)
    chat.ask("Where is it?")
    profile.write_text("{")
    assert f"error: {profile}: line 1: not valid JSON" in chat.ask("/keep")
    assert profile.read_text() == "{"
    profile.unlink()
    assert f"error: cannot write {profile}: No such file or directory" in chat.ask("/keep")
    assert not profile.exists()


def test_without_a_profile_of_ones_own_nothing_can_be_kept(inside: Program, model: Path) -> None:
    line = inside("chat", "-m", model, "-c", "512", *GREEDY, "--no-save", stdin="Where?\n/keep\n").stderr.splitlines()[
        -1
    ]
    assert line == "error: answers are kept in a profile, and this chat has none: give a --profile"
    shipped = inside(
        "chat", "-m", model, "-p", "mara", *QUICK, *GREEDY, "--mode", "cad", "--no-save", stdin="Hi?\n/keep\n"
    )
    assert shipped.stderr.splitlines()[-1] == (
        "error: mara is an example that ships: `dps-local profile merge mara -o FILE` copies it"
    )


def test_an_edited_answer_is_the_persons_and_the_models_is_rejected(
    screen: Start, model: Path, profile: Path, editor: Callable[[str], dict[str, str]]
) -> None:
    edit = editor("file.write_text('Aye, ' + file.read_text('utf-8') + ' by gum ✓\\n', 'utf-8')")
    chat = screen("chat", "-m", model, "-p", profile, *QUICK, *GREEDY, "--markdown", "never", columns=200, **edit)
    answer = chat.ask("Where is it?").splitlines()[1].strip()
    assert f"edited, and preferred to the other answer: {profile}" in chat.ask("/edit")
    assert undated(kept(profile)) == [
        {
            "input": "Where is it?",
            "output": f"Aye, {answer} by gum ✓",
            "rejected": answer,
            "source": "chat",
            "kind": "edited",
        }
    ]
    assert "there is no command" not in chat.ask("/help")
    for command in ("/keep", "/reject", "/edit", "/pick"):
        assert command in chat.text


@pytest.mark.parametrize(
    ("script", "said"),
    [("file.write_text(file.read_text() + '\\n\\n')", "as it was"), ("file.write_text(' ')", "empty")],
)
def test_what_was_not_edited_is_not_kept(
    chat: Callable[..., Any],
    profile: Path,
    editor: Callable[[str], dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    said: str,
) -> None:
    for name, value in editor(script).items():
        monkeypatch.setenv(name, value)
    before = profile.read_bytes()
    assert chat("Where?", "/edit")[1] == [f"nothing is kept: the answer is {said}"]
    assert profile.read_bytes() == before


def test_two_chats_keep_at_once(screen: Start, model: Path, profile: Path) -> None:
    chats = [screen("chat", "-m", model, "-p", profile, *QUICK, *GREEDY, columns=200) for _ in range(2)]
    for n in range(3):
        for i, chat in enumerate(chats):
            chat.ask(f"Question {n} of {i}?")
        for chat in chats:
            chat.send("/keep" + ENTER)
        for chat in chats:
            chat.until(lambda chat=chat, n=n: chat.text.count(f"kept: {profile}") > n)  # type: ignore[misc]
    assert sorted(item["input"] for item in kept(profile)) == sorted(
        f"Question {n} of {i}?" for n in range(3) for i in (0, 1)
    )
