"""Metrics of answers, against numbers typed by hand."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dps_local.errors import DpsError
from dps_local.evaluation import answer_metrics
from dps_local.evaluation.answer_metrics import (
    choice_of,
    length_ratio,
    meteor,
    number_of,
    number_or_worst,
    repetition,
    rouge,
)

words = st.lists(st.sampled_from(["cat", "sat", "mat", "ran", "the"]), max_size=8).map(" ".join)


@pytest.fixture(autouse=True)
def _fresh_libraries() -> None:
    answer_metrics.load_rouge_scorer.cache_clear()
    answer_metrics.load_wordnet.cache_clear()


# --- ROUGE and METEOR


def test_rouge_is_the_harmonic_mean_of_precision_and_recall() -> None:
    # 2 of 3 words of the answer, 2 of 4 of the reference, in the same order
    assert rouge("the cat sat", ["the cat ran fast"]) == pytest.approx({"rouge_1": 4 / 7, "rouge_l": 4 / 7})


def test_rouge_l_counts_words_in_their_order() -> None:
    # all three words are there; in order, two of them
    assert rouge("sat the cat", ["the cat sat"]) == pytest.approx({"rouge_1": 1, "rouge_l": 2 / 3})


def test_rouge_does_not_stem() -> None:
    assert rouge("cats", ["cat"]) == {"rouge_1": 0, "rouge_l": 0}


def test_rouge_takes_the_best_reference_for_each_metric() -> None:
    # the second has both words the other way round, the first one of them alone
    found = rouge("the cat", ["the", "cat the"])
    assert found == pytest.approx({"rouge_1": 1, "rouge_l": 2 / 3})


def test_case_and_punctuation_are_nothing_to_rouge() -> None:
    assert rouge("The CAT, sat!", ["the cat sat"]) == pytest.approx({"rouge_1": 1, "rouge_l": 1})


@given(words, words)
def test_rouge_is_symmetric_and_a_share(a: str, b: str) -> None:
    found = rouge(a, [b])
    assert found == pytest.approx(rouge(b, [a]))
    assert 0 <= found["rouge_l"] <= found["rouge_1"] <= 1
    assert rouge(a, [a])["rouge_l"] == bool(a)


@given(words, st.lists(words, min_size=1, max_size=3))
def test_another_reference_never_costs_anything(answer: str, references: list[str]) -> None:
    assert rouge(answer, references)["rouge_1"] >= rouge(answer, references[:1])["rouge_1"] - 1e-12
    assert meteor(answer, references)[1] >= meteor(answer, references[:1])[1] - 1e-12


class WordNet:
    """Stands for nltk's WordNet where its data is not installed, or is: knows that a kitten is a cat."""

    def __init__(self, installed: bool) -> None:
        self.installed = installed

    def ensure_loaded(self) -> None:
        if not self.installed:
            raise LookupError("no such data")

    def synsets(self, word: str) -> list[Any]:
        return [Synset()] if word == "kitten" else []


class Synset:
    def lemmas(self) -> list[Synset]:
        return [self]

    def name(self) -> str:
        return "cat"


def with_wordnet(monkeypatch: pytest.MonkeyPatch, installed: bool) -> None:
    monkeypatch.setattr(importlib.import_module("nltk.corpus"), "wordnet", WordNet(installed))


def test_meteor_without_wordnet_matches_stems_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with_wordnet(monkeypatch, installed=False)
    # three matches in one chunk: 1 - 0.5 · (1/3)³
    assert dict([meteor("The cats sat", ["the cat sat"])]) == pytest.approx({"meteor_stem": 1 - 0.5 / 27})
    # 1 of 1 and 1 of 2 words: F = 1·½ / (0.9·1 + 0.1·½), one chunk of one match: halved
    assert dict([meteor("cat", ["cat kitten"])]) == pytest.approx({"meteor_stem": 0.5 * 0.5 / (0.9 + 0.1 * 0.5)})
    assert dict([meteor("kitten", ["cat"])]) == {"meteor_stem": 0.0}


def test_meteor_with_wordnet_matches_synonyms(monkeypatch: pytest.MonkeyPatch) -> None:
    with_wordnet(monkeypatch, installed=True)
    assert dict([meteor("kitten", ["cat"])]) == pytest.approx({"meteor": 0.5})


@given(words, words)
def test_meteor_is_a_share(answer: str, reference: str) -> None:
    assert 0 <= meteor(answer, [reference])[1] <= 1


@pytest.mark.parametrize("metric", [rouge, meteor])
def test_a_missing_library_is_named(metric: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("rouge_score.rouge_scorer", "nltk.tokenize"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DpsError, match=r"pip install 'dps-local\[eval\]'$"):
        metric("a", ["a"])


# --- choices


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("comedy", 0),
        (' "Dark Comedy."\n', 1),
        ("It is a dark comedy, I think", 1),
        ("Action! Not comedy.", 2),
        ("comedyish", -1),
        ("a book that is true", 3),
        ("Nothing of the kind", -1),
        ("", -1),
    ],
)
def test_the_option_that_an_answer_means(answer: str, expected: int) -> None:
    assert choice_of(answer, ("comedy", "dark comedy", "action", "based on a book")) == expected


@pytest.mark.parametrize(
    ("answer", "expected"), [("[2]", 1), ("1", 0), ("The answer is [2].", 1), ('[1]: "Bees"', 0), ("12", -1)]
)
def test_labels_in_brackets_are_options(answer: str, expected: int) -> None:
    assert choice_of(answer, ("[1]", "[2]")) == expected


def test_of_options_that_begin_alike_the_longer_one_is_meant() -> None:
    assert choice_of("It is a true story.", ("true", "true story")) == 1


def test_sentences_are_chosen_by_what_they_have_in_common() -> None:
    options = ("Take the early train.", "Drive there at night.", "Take the early bus.")
    assert choice_of("I would drive at night", options) == 1
    assert choice_of("Take the early one", options) == 0  # as much of the third: the first counts


@given(st.lists(words.filter(bool), min_size=1, unique=True), st.data())
def test_an_option_itself_is_always_found(options: list[str], data: st.DataObject) -> None:
    i = data.draw(st.integers(0, len(options) - 1))
    assert choice_of(f"“{options[i].upper()}”.", options) == i


@given(st.text(), st.lists(st.text(max_size=8), max_size=4))
def test_any_answer_is_a_choice_or_none(answer: str, options: list[str]) -> None:
    assert -1 <= choice_of(answer, options) < len(options)


# --- numbers


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("4", 4),
        ("I give it 3.5 of 5.", 3.5),
        ("4/5", 4),
        (".7", 0.7),
        ("-2 at best", -2),
        ("Score-3", 3),
        ("two", None),
        ("", None),
    ],
)
def test_the_first_number_of_an_answer(answer: str, expected: float | None) -> None:
    assert number_of(answer) == expected


@pytest.mark.parametrize(
    ("answer", "gold", "expected"), [("4", 2, 4), ("none", 2, 5), ("none", 4, 1), ("none", 3, 5), ("9", 4, 1)]
)
def test_no_number_of_the_scale_is_as_wrong_as_can_be(answer: str, gold: float, expected: float) -> None:
    assert number_or_worst(answer, gold, (1, 5)) == expected


@given(st.text(), st.floats(0, 1))
def test_every_answer_is_on_the_scale(answer: str, gold: float) -> None:
    assert 0 <= number_or_worst(answer, gold, (0, 1)) <= 1


# --- form


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("the the the", 0.5), ("a b a b a", 0.5), ("A b a B", 1 / 3), ("one two three", 0), ("one one", 0), ("", 0)],
)
def test_repetition_is_the_share_of_pairs_that_were_there_before(answer: str, expected: float) -> None:
    assert repetition(answer) == pytest.approx(expected)


@given(st.text())
def test_repetition_is_a_share(answer: str) -> None:
    assert 0 <= repetition(answer) < 1
    assert repetition(f"{answer} {answer} {answer}") >= repetition(answer) - 1e-12


def test_length_is_counted_in_words() -> None:
    assert length_ratio("one two three", "four  five") == 1.5
    assert length_ratio("", "four") == 0
