"""One mail decoded: character sets that are wrong, HTML alone, lines that were broken, and who was a machine."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from letters import (
    ALTERNATIVE,
    AUTOMATIC_SUBJECTS,
    GMAIL,
    GMAIL_OWN,
    HTML,
    MIXED,
    NOT_TYPED,
    OUTLOOK,
    OUTLOOK_OWN,
    TEXT,
    letter,
    multipart,
)

from dps_local.importing.letter import Heading, Letter
from dps_local.importing.own_words import own_words

UMLAUTS = "Grüße aus Köln, natürlich für 20 €"


@pytest.mark.parametrize(
    ("claimed", "real"),
    [
        ("utf-8", "utf-8"),
        ("iso-8859-15", "iso-8859-15"),
        ("us-ascii", "utf-8"),
        ("iso-8859-1", "utf-8"),
        ("utf-8", "cp1252"),
        ("us-ascii", "cp1252"),
        ("x-unknown-2", "utf-8"),
        ("", "utf-8"),
    ],
)
def test_a_character_set_is_what_the_bytes_are_before_what_is_claimed(claimed: str, real: str) -> None:
    kind = f"Content-Type: text/plain; charset={claimed}" if claimed else "Content-Type: text/plain"
    assert Letter.parse(letter(UMLAUTS.encode(real), kind)).text.strip() == UMLAUTS


@pytest.mark.parametrize(
    ("charset", "text"),
    [("iso-2022-jp", "木曜日で大丈夫です"), ("gb18030", "星期四可以见面吗"), ("koi8-r", "В четверг мне удобно")],
)
def test_character_sets_of_other_scripts_are_read(charset: str, text: str) -> None:
    assert (
        Letter.parse(letter(text.encode(charset), f"Content-Type: text/plain; charset={charset}")).text.strip() == text
    )


def test_a_mail_from_before_mime_is_plain_text() -> None:
    raw = b"From: Mara <mara@example.org>\nTo: Tom <tom@example.org>\nSubject: Jam\n\nThe jar is yours.\n\nMara\n"
    assert Letter.parse(raw).text.strip() == "The jar is yours.\n\nMara"


def test_quoted_printable_and_base64_are_decoded() -> None:
    quoted = letter(b"Gr=C3=BC=\n=C3=9Fe", "Content-Transfer-Encoding: quoted-printable")
    encoded = letter(b"R3LDvMOfZQ==", "Content-Transfer-Encoding: base64")
    assert [Letter.parse(mail).text.strip() for mail in (quoted, encoded)] == ["Grüße", "Grüße"]


def test_headers_are_decoded_and_unfolded() -> None:
    heading = Heading.of(letter(subject="=?utf-8?q?Gr=C3=BC=C3=9Fe?=\n =?iso-8859-1?q?_aus_K=F6ln?="))
    assert heading.get("Subject") == "Grüße aus Köln"
    assert heading.get("subject") == heading.get("Subject")
    assert heading.get("X-Nothing") == ""
    assert heading.date == "2025-03-04T10:12:00+01:00"
    assert heading.people("From", "To") == [("mara lind", "mara@lind.example"), ("tom berg", "tom@berg.example")]


@pytest.mark.parametrize("date", ["", "yesterday", "Tue, 99 Mar 2025 10:12:00 +0100", "1" * 900])
def test_a_date_that_is_none_is_no_date(date: str) -> None:
    assert Heading.of(letter(date=date)).date == ""


def test_html_alone_is_read_as_it_looks() -> None:
    assert own_words(Letter.parse(letter(GMAIL, HTML)).text).own == GMAIL_OWN
    assert own_words(Letter.parse(letter(OUTLOOK, HTML)).text).own == OUTLOOK_OWN


def test_what_html_quotes_is_what_is_answered() -> None:
    assert own_words(Letter.parse(letter(GMAIL, HTML)).text).quoted == "Shall we meet on Thursday?"
    assert own_words(Letter.parse(letter(OUTLOOK, HTML)).text).quoted.endswith("Can you order the seal?")


def test_plain_text_goes_before_html_unless_it_is_empty() -> None:
    html = f"{HTML}\n\n<p>as HTML</p>"
    both = letter(multipart("Content-Type: text/plain\n\nas text", html), ALTERNATIVE)
    blank = letter(multipart("Content-Type: text/plain\n\n \n", html), ALTERNATIVE)
    assert [Letter.parse(mail).text.strip() for mail in (both, blank)] == ["as text", "as HTML"]


def test_attachments_and_attached_mails_are_not_read() -> None:
    mail = letter(
        multipart(
            f"Content-Type: text/plain\n\n{TEXT}",
            "Content-Type: text/plain\nContent-Disposition: attachment; filename=log.txt\n\nnot typed",
            "Content-Type: message/rfc822\n\nFrom: tom@berg.example\n\nnot mine",
        ),
        MIXED,
    )
    alone = letter(multipart("Content-Type: message/rfc822\n\nFrom: tom@berg.example\n\nnot mine"), MIXED)
    assert Letter.parse(mail).text.strip() == TEXT
    assert Letter.parse(alone).text == ""


def test_lines_that_were_broken_for_sending_are_joined() -> None:
    body = "The pump is \nfixed. \nCome and see.\n\n> Is it \n> fixed?\n-- \nMara"
    flowed = Letter.parse(letter(body, "Content-Type: text/plain; charset=utf-8; format=flowed"))
    assert flowed.text.strip() == "The pump is fixed. Come and see.\n\n> Is it fixed?\n-- \nMara"
    spaced = Letter.parse(letter("木曜 \n日です", "Content-Type: text/plain; charset=utf-8; format=flowed; delsp=yes"))
    assert spaced.text.strip() == "木曜日です"


def test_escaped_from_lines_are_restored() -> None:
    assert Letter.parse(letter(b">From here on\n>>From there")).text.strip() == "From here on\n>From there"


@pytest.mark.parametrize("kind", ["bounce", "calendar", "auto-reply", "draft", "spam", "trash"])
def test_what_a_machine_made_is_known(kind: str) -> None:
    assert Letter.parse(NOT_TYPED[kind]).made_by == kind


@pytest.mark.parametrize("subject", AUTOMATIC_SUBJECTS)
def test_an_automatic_answer_is_known_by_its_subject(subject: str) -> None:
    assert Letter.parse(letter(subject=subject)).made_by == "auto-reply"


def test_what_a_person_made_is_known() -> None:
    assert Letter.parse(letter(TEXT, "Auto-Submitted: no", subject="Re: the office is out of paper")).made_by == ""


@given(
    st.binary(max_size=300), st.sampled_from([letter(), letter(GMAIL, HTML), *NOT_TYPED.values()]), st.integers(0, 400)
)
def test_damaged_mail_is_read_or_refused(noise: bytes, mail: bytes, at: int) -> None:
    damaged = mail[:at] + noise + mail[at + len(noise) // 2 :]
    heading = Heading.of(damaged)
    heading.people("From", "To")
    assert isinstance(heading.date, str)
    try:
        Letter.parse(damaged)
    except ValueError as exc:
        assert str(exc) == "a mail that cannot be read"  # noqa: PT017 (being read is right, too)


MANY = 100_000
HOSTILE = {
    "parts": b"Content-Type: multipart/mixed; boundary=a\n\n" + b"--a\n\n" * MANY,
    "parameters": b"Content-Type: text/plain; " + b"a=b; " * MANY + b"\n\nx",
    "parameters of a part": b"Content-Type: multipart/mixed; boundary=a\n\n--a\nContent-Type: text/plain"
    + b";\n a=b" * MANY
    + b"\n\nx\n--a--",
    "comments": b"Content-Type: multipart/mixed; boundary=a\n\n--a\nContent-Type: " + b"(" * MANY + b"\n\nx",
    "nested": b"".join(b"Content-Type: multipart/mixed; boundary=a%d\n\n--a%d\n" % (i, i) for i in range(3000)),
    "recipients": b"To: " + b"a@b, " * MANY + b"\n\nx",
    "words": b"Subject: " + b"=?utf-8?q?a?= " * MANY + b"\n\nx",
    "fields": b"X: y\n" * MANY + b"\n",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_mail_takes_no_longer_than_a_moment(kind: str) -> None:
    started = time.process_time()
    heading = Heading.of(HOSTILE[kind])
    heading.people("From", "To")
    heading.get("Subject")
    try:
        Letter.parse(HOSTILE[kind])
    except ValueError:
        assert kind == "nested"
    assert time.process_time() - started < 5
