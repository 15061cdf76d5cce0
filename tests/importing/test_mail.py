"""Mail as a format: own mail by its sender, what it answers, whose mailbox it is, and what is left out."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from letters import GMAIL, HTML, MARA, NOT_TYPED, TEXT, TOM, letter, mbox
from replies import REPLIES

from dps_local.errors import DataError
from dps_local.importing.mail import PIECE, Mail
from dps_local.importing.writing import Writing

ME = ["Mara@Lind.example"]


def read(tmp_path: Path, *mails: bytes, me: list[str] = ME) -> tuple[list[Writing], Counter[str]]:
    (tmp_path / "all.mbox").write_bytes(mbox(*mails))
    dropped: Counter[str] = Counter()
    return list(Mail().read(tmp_path / "all.mbox", me, dropped)), dropped


def test_own_mail_is_what_the_person_sent(tmp_path: Path) -> None:
    found, dropped = read(tmp_path, letter(), letter("Not mine at all.", sender=TOM, to=MARA))
    assert found == [Writing(TEXT, "Thursday", "2025-03-04T10:12:00+01:00", "mail")]
    assert dropped == {"by others": 1}


def test_a_name_says_who_one_is_as_well(tmp_path: Path) -> None:
    assert len(read(tmp_path, letter(), letter("Not mine.", sender=TOM), me=["mara lind"])[0]) == 1


@pytest.mark.parametrize("name", [name for name in REPLIES if REPLIES[name].own])
def test_a_reply_becomes_its_own_words_and_what_it_answers(name: str, tmp_path: Path) -> None:
    reply = REPLIES[name]
    (found,), _ = read(tmp_path, letter(reply.body, subject="Re: AW: Fwd: Thursday"))
    assert found.text == reply.own
    assert found.input.startswith("\n\n".join(filter(None, ("Thursday", reply.quoted))))


@pytest.mark.parametrize("kind", NOT_TYPED)
def test_what_was_not_typed_is_left_out_and_counted(kind: str, tmp_path: Path) -> None:
    assert read(tmp_path, NOT_TYPED[kind]) == ([], {kind: 1})


def test_what_is_answered_is_cut_at_a_word(tmp_path: Path) -> None:
    (found,), _ = read(tmp_path, letter(f"{TEXT}\n\nOn 4 March 2025 10:12, Tom wrote:\n> {'words and ' * 100}\n"))
    piece = found.input.removeprefix("Thursday\n\n")
    assert len(piece) <= PIECE + 2
    assert piece.endswith((" words …", " and …"))


def test_the_mail_that_is_answered_stands_in_where_nothing_is_quoted(tmp_path: Path) -> None:
    parent = letter(GMAIL, HTML, sender=TOM, to=MARA, number=7)
    reply = letter("Good, bring them.", "In-Reply-To: <7@lind.example>", number=8)
    orphan = letter("Where are you?", "In-Reply-To: <9@lind.example>", number=10)
    for mails in ((parent, reply, orphan), (orphan, reply, parent)):
        found, _ = read(tmp_path, *mails)
        answered = {writing.text: writing.input for writing in found}
        assert answered["Good, bring them."].startswith("Thursday\n\nHi Tom, Thursday works for me.")
        assert answered["Where are you?"] == "Thursday"


def test_the_owner_of_a_mailbox_takes_part_in_all_of_it(tmp_path: Path) -> None:
    source = tmp_path / "all.mbox"
    got = [letter(sender=f"P{i} <p{i}@berg.example>", to=MARA) for i in range(4)]
    source.write_bytes(mbox(letter(), *got, letter(sender="News <news@x.example>", to=MARA)))
    assert Mail().authors(source) == {"mara@lind.example": 1}


def test_where_the_owner_is_not_clear_all_are_named(tmp_path: Path) -> None:
    source = tmp_path / "list.mbox"
    source.write_bytes(mbox(*(letter(sender=who, to="list@x.example") for who in (MARA, MARA, TOM))))
    assert Mail().authors(source) == {"mara@lind.example": 2, "tom@berg.example": 1}


def test_a_folder_name_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "Sent.mbox").mkdir()
    (tmp_path / "Sent.mbox" / "mbox").write_bytes(mbox(letter("Not mine.", sender=TOM, to=MARA), letter()))
    dropped: Counter[str] = Counter()
    assert [w.text for w in Mail().read(tmp_path / "Sent.mbox", ME, dropped)] == [TEXT]


def test_mail_that_cannot_be_read_is_counted(tmp_path: Path) -> None:
    nested = "\n".join(f"Content-Type: multipart/mixed; boundary=a{i}\n\n--a{i}" for i in range(1500))
    found, dropped = read(tmp_path, letter(f"--B\n{nested}", 'Content-Type: multipart/mixed; boundary="B"'), letter())
    assert [writing.text for writing in found] == [TEXT]
    assert dropped == {"unreadable": 1}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.one_of(st.sampled_from([mbox(letter()), letter(), *NOT_TYPED.values()]), st.binary(max_size=60))))
def test_no_file_is_too_odd(tmp_path: Path, pieces: list[bytes]) -> None:
    source = tmp_path / "odd"
    source.write_bytes(b"".join(pieces))
    mail = Mail()
    mail.recognises(source)
    with suppress(DataError):  # what begins as a zip, and is none
        mail.authors(source)
        for writing in mail.read(source, ME, Counter()):
            assert writing.text.strip()
