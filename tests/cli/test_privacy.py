"""`dps-local privacy`: what the program has of a person, and that nothing of it is left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from program import PROFILE, QUICK, Inside, Program

from dps_local.privacy import private_files
from dps_local.prompting.profile import Profile

WORD = "Ankerwickelmaschine"  # that stands in this profile, and nowhere else on this disk
GRACE = PROFILE | {
    "name": f"Grace {WORD}",
    "preferences": ["in the words of a sailor, always, and of nobody else"],
    "history": [{"input": f"say {i}", "output": f"Aye {i}, by the {WORD}, so be it."} for i in range(6)],
}
SCORE = [*QUICK[:-4], "--profile-tokens", "200", "-c", "768", "--threads", "1"]
CHAT = [*SCORE, "-n", "4", "--temp", "0"]


@pytest.fixture
def program(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> Program:
    for key, value in inside.environment.items():
        monkeypatch.setenv(key, value)
    return inside


@pytest.fixture
def folders(program: Program) -> list[Path]:
    return [Path(program.environment[f"DPS_LOCAL_{name}"]) for name in ("CACHE", "DATA", "STATE")]


@pytest.fixture
def grace(tmp_path: Path) -> Path:
    path = tmp_path / "own" / "grace.json"
    path.parent.mkdir()
    path.write_text(json.dumps(GRACE))
    return path


def files(folders: list[Path]) -> set[Path]:
    return {path for folder in folders for path in folder.rglob("*") if path.is_file()}


def holding(word: str, folders: list[Path]) -> list[Path]:
    return [path for path in files(folders) if word.encode() in path.read_bytes()]


def use(program: Program, model: Path, profile: Path, question: str) -> None:
    """Score a profile, and chat; all kinds of files come of it."""
    assert program("score", "-m", model, "-p", profile, *SCORE).returncode == 0
    assert program("chat", "-m", model, "-p", profile, *CHAT, stdin=f"{question}\n").returncode == 0


def typed(folders: list[Path], line: str) -> Path:
    folders[2].mkdir(mode=0o700, exist_ok=True)
    history = folders[2] / "history"
    history.write_text(f"# 2026-11-27\n+{line}\n")
    history.chmod(0o600)
    return history


def test_every_file_of_a_person_is_listed(
    program: Program, model: Path, grace: Path, folders: list[Path], tmp_path: Path
) -> None:
    config = Path(program.environment["DPS_LOCAL_CONFIG"])
    assert json.loads(program("privacy", "--json").stdout) == []
    use(program, model, grace, "Where?")
    typed(folders, "Where?")
    (folders[1] / "drafts.json").write_text("{}")
    config.parent.mkdir()
    for name in ("config.toml", "me.json", "of-another-program.json"):
        config.with_name(name).touch(0o600)
    (tmp_path / "cache" / "models").mkdir(exist_ok=True)
    (tmp_path / "cache" / "models" / "tiny.gguf").touch()  # of no person
    listed = json.loads(program("privacy", "--json").stdout)
    found = {Path(file["path"]): file for file in listed}
    own = files(folders) - {tmp_path / "cache" / "models" / "tiny.gguf"}
    assert set(found) == own | {config, config.with_name("me.json")}
    kinds = {file["kind"] for file in listed}
    assert kinds >= {
        "head map",
        "scores",
        "slopes",
        "prefix state",
        "conversations",
        "input history",
        "profile",
        "settings",
    }
    for path, file in found.items():
        assert file["bytes"] == path.stat().st_size
        assert file["mode"] == ("0644" if path.name == "drafts.json" else "0600"), path
    table = program("privacy").stdout
    assert f"{tmp_path / 'data' / 'conversations.db'}" in table
    assert len(table.splitlines()) == len(listed) + 1


def test_nothing_of_a_wiped_profile_is_left_and_all_of_another_stays(
    program: Program, model: Path, grace: Path, profile: Path, folders: list[Path]
) -> None:
    use(program, model, profile, "Who is there?")
    before = files(folders)
    use(program, model, grace, f"Who knows of the {WORD}?")
    typed(folders, f"Who knows of the {WORD}?")
    assert holding(WORD, folders) != []
    made = files(folders) - before
    assert {path.parent.name for path in made} == {"maps", "scores", "prefixes", "owners", "state"}
    assert program("privacy", "wipe", "-p", grace, stdin="n\n").returncode == 1
    assert made < files(folders)
    asked = program("privacy", "wipe", "-p", grace, stdin="y\n")
    assert f"Who knows of the {WORD}?" in asked.stdout
    assert f"and 1 conversation; the profile itself stays: {grace}" in asked.stderr
    assert holding(WORD, folders) == []
    assert files(folders) == before
    listed = json.loads(program("conversations", "list", "--json").stdout)
    assert [conversation["title"] for conversation in listed] == ["Who is there?"]
    assert "nothing of this profile" in program("privacy", "wipe", "-p", grace, "--yes").stderr
    assert json.loads(grace.read_text()) == GRACE


def test_an_edited_and_a_moved_profile_are_known_by_all_that_was_made_of_them(
    program: Program, model: Path, grace: Path, folders: list[Path]
) -> None:
    use(program, model, grace, "Where?")
    grace.write_text(json.dumps(GRACE | {"name": "Grace"}))
    use(program, model, grace, "Where?")
    moved = grace.rename(grace.with_name("moved.json"))
    assert program("chat", "-m", model, "-p", moved, *CHAT, stdin="So?\n").returncode == 0
    assert program("privacy", "wipe", "-p", grace, "--yes").returncode == 0  # by the name it had
    assert program("privacy", "wipe", "-p", moved, "--yes").returncode == 0
    assert files(folders) == {folders[1] / "conversations.db"}
    assert "no profile" in program.fails("privacy", "wipe", "-p", grace, "--yes")


def test_a_profile_in_a_folder_of_the_program_goes_too(
    program: Program, model: Path, folders: list[Path], grace: Path
) -> None:
    folders[1].mkdir()
    kept = grace.rename(folders[1] / "grace.json")
    assert program("chat", "-m", model, "-p", kept, *CHAT, "--no-save", stdin="Where?\n").returncode == 0
    assert program("privacy", "wipe", "-p", kept, "--yes").returncode == 0
    assert files(folders) == set()


def test_a_list_that_was_cut_or_written_by_others_names_no_other_files(
    program: Program, model: Path, grace: Path, folders: list[Path], tmp_path: Path
) -> None:
    use(program, model, grace, "Where?")
    (tmp_path / "precious.txt").touch()
    owned = Profile.load(grace).cached
    known = owned.files()
    with owned.path.open("a") as stream:
        stream.write("../precious.txt\nmaps/../../precious.txt\n/etc/passwd\nmaps/0123\nscores/ab")
    assert owned.files() == known
    owned.note([folders[0] / "maps" / f"{'0' * 32}.dps.gguf"])
    assert len(owned.files()) == len(known) + 1
    program("privacy", "wipe", "-p", grace, "--yes")
    assert (tmp_path / "precious.txt").exists()


def test_a_cache_that_cannot_be_written_to_is_read_all_the_same(grace: Path, folders: list[Path]) -> None:
    folders[0].mkdir()
    (folders[0] / "owners").write_text("no folder")
    Profile.load(grace).cached.note([folders[0] / "maps" / "x"])
    assert [file.path.name for file in private_files()] == []
