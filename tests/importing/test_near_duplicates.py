"""Near-duplicates: against Jaccard's index of all pairs, worked out the long way."""

from __future__ import annotations

import random

from dps_local.importing.near_duplicates import ALIKE, near_duplicates

WORDS = ["pump", "valve", "seal", "pressure", "drawing", "offer", "hose", "gasket", "torch", "water", "mill", "lane"]


def runs(text: str) -> set[tuple[str, ...]]:
    words = text.split(" ")
    return {tuple(words[i : i + 3]) for i in range(len(words) - 2)}


def test_texts_that_are_nearly_one_before_are_found() -> None:
    rng = random.Random(3)
    texts = [" ".join(rng.choices(WORDS, k=40)) for _ in range(150)]
    for text in texts[:60]:
        words = text.split(" ")
        for _ in range(rng.randrange(1, 8)):
            words[rng.randrange(40)] = "other"
        texts.append(" ".join(words))
    of, expected = [runs(text) for text in texts], set[int]()
    for i in range(len(texts)):
        if any(len(of[i] & of[j]) / len(of[i] | of[j]) >= ALIKE for j in range(i) if j not in expected):
            expected.add(i)
    assert 10 < len(expected) < 60
    assert near_duplicates(texts) == expected


def test_short_texts_are_alike_when_their_words_are() -> None:
    assert near_duplicates(["Thank you!", "thank you", "Thank them", "", "?!", "木曜日"]) == {1}
