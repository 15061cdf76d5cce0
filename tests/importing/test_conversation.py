from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dps_local.importing.conversation import (
    Message,
    folded,
    from_iso,
    is_one_of,
    joined,
    shortened,
    since_1970,
    without_code_and_quotes,
    writing,
)
from dps_local.importing.writing import Writing

NOON = datetime(2024, 2, 13, 12, tzinfo=UTC)


def own(text: str, minute: float | None = 0) -> Message:
    return Message(text, True, None if minute is None else NOON + timedelta(minutes=minute))


def other(text: str, minute: float | None = 0) -> Message:
    return Message(text, False, None if minute is None else NOON + timedelta(minutes=minute))


def read(*messages: Message) -> list[tuple[str, str]]:
    return [(item.input, item.text) for item in joined(messages, "x")]


def test_own_messages_that_follow_each_other_soon_are_one_text() -> None:
    assert read(own("a", 0), own("b", 5), own("c", 10), own("d", 15.1)) == [("", "a\nb\nc"), ("", "d")]


def test_what_others_said_before_is_the_input() -> None:
    messages = other("p", 0), other("q", 1), own("a", 2), own("b", 3), other("r", 4), own("c", 5)
    assert read(*messages) == [("p\nq", "a\nb"), ("r", "c")]


def test_what_others_said_long_ago_is_not_answered() -> None:
    assert read(other("p", 0), other("q", 60), own("a", 12 * 60 + 30)) == [("q", "a")]


def test_only_the_last_messages_of_others_are_kept() -> None:
    assert read(*(other(str(n)) for n in range(15)), own("a")) == [("\n".join(map(str, range(5, 15))), "a")]


def test_messages_without_a_time_follow_each_other() -> None:
    assert read(other("p", None), own("a", None), own("b", 3)) == [("p", "a\nb")]
    naive = Message("c", True, datetime(2020, 1, 1))
    assert read(own("a"), naive) == [("", "a\nc")]


def test_a_monologue_ends() -> None:
    assert [len(text) for _, text in read(*(own("x" * 1500, 0) for _ in range(4)))] == [4502, 1500]


def test_a_text_is_dated_by_its_first_message() -> None:
    assert list(joined([own("a", 1), own("b", 2)], "x")) == [Writing("a\nb", "", "2024-02-13T12:01:00+00:00", "x")]


def test_an_input_is_shortened_to_its_last_words() -> None:
    text = "first " + "word " * 100 + "last"
    assert shortened("short\nenough") == "short\nenough"
    assert shortened(text).startswith("… word")
    assert shortened(text).endswith(" last")
    assert len(shortened(text)) <= 302


def test_a_writing_can_be_written_as_utf_8() -> None:
    assert writing(" a\ud800 ", "x", input="\udfff") == Writing("a?", "?", "", "x")


def test_people_are_compared_without_case_and_marks() -> None:
    assert folded("\u202a+49\u00a0151\u202c") == "+49 151"
    assert is_one_of(["MARA"], None, 3, "Mara\u200e")
    assert not is_one_of(["mara"], "mara v", None, "")
    assert not is_one_of([""], "", None)


@pytest.mark.parametrize("value", [None, "", "x", [], "1e999", "nan", 10**30, {}])
def test_what_is_no_time_is_none(value: object) -> None:
    assert since_1970(value) is None
    assert from_iso(value) is None


def test_times_are_read() -> None:
    assert since_1970("1707825600.25") == datetime(2024, 2, 13, 12, 0, 0, 250000, UTC)
    assert from_iso("2024-02-13T12:00:00Z") == NOON


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("> said\nmine\n>>> said\n>\nmine", "mine\nmine"),
        (">_< mine\n>:( mine", ">_< mine\n>:( mine"),
        ("a ```b``` c\n```\nd\n```\ne", "a  c\n\ne"),
        ("a\n```never closed\n> b", "a"),
        ("one `word`", "one `word`"),
    ],
)
def test_code_and_quotes_go(text: str, left: str) -> None:
    assert without_code_and_quotes(text) == left


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2000)), max_size=30))
def test_every_own_message_is_in_one_text(said: list[tuple[bool, int]]) -> None:
    messages = [Message(f"m{n}", mine, NOON + timedelta(minutes=at)) for n, (mine, at) in enumerate(said)]
    lines = [line for _, text in read(*messages) for line in text.split("\n")]
    assert lines == [message.text for message in messages if message.own]
