"""Which texts go with a request: BM25 over words (Robertson and Zaragoza 2009; idf as in Lucene)."""

from __future__ import annotations

import functools
import math
import re
from collections import Counter, defaultdict
from itertools import pairwise

# a word, or one character of the scripts that do not part words by spaces
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|\w+")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")
K1, B = 1.5, 0.75  # how soon more of a word counts no more, and how far a long text may have more of them


def most_relevant(texts: tuple[str, ...], query: str) -> list[int]:
    """Return the numbers of the texts that share a word with `query`, the most relevant first; of equals, the last."""
    return _ranked(_index(texts), query)


def passage(text: str, query: str) -> str:
    """Return a text from the sentence on that has most to do with `query`; all of it where none has."""
    starts = [0, *(end.end() for end in SENTENCE_END.finditer(text))]
    sentences = tuple(text[a:b] for a, b in pairwise([*starts, len(text)]))
    found = _ranked(_weights(sentences), query)
    return f"… {text[starts[found[0]] :]}" if found and found[0] else text


def _ranked(weights: dict[str, dict[int, float]], query: str) -> list[int]:
    scores = defaultdict[int, float](float)
    for word in _words(query):
        for i, weight in weights.get(word, {}).items():
            scores[i] += weight
    return sorted(scores, key=lambda i: (-scores[i], -i))


def _weights(texts: tuple[str, ...]) -> dict[str, dict[int, float]]:
    """Return what a word counts for each text that has it. An index of our own: a library's takes longer to import."""
    counts = {i: Counter(words) for i, text in enumerate(texts) if (words := _words(text))}
    n, n_words = len(counts), sum(count.total() for count in counts.values())
    weights = defaultdict[str, dict[int, float]](dict)
    for i, count in counts.items():
        half = K1 * (1 - B + B * count.total() * n / n_words)
        for word, times in count.items():
            weights[word][i] = times / (times + half)
    for of_word in weights.values():
        idf = math.log(1 + (n - len(of_word) + 0.5) / (len(of_word) + 0.5))
        for i in of_word:
            of_word[i] *= idf
    return dict(weights)


_index = functools.lru_cache(maxsize=2)(_weights)  # of a history, which many requests go to


def _words(text: str) -> list[str]:
    return WORD.findall(text.lower())
