"""How like a person a text is, against numbers typed by hand and a computation in dictionaries."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from dps_local.evaluation.style_margin import StyleMargin, ngrams


def test_ngrams_are_of_two_to_four_characters_and_know_case() -> None:
    assert ngrams("Abc  d") == Counter(["Ab", "bc", "c ", " d", "Abc", "bc ", "c d", "Abc ", "bc d"])
    assert ngrams("A") == Counter()


def test_rare_ngrams_count_more_and_others_are_averaged() -> None:
    """Of 4 texts, 2 have 'ab' (log(5/3) + 1 = 1.5108), one has 'cd' and one 'ef' (log(5/2) + 1 = 1.9163)."""
    margin = StyleMargin({"ann": ["ab"], "bob": ["ab", "cd"], "cyd": ["ef"]})
    # 'ab cd' is (1.5108, 1.9163) / 2.4402; ann is (1, 0), bob (1, 1) / √2
    assert margin("bob", "ab cd") == pytest.approx(0.9931 - (0.6191 + 0) / 2, abs=1e-4)
    assert margin("ann", "ab cd") == pytest.approx(0.6191 - (0.9931 + 0) / 2, abs=1e-4)
    assert margin("cyd", "ef") == pytest.approx(1)
    assert margin("cyd", "ab") == pytest.approx(-(1 + 1 / math.sqrt(2)) / 2)
    assert margin("cyd", "AB") == margin("cyd", "") == 0  # nothing that anyone wrote


def test_a_margin_is_that_of_dictionaries() -> None:
    texts = {"ann": ["Dear all, thanks!", "thanks a lot"], "bob": ["Re: gas prices"], "cyd": ["re: gas", "FYI", "ok"]}
    every = [ngrams(text) for its in texts.values() for text in its]

    def vector(text: str) -> dict[str, float]:
        idf = {g: math.log((1 + len(every)) / (1 + sum(g in t for t in every))) + 1 for t in every for g in t}
        raw = {g: n * idf[g] for g, n in ngrams(text).items() if g in idf}
        length = math.sqrt(sum(x * x for x in raw.values()))
        return {g: x / length for g, x in raw.items()}

    def cosine(person: str, text: str) -> float:
        vectors = [vector(t) for t in texts[person]]
        mean = {g: sum(v.get(g, 0) for v in vectors) / len(vectors) for v in vectors for g in v}
        length = math.sqrt(sum(x * x for x in mean.values()))
        return sum(x * mean.get(g, 0) for g, x in vector(text).items()) / length

    text = "thanks, re: gas prices thanks"
    expected = cosine("cyd", text) - (cosine("ann", text) + cosine("bob", text)) / 2
    assert StyleMargin(texts)("cyd", text) == pytest.approx(expected)


def test_without_texts_of_one_s_own_and_of_others_there_is_no_margin() -> None:
    assert StyleMargin({"ann": ["ab"], "bob": []})("ann", "ab") is None
    assert StyleMargin({"ann": ["ab"], "bob": [], "cyd": ["cd"]})("bob", "ab") is None
    assert StyleMargin({})("ann", "ab") is None
