"""Cleaning: what becomes an item, in what order, what leaves and why."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from secrets_planted import MASKED, SECRETS

from dps_local.importing.cleaning import Cleaning, Rules, block_list, n_words
from dps_local.importing.writing import Writing
from dps_local.prompting.profile import HistoryItem

PUMP = Writing("The pump is fixed, come and see.", "Thursday", "2025-03-04T10:12:00+01:00", "mail")
VALVE = Writing("I closed the valve and went home.", "", "2025-03-05T09:00:00+01:00", "mail")
OLD = Writing("Two gaskets came with the morning post.", "", "2019-01-01T09:00:00", "WhatsApp")
UNDATED = Writing("Notes on seals, written some time ago.", "", "", "notes")


def cleaned(*writings: Writing, rules: Rules | None = None) -> Cleaning:
    cleaning = Cleaning(rules or Rules())
    for writing in writings:
        cleaning.add(writing)
    return cleaning


def texts(cleaning: Cleaning) -> list[str]:
    return [item.output for item in cleaning.items()]


def test_items_come_newest_last_and_know_where_they_are_from() -> None:
    assert cleaned(VALVE, PUMP, UNDATED, OLD).items() == [
        HistoryItem(UNDATED.text, source="notes"),
        HistoryItem(OLD.text, source="WhatsApp", date="2019-01-01T09:00:00"),
        HistoryItem(PUMP.text, "Thursday", source="mail", date="2025-03-04T10:12:00+01:00"),
        HistoryItem(VALVE.text, source="mail", date="2025-03-05T09:00:00+01:00"),
    ]


def test_times_are_compared_across_zones() -> None:
    early = replace(PUMP, date="2025-03-05T01:00:00+09:00")  # 16:00 of the day before in UTC
    late = replace(VALVE, date="2025-03-04T23:00:00-05:00")
    assert texts(cleaned(late, early)) == [PUMP.text, VALVE.text]


def test_short_old_and_surplus_items_leave_and_are_counted() -> None:
    rules = Rules(since=datetime(2020, 1, 1, tzinfo=UTC), limit=1, min_words=3)
    cleaning = cleaned(PUMP, VALVE, OLD, UNDATED, Writing("Too short."), rules=rules)
    assert texts(cleaning) == [VALVE.text]
    assert cleaning.dropped == {"older": 1, "no date": 1, "too short": 1, "over the limit": 1}


def test_of_the_same_and_nearly_the_same_the_newest_stays() -> None:
    long = " ".join(f"word{i}" for i in range(40))
    cleaning = cleaned(
        Writing(long, date="2025-01-01"),
        Writing(f"{long} more", date="2025-01-03"),
        PUMP,
        VALVE,
        replace(PUMP, text=PUMP.text.upper().replace(" ", "  "), date="2025-03-09T10:00:00"),
    )
    assert texts(cleaning) == [f"{long} more", VALVE.text, PUMP.text.upper().replace(" ", "  ")]
    assert cleaning.dropped == {"duplicate": 1, "near-duplicate": 1}


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("field", ["text", "input"])
def test_a_secret_drops_the_item_wherever_it_stands(secret: str, field: str) -> None:
    planted = replace(PUMP, **{field: f"Hi Tom, this is it: {secret} and that is all."})
    cleaning = cleaned(planted, VALVE)
    assert texts(cleaning) == [VALVE.text]
    assert sum(cleaning.dropped.values()) == 1


@pytest.mark.parametrize("private", MASKED)
def test_private_data_is_masked_in_the_text_and_in_what_it_answers(private: str) -> None:
    cleaning = cleaned(Writing(f"Please write this down: {private}", f"Where? {private}"))
    (item,) = cleaning.items()
    assert private not in item.output + item.input
    assert cleaning.masked == {MASKED[private]: 2}


def test_the_sample_covers_what_is_masked_before_and_names_it_after() -> None:
    cleaning = cleaned(Writing("Please call 0171 2345678 tomorrow.", "Where are you?"), PUMP)
    cleaning.items()
    first, second = cleaning.samples(5)
    assert first.before == "[Where are you?]\nPlease call ████████████ tomorrow."
    assert first.after == "[Where are you?]\nPlease call [phone] tomorrow."
    assert second.before == second.after
    assert cleaning.masked == {"phone": 1}


def test_blocked_words_drop_the_item_as_whole_words_in_any_case() -> None:
    words = block_list(["# remarks", "", "Mill Lane  # where we live", "VALVE"])
    assert words == {"Mill Lane", "VALVE"}
    cleaning = cleaned(
        *(VALVE, Writing("We meet in mill\nlane at six."), Writing("The valves are all closed now.")),
        *(Writing("Nothing here but an input.", "the valve"),),
        rules=Rules(blocked=words),
    )
    assert texts(cleaning) == ["The valves are all closed now."]
    assert cleaning.dropped == {"blocked word": 3}


def test_names_of_those_who_are_greeted_are_masked_everywhere_but_the_own_one() -> None:
    rules = Rules(mask_names=True, me=frozenset({"mara@lind.example", "Mara Lind"}))
    cleaning = cleaned(
        Writing("Hi Tom,\n\nthe pump is fixed.\n\nCheers, Mara"),
        Writing("Ask Tom or Mara, they know.", "Hi Mara,"),
        rules=rules,
    )
    assert texts(cleaning) == ["Hi [name],\n\nthe pump is fixed.\n\nCheers, Mara", "Ask [name] or Mara, they know."]
    assert cleaning.masked == {"name": 2}


def test_control_characters_and_empty_lines_leave() -> None:
    (item,) = cleaned(
        Writing("\x1b]52;c;AAA\x07The pump\r\nis \u202efixed,  \n\n\n\ncome and see. \U0001f600 e\u0301")
    ).items()
    assert item.output == "]52;c;AAAThe pump\nis fixed,\n\ncome and see. \U0001f600 é"


def test_words_are_counted_where_they_are_not_set_apart() -> None:
    assert n_words("Thursday works, I'm in.") == 5
    assert n_words("木曜日で大丈夫です。") == 4
    assert n_words("... !") == 0


@given(
    st.lists(st.builds(Writing, st.text(max_size=80), st.text(max_size=40), st.sampled_from(["", "2025-03-04", "x"])))
)
def test_no_writing_is_too_odd(writings: list[Writing]) -> None:
    cleaning = cleaned(*writings, rules=Rules(min_words=1, mask_names=True))
    assert len(cleaning.items()) + sum(cleaning.dropped.values()) == len(writings)
    for item in cleaning.items():
        item.output.encode()
        assert item.output.strip()
