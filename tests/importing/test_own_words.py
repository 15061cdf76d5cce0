"""What the sender of a mail typed: in many languages, and in a bounded time whatever the mail holds."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from replies import REPLIES

from dps_local.importing.own_words import own_words


@pytest.mark.parametrize("name", REPLIES)
def test_the_words_of_the_sender_are_told_from_the_rest(name: str) -> None:
    reply = REPLIES[name]
    found = own_words(reply.body)
    assert found.own == reply.own
    assert " ".join(found.quoted.split()).startswith(reply.quoted)
    assert bool(found.quoted) == bool(reply.quoted)


@pytest.mark.parametrize("name", REPLIES)
def test_line_ends_and_invisible_characters_change_nothing(name: str) -> None:
    reply = REPLIES[name]
    assert own_words("\ufeff" + reply.body.replace("\n", "\r\n")).own == reply.own
    assert own_words(reply.body.replace(" ", "\xa0")).own == reply.own


def test_forwards_are_known() -> None:
    assert own_words(REPLIES["a forward alone"].body).forwards
    assert own_words(REPLIES["Apple's forward"].body).forwards
    assert not own_words(REPLIES["Outlook's block of headers"].body).forwards


LINES = [line for reply in REPLIES.values() for line in reply.body.split("\n")]


@given(st.lists(st.one_of(st.sampled_from(LINES), st.text(max_size=30)), max_size=40).map("\n".join))
def test_nothing_is_invented(body: str) -> None:
    found = own_words(body)
    typed = {line.strip() for line in body.replace("\xa0", " ").replace("\r", "\n").split("\n")}
    hidden = str.maketrans(
        "", "", "\ufeff\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\u00ad"
    )
    assert {line.strip() for line in found.own.split("\n")} <= {line.translate(hidden).strip() for line in typed} | {""}


HOSTILE = [
    "> ",
    ">\n",
    "a:\n",
    "From: a\n",
    "From: a\nx\n",
    "On ",
    "-- a ",
    "_____\n",
    "Regards\n\n",
    "Tel: +1 2 3\n\n",
]
HOSTILE += ["This message\n\n", "Sent from my \n\n", "a@", "On 1/1/2020 10:10 wrote\n", "\t\n", "-- \n", "*"]


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_bodies_take_no_longer_than_a_moment(piece: str) -> None:
    started = time.process_time()
    own_words(piece * 100_000)
    assert time.process_time() - started < 2
