"""A file in the user's editor, which is a script here: replaced by what is valid alone, and no edit is lost."""

from __future__ import annotations

import io
import os
import shlex
import sys
from pathlib import Path

import pytest
import typer

from dps_local.cli.editing import edit_file
from dps_local.errors import ProfileError, SettingsError, StorageError
from dps_local.prompting.profile import parse_profile

BEFORE = '{"preferences": ["short"]}\n'
AFTER = '{"preferences": ["blunt ✓"]}\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "me.json"
    path.write_text(BEFORE, encoding="utf-8")
    return path


def editor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, variable: str = "EDITOR") -> None:
    """Let an editor run `script`, to which `file` is the path of what is to be edited."""
    program = tmp_path / f"{variable}.py"
    program.write_text(f"import os, sys\nfrom pathlib import Path\nfile = Path(sys.argv[1])\n{script}", "utf-8")
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv(variable, shlex.join([sys.executable, str(program)]))


def writing(text: str) -> str:
    return f"file.write_text({text!r}, 'utf-8')"


def copies(file: Path) -> list[Path]:
    return list(file.parent.glob(".dps-edit-*/*"))


def test_what_was_saved_replaces_the_file(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    editor(monkeypatch, tmp_path, writing(AFTER))
    assert edit_file(file, parse_profile)
    assert file.read_text("utf-8") == AFTER
    assert list(tmp_path.iterdir()) == [tmp_path / "me.json", tmp_path / "EDITOR.py"]


@pytest.mark.skipif(os.name == "nt", reason="has no such modes")
def test_the_copy_and_the_file_are_for_the_owner_alone(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = tmp_path / "modes"
    modes = "' '.join(f'{path.stat().st_mode & 0o777:o}' for path in (file, file.parent))"
    editor(monkeypatch, tmp_path, f"Path({str(said)!r}).write_text({modes})\n{writing(AFTER)}")
    file.chmod(0o644)
    edit_file(file, parse_profile)
    assert said.read_text() == "600 700"
    assert file.stat().st_mode & 0o777 == 0o600


def test_visual_comes_before_editor(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    editor(monkeypatch, tmp_path, writing("never"))
    editor(monkeypatch, tmp_path, writing(AFTER), "VISUAL")
    assert edit_file(file, parse_profile)
    assert file.read_text("utf-8") == AFTER


def test_a_file_that_was_not_changed_stays(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("not JSON")  # nothing is asked of what was wrong before
    editor(monkeypatch, tmp_path, "pass")
    assert not edit_file(file, parse_profile)
    assert file.read_text() == "not JSON"
    assert copies(file) == []


def test_a_wrong_edit_is_edited_again(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text('{"preferences": [\n"x"]}  ')
    twice = f"old = file.read_text()\n{writing(AFTER)} if '?' in old else file.write_text(old + '?')"
    editor(monkeypatch, tmp_path, twice)
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    assert edit_file(file, parse_profile)
    assert file.read_text("utf-8") == AFTER
    said = capsys.readouterr().err
    assert "error: line 2: not valid JSON: Extra data" in said
    assert "Edit it again? [Y/n]" in said


@pytest.mark.parametrize(("answer", "raised"), [("n\n", typer.Exit), ("", typer.Abort)])
def test_a_wrong_edit_that_is_given_up_is_kept(
    answer: str,
    raised: type[Exception],
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    editor(monkeypatch, tmp_path, writing('{"preferences": []}'))
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    with pytest.raises(raised):
        edit_file(file, parse_profile)
    assert file.read_text() == BEFORE
    (copy,) = copies(file)
    assert copy.read_text() == '{"preferences": []}'
    assert f"your edit is kept in {copy}\n" in capsys.readouterr().err


def test_an_edit_is_kept_when_the_file_was_changed_meanwhile(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor(monkeypatch, tmp_path, f"Path({str(file)!r}).write_text('[]')\n{writing(AFTER)}")
    with pytest.raises(StorageError, match="was changed by another program meanwhile"):
        edit_file(file, parse_profile)
    assert file.read_text() == "[]"
    assert [copy.read_text("utf-8") for copy in copies(file)] == [AFTER]


def test_an_edit_is_kept_when_the_editor_fails(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    editor(monkeypatch, tmp_path, f"{writing(AFTER)}\nsys.exit(3)")
    with pytest.raises(SettingsError, match="ended with exit code 3"):
        edit_file(file, parse_profile)
    assert file.read_text() == BEFORE
    assert [copy.read_text("utf-8") for copy in copies(file)] == [AFTER]


@pytest.mark.parametrize("name", ["no-such-editor-here", "'", "  "])
def test_an_editor_that_cannot_be_run_is_named(name: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISUAL", name)
    with pytest.raises(SettingsError, match=r"cannot run the editor .*: set EDITOR"):
        edit_file(file, parse_profile)
    assert file.read_text() == BEFORE
    assert list(file.parent.glob(".dps-edit-*")) == []


def test_text_that_is_not_utf_8_is_not_taken(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    editor(monkeypatch, tmp_path, 'file.write_bytes(b\'{"preferences": ["\\xfc"]}\')')
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    with pytest.raises(typer.Exit):
        edit_file(file, parse_profile)
    assert "not UTF-8 text (byte 18): save it as UTF-8" in capsys.readouterr().err
    assert file.read_text() == BEFORE


@pytest.mark.skipif(os.name == "nt", reason="has no links that anyone may make")
def test_a_link_stays_a_link(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(file)
    editor(monkeypatch, tmp_path, writing(AFTER))
    assert edit_file(link, parse_profile)
    assert link.is_symlink()
    assert file.read_text("utf-8") == AFTER


def test_what_breaks_in_the_middle_keeps_the_edit(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(text: str) -> None:
        raise KeyboardInterrupt if text == AFTER else ProfileError("no")

    editor(monkeypatch, tmp_path, writing(AFTER))
    with pytest.raises(KeyboardInterrupt):
        edit_file(file, broken)
    assert [copy.read_text("utf-8") for copy in copies(file)] == [AFTER]
