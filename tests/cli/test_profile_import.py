"""`dps-local profile import`: from mail to a profile, as a new user would, and what it refuses in one line."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from letters import MARA, TEXT, TOM, letter, mbox
from program import Program, Terminal
from replies import REPLIES
from secrets_planted import MASKED, SECRETS

from dps_local.cli.app import app
from dps_local.errors import DataError
from dps_local.prompting.profile import Profile

INA = "Ina Roth <ina@roth.example>"
MONTH = "Tue, {} Mar 2025 10:12:00 +0100"
OWN = [name for name in REPLIES if REPLIES[name].own]


def month(*bodies: str) -> list[bytes]:
    return [
        letter(body, subject=f"number {i}", date=MONTH.format(i % 28 + 1), number=i) for i, body in enumerate(bodies)
    ]


@pytest.fixture
def mailbox(tmp_path: Path) -> Path:
    path = tmp_path / "sent.mbox"
    path.write_bytes(mbox(*month(TEXT, REPLIES["an inline reply"].body), letter("Not mine.", sender=INA, to=MARA)))
    return path


def test_mail_becomes_a_profile_that_only_its_owner_reads(program: Program, mailbox: Path, tmp_path: Path) -> None:
    output = tmp_path / "me.json"
    result = program("profile", "import", mailbox, "-o", output, "--yes", "--name", "Mara")
    assert result.returncode == 0, result.stderr
    assert [line.rstrip() for line in result.stdout.splitlines()[:2]] == [
        "source" + " " * (len(str(mailbox)) - 4) + "format  yours  clean  from – to",
        f"{mailbox}  mail    2      2      2025-03-01 – 2025-03-02",
    ]
    lines = result.stderr.splitlines()
    assert lines[0] == f"{mailbox}: mail"
    assert "taking mara@lind.example for you; if that is wrong, say who you are with --me" in lines
    assert lines[-1].startswith(
        f"wrote 2 items to {output}, which only you can read. Secrets, numbers and addresses are"
    )
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    profile = Profile.load(output)
    assert profile.name == "Mara"
    first, second = profile.history
    assert (first.output, first.input, first.source, first.kind) == (TEXT, "number 0", "mail", "wrote")
    assert second.output == REPLIES["an inline reply"].own
    assert second.input == "number 1\n\nIs the pump fixed? And the valve? It dripped again."
    assert second.date == "2025-03-02T10:12:00+01:00"


def test_several_sources_join_and_json_says_what_came_of_them(program: Program, mailbox: Path, tmp_path: Path) -> None:
    (tmp_path / "one.eml").write_bytes(letter("Call 0171 2345678 when you are there.", date=MONTH.format(20)))
    command = ["profile", "import", mailbox, tmp_path / "one.eml", "-o", tmp_path / "me.json", "--json"]
    dry, wet = program(*command, "--dry-run"), program(*command, "--yes", "--limit", "2")
    said = json.loads(dry.stdout)
    assert said == {
        "items": 3,
        "dropped": {"by others": 1},
        "masked": {"phone": 1},
        "output": None,
        "sources": [
            {"source": str(mailbox), "format": "mail", "found": 2, "kept": 2},
            {"source": str(tmp_path / "one.eml"), "format": "mail", "found": 1, "kept": 1},
        ],
    }
    said = json.loads(wet.stdout)
    assert (said["items"], said["output"]) == (2, str(tmp_path / "me.json"))
    assert said["dropped"] == {"by others": 1, "over the limit": 1}
    assert [item.output for item in Profile.load(tmp_path / "me.json").history][
        -1
    ] == "Call [phone] when you are there."


def test_no_planted_secret_comes_out_anywhere(program: Program, tmp_path: Path) -> None:
    planted = [f"Hi Tom,\n\nwrite this down: {secret}\n\nCheers, Mara" for secret in (*SECRETS, *MASKED)]
    quoted = [
        f"Got it, thanks a lot, number {i}.\n\n> it is {secret}\n" for i, secret in enumerate((*SECRETS, *MASKED))
    ]
    source, output = tmp_path / "sent.mbox", tmp_path / "me.json"
    source.write_bytes(mbox(*month(TEXT, *planted, *quoted)))
    for options in (["--json"], []):
        result = program("profile", "import", source, "-o", output, "--yes", *options)
        assert result.returncode == 0, result.stderr
        seen = result.stdout + result.stderr + output.read_text()
        seen += "".join(path.read_text(errors="replace") for path in (tmp_path / "cache").rglob("*") if path.is_file())
        assert [secret for secret in (*SECRETS, *MASKED) if secret in seen] == []
    assert TEXT in output.read_text()


def test_all_replies_come_through_as_they_were_typed(program: Program, tmp_path: Path) -> None:
    source, output = tmp_path / "all.mbox", tmp_path / "me.json"
    source.write_bytes(mbox(*month(*(REPLIES[name].body for name in OWN))))
    assert program("profile", "import", source, "-o", output, "--yes", "--min-words", "1").returncode == 0
    written = {item.output for item in Profile.load(output).history}
    assert written <= {REPLIES[name].own for name in OWN}
    assert len(written) > 30  # the rest are duplicates, or nearly


def test_a_person_is_shown_what_would_be_written_and_asked(
    terminal: Callable[..., Terminal], mailbox: Path, tmp_path: Path
) -> None:
    output = tmp_path / "me.json"
    for answer, written in (("n", False), ("y", True)):
        asked = terminal("profile", "import", mailbox, "-o", output)
        shown = asked.wait_for("with 2 items? [y/N]")
        assert "before" in shown
        assert TEXT in shown
        asked.type(answer)
        assert asked.exit_code() == (not written)
        assert output.exists() == written
    asked = terminal("profile", "import", mailbox, "-o", output)
    asked.wait_for("me.json is there already: overwrite it with 2 items? [y/N]")
    asked.type("n")
    assert asked.exit_code() == 1


def test_an_interrupted_import_leaves_nothing(terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    source, output = tmp_path / "large.mbox", tmp_path / "out" / "me.json"
    output.parent.mkdir()
    source.write_bytes(mbox(*month(*(f"{TEXT} {i}" for i in range(5000)))))
    running = terminal("profile", "import", source, "-o", output, "--yes", "--me", "mara@lind.example")
    running.wait_for("reading")
    running.interrupt()
    assert running.exit_code() == 130
    assert list(output.parent.iterdir()) == []


def test_nobody_to_ask_is_an_error_and_nothing_is_written(program: Program, mailbox: Path, tmp_path: Path) -> None:
    result = program("profile", "import", mailbox, "-o", tmp_path / "me.json")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        f"error: nobody can be asked here whether to write {tmp_path / 'me.json'}: --yes writes it, --dry-run does not"
    )
    assert not (tmp_path / "me.json").exists()


def test_an_error_is_one_line_on_stderr(program: Program, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = program.fails("profile", "import", tmp_path / "empty", "-o", tmp_path / "me.json", "--yes")
    assert "mail (mbox, Maildir, .eml" in said


def test_what_cannot_be_imported_is_one_line_that_says_what_to_do(mailbox: Path, tmp_path: Path) -> None:
    (tmp_path / "list.mbox").write_bytes(mbox(*(letter(sender=who, to="l@x.example") for who in (MARA, TOM))))
    (tmp_path / "short.eml").write_bytes(letter("No."))
    output = tmp_path / "me.json"
    wrong: list[tuple[str, list[object]]] = [
        ("there is no ", [tmp_path / "gone"]),
        ("'mara@lind.example': 1, 'tom@berg.example': 1", [tmp_path / "list.mbox"]),
        ("is by 'ina@x.example', but by 'mara@lind.example': 2", [mailbox, "--me", "ina@x.example"]),
        (r"nothing is left of 1 texts \(too short 1\)", [tmp_path / "short.eml"]),
        ("cannot read the words of", [mailbox, "--block", tmp_path / "gone"]),
        ("is a folder", [mailbox, "-o", tmp_path]),
        ("there is no folder", [mailbox, "-o", tmp_path / "gone" / "me.json"]),
    ]
    for problem, arguments in wrong:
        with pytest.raises(DataError, match=problem):
            app(["profile", "import", "-o", str(output), "--yes", *map(str, arguments)])
    for mistake in (["--format", "fax"], ["--since", "soon"]):
        with pytest.raises(SystemExit, match="2"):
            app(["profile", "import", str(mailbox), "-o", str(output), *mistake])
    assert not output.exists()


def test_words_of_a_file_and_names_leave(program: Program, tmp_path: Path) -> None:
    source, words, output = tmp_path / "sent.mbox", tmp_path / "words", tmp_path / "me.json"
    source.write_bytes(
        mbox(*month("Hi Tom,\n\nthe pump is fixed.", "We close Mill Lane in June.", "The tulips are in bloom, Tom."))
    )
    words.write_text("mill lane\n")
    result = program("profile", "import", source, "-o", output, "--yes", "--block", words, "--mask-names", "--json")
    assert json.loads(result.stdout)["dropped"] == {"blocked word": 1}
    assert json.loads(result.stdout)["masked"] == {"name": 2}
    outputs = [item.output for item in Profile.load(output).history]
    assert outputs == ["Hi [name],\n\nthe pump is fixed.", "The tulips are in bloom, [name]."]


def test_control_characters_of_a_mail_never_reach_the_terminal(program: Program, tmp_path: Path) -> None:
    (tmp_path / "a.eml").write_bytes(
        letter("The \x1b]52;c;QUJD\x07pump \u202eis fixed, come.", subject="\x1b[2J wiped")
    )
    result = program("profile", "import", tmp_path / "a.eml", "-o", tmp_path / "me.json", "--yes")
    assert result.returncode == 0, result.stderr
    assert not {"\x1b", "\x07", "\u202e"} & set(result.stdout + result.stderr + (tmp_path / "me.json").read_text())


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root reads everything")
def test_a_source_that_cannot_be_read_is_an_error(program: Program, mailbox: Path, tmp_path: Path) -> None:
    mailbox.chmod(0)
    assert str(mailbox) in program.fails("profile", "import", mailbox, "-o", tmp_path / "me.json")
