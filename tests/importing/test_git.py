from __future__ import annotations

import io
import os
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import pytest
from exports import folder, git, repository
from hypothesis import given, settings
from hypothesis import strategies as st

from dps_local.errors import DataError, MissingPackageError
from dps_local.importing.git import Git, parse_log
from dps_local.importing.writing import Writing

AT = "2024-02-13T08:00:00+01:00"


def read(source: Path, me: str = "mara@harbour.example") -> tuple[list[str], Counter[str]]:
    dropped = Counter[str]()
    return [item.text for item in Git().read(source, [me], dropped)], dropped


def test_own_commits_are_found_by_address_or_name(tmp_path: Path) -> None:
    source = repository(tmp_path, "Mend the pump\n\nThe impeller had lost two blades.")
    repository(source, "Add anodes", author="Jan <jan@harbour.example>")
    expected = [Writing("Mend the pump\n\nThe impeller had lost two blades.", "", AT, "git")]
    for me in ("MARA@harbour.example", "mara"):
        assert list(Git().read(source, [me], Counter())) == expected
    assert Git().authors(source) == {"mara@harbour.example": 1, "jan@harbour.example": 1}


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("One\n\nTwo.\n\nSigned-off-by: M <m@x.example>\nCo-authored-by: Jan <j@x.example>\n", "One\n\nTwo."),
        ("One\n\nChange-Id: I0123\n", "One"),
        (
            "One\n\nNote: this stays, as more follows\nin the paragraph.\n",
            "One\n\nNote: this stays, as more follows\nin the paragraph.",
        ),
        ("fix: one\n", "fix: one"),
        ("Ünï 🛶\n\n- a\n- b\n", "Ünï 🛶\n\n- a\n- b"),
        (
            'Revert "Two"\n\nThis reverts commit 0123456789abcdef0123456789abcdef01234567.\n\nIt broke the lock.\n',
            "It broke the lock.",
        ),
        ("Pair\n\nCo-authored-by: Claude Dubois <claude@dubois.example>\n", "Pair"),
        ("Pair\n\nCo-authored-by: Jan <noreply@github.com>\n", "Pair"),
        ("Use the cursor of the database\n", "Use the cursor of the database"),
        ("Update the tide table for spring\n", "Update the tide table for spring"),
    ],
)
def test_the_persons_words_are_kept_without_trailers(message: str, text: str, tmp_path: Path) -> None:
    assert read(repository(tmp_path, message)) == ([text], Counter())


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("One\n\nCo-authored-by: Claude <noreply@anthropic.com>\n", "assistant"),
        ("One\n\nCo-Authored-By: Claude Opus 4.5 <someone@x.example>\n", "assistant"),
        ("One\n\nCo-authored-by: Copilot <175728472+Copilot@users.noreply.github.com>\n", "assistant"),
        ("One\n\nCo-authored-by: Cursor <cursoragent@cursor.com>\n", "assistant"),
        ("One\n\nCo-authored-by: aider (gpt-4o) <noreply@aider.chat>\n", "assistant"),
        ("One\n\nCo-authored-by: devin-ai-integration[bot] <1+d[bot]@users.noreply.github.com>\n", "assistant"),
        ("One\n\n🤖 Generated with [Claude Code](https://claude.ai/code)\n", "assistant"),
        ("One\n\nAssisted-by: Claude:claude-opus\n", "assistant"),
        ("fixup! One\n", "automatic"),
        ("Merge branch 'main' into pump\n", "automatic"),
        ("Bump numpy from 1 to 2\n", "automatic"),
        ("Update README.md\n", "automatic"),
        ("Initial commit\n", "automatic"),
        ('Revert "Two"\n\nThis reverts commit 0123456789abcdef0123456789abcdef01234567.\n', "automatic"),
    ],
)
def test_what_the_person_did_not_write_is_counted(message: str, kind: str, tmp_path: Path) -> None:
    assert read(repository(tmp_path, message)) == ([], Counter({kind: 1}))


def test_merges_are_left_out_and_branches_are_not(tmp_path: Path) -> None:
    source = repository(tmp_path, "First words")
    git(source, "checkout", "-q", "-b", "side")
    repository(source, "On the side")
    git(source, "checkout", "-q", "-")
    repository(source, "On the main")
    git(source, "merge", "-q", "--no-ff", "-m", "A merge of mine", "side")
    git(source, "checkout", "-q", "-b", "last")
    repository(source, "Not merged")
    git(source, "checkout", "-q", "-")
    assert sorted(read(source)[0]) == ["First words", "Not merged", "On the main", "On the side"]
    assert read(source, "t@x") == ([], Counter())  # who merged


def test_what_git_words_is_left_out(tmp_path: Path) -> None:
    source = repository(folder(tmp_path, {"a": "1"}), "First words")
    git(source, "add", "a")
    git(source, "stash", "-q")
    git(source, "notes", "add", "-m", "a note")
    assert Git().authors(source) == {"mara@harbour.example": 1}


def test_a_mailmap_joins_the_addresses_of_a_person(tmp_path: Path) -> None:
    source = repository(folder(tmp_path, {".mailmap": "Mara <mara@harbour.example> <m@old.example>\n"}), "One")
    repository(source, "Two", author="M <m@old.example>")
    assert Git().authors(source) == {"mara@harbour.example": 2}


def test_an_empty_repository_has_no_commits(tmp_path: Path) -> None:
    assert read(repository(tmp_path)) == ([], Counter())


def test_another_repository_in_the_environment_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = repository(tmp_path / "other", "Not mine to read")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert read(repository(tmp_path / "own", "My own")) == (["My own"], Counter())


def test_settings_of_a_repository_run_nothing(tmp_path: Path) -> None:
    source, mark = repository(tmp_path / "r", "One"), tmp_path / "ran"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {mark}\n")
    program.chmod(0o755)
    for key in ("core.pager", "core.fsmonitor", "gpg.program", "core.sshCommand", "diff.external", "core.editor"):
        git(source, "config", key, str(program))
    git(source, "config", "log.showSignature", "true")
    assert read(source)[0] == ["One"]
    assert not mark.exists()


def test_a_damaged_repository_is_refused_in_one_line(tmp_path: Path) -> None:
    around = repository(tmp_path, "Around")
    source = folder(around / "inner", {".git/HEAD": "nonsense"})
    with pytest.raises(DataError, match=r"^git cannot read [^\n]*: not a git repository[^\n]*$"):
        read(source)
    broken = repository(tmp_path / "broken", "One", "Two")
    objects = [path for path in (broken / ".git/objects").rglob("*") if path.is_file()]
    for path in objects:
        path.chmod(0o600)
        path.write_bytes(b"x")
    with pytest.raises(DataError, match=r"^git cannot read [^\n]*$"):
        read(broken)


def test_git_that_lacks_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = repository(tmp_path, "One")
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(
        MissingPackageError, match=r"^reading a repository needs git: install it from https://git-scm\.com$"
    ):
        read(source)


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(1, 9))
def test_any_log_is_parsed_or_refused(log: bytes, size: int) -> None:
    class Slow(io.BytesIO):
        def read(self, _: int | None = -1) -> bytes:
            return super().read(size)

    whole = log.rpartition(b"\0")[1] + log.rpartition(b"\0")[2] in (b"", b"\0") and log.count(b"\0") % 5 == 0
    with nullcontext() if whole else pytest.raises(DataError, match=r"^git's log ends within a commit[^\n]*$"):
        assert len(list(parse_log(Slow(log)))) == log.count(b"\0") // 5
