"""`dps-local profile show`, `check`, `merge` and `edit`."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from program import Program
from typer.testing import CliRunner, Result

from dps_local.cli.app import app
from dps_local.errors import ProfileError
from dps_local.prompting.profile import Profile
from dps_local.prompting.profile_summary import language_identifier

MAIL = {
    "name": "Ada",
    "history": [
        {"output": "No need to rush, love.", "source": "sent.mbox", "date": "2024-05-31"},
        {"output": "Certainly! Here you are.", "source": "chat", "date": "2024-06-02", "kind": "kept"},
    ],
}
CHAT = {
    "history": [
        {"input": "When?", "output": "Tea's on at six.", "date": "2024-06-01"},
        {"output": "No need  to rush, love."},
    ]
}


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    for name, profile in (("mail", MAIL), ("chat", CHAT)):
        (tmp_path / f"{name}.json").write_text(json.dumps(profile, indent=1))
    return tmp_path / "mail.json", tmp_path / "chat.json"


def run(*arguments: object, stdin: str = "") -> Result:
    return CliRunner().invoke(app, ["profile", *map(str, arguments)], input=stdin)


def json_of(*arguments: object) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


# --- show


def test_show_tells_what_a_profile_holds(files: tuple[Path, Path]) -> None:
    assert json_of("show", files[0]) == {
        "name": "Ada",
        "items": 2,
        "kinds": {"wrote": 1, "edited": 0, "kept": 1},
        "words": 5,
        "tokens": None,
        "model": None,
        "with_input": 0,
        "with_rejected": 0,
        "preferences": 0,
        "dated": 2,
        "first": "2024-05-31",
        "last": "2024-06-02",
        "sources": {"sent.mbox": 1, "chat": 1},
        "languages": {"en": 1},
    }
    lines = [" ".join(line.split()) for line in run("show", files[0]).stdout.splitlines()]
    assert lines[1:] == [
        "name Ada",
        "history 2 items: 1 wrote, 1 kept",
        "of your own 5 words",
        "time 2024-05-31 to 2024-06-02 (2 items)",
        "sources sent.mbox 1, chat 1",
        "languages en 1",
    ]


def test_show_counts_the_tokens_of_your_own_words(files: tuple[Path, Path], model: Path) -> None:
    shown = json_of("show", files[0], "-m", model)
    assert shown["model"] == "Tiny"
    assert shown["tokens"] == 22  # the tiny vocabulary has a token for each of these letters
    assert "5 words, 22 tokens" in run("show", files[0], "-m", model).stdout


def test_without_the_extra_show_says_what_to_install(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "py3langid", None)
    assert language_identifier() is None
    assert "pip install 'dps-local[import]'" in run("show", files[0]).stdout
    assert json_of("show", files[0])["languages"] is None


def test_many_sources_are_shown_in_part(tmp_path: Path) -> None:
    history = [{"output": "So it is.", "source": f"s{i}"} for i in range(9)]
    (tmp_path / "x.json").write_text(json.dumps({"history": history}))
    assert "s0 1, s1 1, s2 1, s3 1, s4 1 and 4 more" in run("show", tmp_path / "x.json").stdout


# --- check


def test_check_warns_and_is_content(files: tuple[Path, Path]) -> None:
    result = run("check", files[1])
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "line 2: history has 2 texts of your own: it takes 6 to find out whether steering helps",
        f"{files[1]} is valid: 2 items, 1 warning",
    ]
    assert json_of("check", files[1]) == {
        "path": str(files[1]),
        "items": 2,
        "warnings": [
            {
                "line": 2,
                "field": "history",
                "problem": "has 2 texts of your own: it takes 6 to find out whether steering helps",
            }
        ],
    }
    assert json_of("check", "mara")["warnings"] == []


def test_check_fails_where_the_contract_is_broken(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"history": [\n{"output": "x", "date": "yesterday"}]}')
    said = f"error: {path}: line 2: history[0].date is not a date of ISO 8601"
    assert program.fails("profile", "check", path).startswith(said)
    assert program.fails("profile", "check", path, "--json").startswith(said)


# --- merge


def test_merge_makes_one_of_several(files: tuple[Path, Path], tmp_path: Path) -> None:
    output = tmp_path / "both.json"
    assert json_of("merge", *files, "-o", output) == {"items": 3, "duplicates": 1, "output": str(output)}
    assert json.loads(output.read_text()) == {
        "name": "Ada",
        "history": [
            {"output": "No need to rush, love.", "source": "sent.mbox", "date": "2024-05-31"},
            {"input": "When?", "output": "Tea's on at six.", "date": "2024-06-01"},
            {"output": "Certainly! Here you are.", "source": "chat", "date": "2024-06-02", "kind": "kept"},
        ],
    }
    if os.name != "nt":
        assert stat.S_IMODE(output.stat().st_mode) == 0o600


def test_merge_asks_before_it_overwrites(files: tuple[Path, Path]) -> None:
    before = files[0].read_text()
    for stdin in ("n\n", "\n", ""):
        result = run("merge", *files, "-o", files[0], stdin=stdin)
        assert result.exit_code == 1
        assert f"{files[0]} exists. Overwrite it? [y/N]" in " ".join(result.stderr.split("\n"))
        assert files[0].read_text() == before
    assert run("merge", *files, "-o", files[0], stdin="y\n").exit_code == 0
    assert len(Profile.load(files[0]).history) == 3
    assert run("merge", *files, "-o", files[0], "--yes").exit_code == 0


def test_merge_writes_nothing_when_one_is_wrong(files: tuple[Path, Path], tmp_path: Path) -> None:
    files[1].write_text("[]")
    result = run("merge", *files, "-o", tmp_path / "both.json")
    assert isinstance(result.exception, ProfileError)
    assert not (tmp_path / "both.json").exists()


# --- edit


def test_edit_replaces_a_profile_by_what_was_saved(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "editor.py"
    change = "file.write_text(file.read_text().replace('Ada', 'Eve'))"
    script.write_text(f"import sys\nfrom pathlib import Path\nfile = Path(sys.argv[1])\n{change}")
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f"{sys.executable} {script}")
    result = run("edit", files[0])
    assert (result.exit_code, result.stderr) == (0, f"wrote {files[0]}\n")
    assert Profile.load(files[0]).name == "Eve"
    assert run("edit", files[0]).stderr == f"{files[0]} is as it was\n"


def test_what_ships_is_not_edited(program: Program) -> None:
    said = program.fails("profile", "edit", "mara")
    assert said == "error: mara is an example that ships: `dps-local profile merge mara -o FILE` copies it"
    assert "no profile 'nobody'" in program.fails("profile", "edit", "nobody")
