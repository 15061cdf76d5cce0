"""Masking: what is private is replaced by its kind, and counted; dates, sums and plain links stay."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from secrets_planted import KEPT, MASKED

from dps_local.importing.masking import Mask, greeted_names


@pytest.mark.parametrize("private", MASKED)
def test_what_is_private_is_replaced_by_its_kind(private: str) -> None:
    mask, kind = Mask(), MASKED[private]
    assert re.sub(r"\[address\](?:,? \w+)*", "[address]", mask(f"It is {private}.")).startswith(f"It is [{kind}]")
    assert mask.counts == {kind: 1}


@pytest.mark.parametrize("text", KEPT)
def test_what_is_not_private_stays(text: str) -> None:
    mask = Mask()
    assert mask(f"It was {text}.") == f"It was {text}."
    assert mask.counts == {}


def test_names_are_masked_where_they_stand_alone() -> None:
    mask = Mask(names={"Tom", "Ina"})
    assert mask("Hi Tom, is Ina's tomato from Tomsk? tom, no.") == "Hi [name], is [name]'s tomato from Tomsk? tom, no."
    assert mask.counts == {"name": 2}


def test_those_who_are_greeted_are_names() -> None:
    assert greeted_names("Hi Tom and Ina,\n\nHello is a word.") == {"Tom", "Ina"}
    assert greeted_names("Dear Ms Berg,\nthe pump") == {"Berg"}
    assert greeted_names("Liebe Ina,\nlieber Tom,\n\ndie Pumpe") == {"Ina", "Tom"}
    assert (
        greeted_names("Hi all,\n")
        == greeted_names("Hello there!")
        == greeted_names("Sehr geehrte Damen und Herren,")
        == set()
    )
    assert greeted_names("Hi Tom, the pump is fixed and Ina is here") == set()


def test_what_stands_in_the_place_can_be_chosen() -> None:
    assert Mask(shown=lambda _, text: "#" * len(text))("a b@c.example") == "a ###########"


@given(st.text(max_size=200))
def test_no_text_is_too_odd(text: str) -> None:
    Mask(names={"Tom"})(text)


@pytest.mark.parametrize(
    "piece", ["a@", "1", "1 ", "http://", "http://a/", "12 Main ", "Via a ", "1 rue ", "030 1234567, ", "+1 ", "("]
)
def test_hostile_texts_take_no_longer_than_a_moment(piece: str) -> None:
    started = time.process_time()
    Mask()((piece * 100_000)[:100_000])
    assert time.process_time() - started < 4
