"""What a person kept of answers: in their profile's file, whoever else writes to it, and as data to train with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

import dps_local
from dps_local.errors import ProfileError
from dps_local.prompting.feedback import (
    add_feedback,
    feedback_item,
    feedback_of,
    labelled_answers,
    preference_pairs,
    remove_feedback,
)
from dps_local.prompting.profile import HistoryItem, Profile

LOCKS = pytest.mark.skipif(sys.platform == "win32", reason="files have no locks there")
OWN = HistoryItem("Aye, by gum.", "well?", source="mail")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "me.json"
    path.write_text(json.dumps({"name": "Ada", "about": "a sailor", "history": [OWN.as_json()]}))
    return path


def adding(file: Path, question: str, n: int) -> subprocess.Popen[bytes]:
    """Start a program that adds n answers to a question."""
    script = (
        "import sys; from dps_local.prompting.feedback import add_feedback, feedback_item\n"
        f"for i in range({n}): add_feedback(sys.argv[1], feedback_item({question!r}, f'answer {{i}}'))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(dps_local.__file__).parent.parent)}
    return subprocess.Popen([sys.executable, "-P", "-c", script, str(file)], env=environment)


def test_an_item_goes_to_the_end_and_the_rest_stays(file: Path) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    assert add_feedback(file, feedback_item("Say it?", "It.", "Nothing.", "edited"))
    *rest, added = json.loads(file.read_text())["history"]
    assert rest == [{"input": "well?", "output": "Aye, by gum.", "source": "mail"}]
    assert before <= datetime.fromisoformat(added.pop("date")) <= datetime.now(UTC)
    assert added == {"input": "Say it?", "output": "It.", "rejected": "Nothing.", "source": "chat", "kind": "edited"}
    assert (Profile.load(file).name, Profile.load(file).about) == ("Ada", "a sailor")


def test_an_item_is_added_once(file: Path) -> None:
    assert add_feedback(file, HistoryItem("It.", "Say it?", "", "chat", "2026-01-01", "kept"))
    before = file.read_bytes()
    assert not add_feedback(file, feedback_item("Say it?", "It."))
    assert file.read_bytes() == before
    assert add_feedback(file, feedback_item("Say it?", "It.", "Nothing."))  # which says more


def test_an_answer_is_not_preferred_to_itself() -> None:
    assert feedback_item("Say it?", "It.", "It.").rejected == ""


@pytest.mark.skipif(os.name == "nt", reason="has no such modes and links")
def test_the_file_is_for_its_owner_alone_and_a_link_stays_one(file: Path, tmp_path: Path) -> None:
    file.chmod(0o644)
    link = tmp_path / "link.json"
    link.symlink_to(file)
    profile = Profile.load(link)
    add_feedback(profile.own_file, feedback_item("Say it?", "It."))
    assert link.is_symlink()
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(Profile.load(link).history) == 2


def test_of_items_that_are_the_same_one_is_removed(file: Path) -> None:
    item = HistoryItem("It.", "Say it?", "", "chat", "2026-01-01", "kept")
    Profile(history=(OWN, item, item)).save(file)
    remove_feedback(file, [item])
    assert Profile.load(file).history == (OWN, item)
    remove_feedback(file, [feedback_item("gone", "long ago")])
    assert Profile.load(file).history == (OWN, item)


def test_a_profile_that_would_be_empty_stays(file: Path) -> None:
    item = feedback_item("Say it?", "It.")
    Profile(history=(item,)).save(file)
    with pytest.raises(ProfileError, match="would be empty"):
        remove_feedback(file, [item])
    assert Profile.load(file).history == (item,)


def test_a_file_that_is_broken_meanwhile_is_left_alone(file: Path) -> None:
    file.write_text("{")
    with pytest.raises(ProfileError, match="not valid JSON"):
        add_feedback(file, feedback_item("Say it?", "It."))
    assert file.read_text() == "{"


@LOCKS
def test_programs_that_add_at_once_lose_no_item(file: Path) -> None:
    programs = [adding(file, f"{name}?", 25) for name in range(4)]
    assert [program.wait() for program in programs] == [0] * 4
    kept = [(item.input, item.output) for item in feedback_of(Profile.load(file))]
    assert sorted(kept) == sorted((f"{name}?", f"answer {i}") for name in range(4) for i in range(25))
    assert all([one for who, one in kept if who == f"{n}?"] == [f"answer {i}" for i in range(25)] for n in range(4))


@LOCKS
@pytest.mark.parametrize("kills", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_a_program_that_is_killed_while_it_adds_leaves_the_profile_whole(file: Path, kills: int) -> None:
    for kill in range(kills):
        before = len(Profile.load(file).history)
        with adding(file, f"{kill}?", 10**6) as program:
            while len(Profile.load(file).history) <= before + 1:  # whole whenever it is read
                time.sleep(0.001)
            time.sleep(0.0007 * (kill % 20))
            program.kill()
        assert len(Profile.load(file).history) > before
        assert add_feedback(file, feedback_item("after?", str(kill)))  # no lock is left, and no unfinished file
        assert [path.name for path in file.parent.iterdir()] == [file.name]


PAIR = HistoryItem("Aye.", "Say it?", "It is said: yes.", "chat", "2026-01-01", "edited")
ALONE = HistoryItem("Ten.", "How many?", "", "chat", "2026-01-02", "kept")


def test_preference_pairs_are_messages() -> None:
    assert list(preference_pairs([PAIR, ALONE])) == [
        {
            "prompt": [{"role": "user", "content": "Say it?"}],
            "chosen": [{"role": "assistant", "content": "Aye."}],
            "rejected": [{"role": "assistant", "content": "It is said: yes."}],
        }
    ]


def test_each_answer_has_a_label() -> None:
    assert list(labelled_answers([PAIR, ALONE])) == [
        {
            "prompt": [{"role": "user", "content": "Say it?"}],
            "completion": [{"role": "assistant", "content": "Aye."}],
            "label": True,
        },
        {
            "prompt": [{"role": "user", "content": "Say it?"}],
            "completion": [{"role": "assistant", "content": "It is said: yes."}],
            "label": False,
        },
        {
            "prompt": [{"role": "user", "content": "How many?"}],
            "completion": [{"role": "assistant", "content": "Ten."}],
            "label": True,
        },
    ]
