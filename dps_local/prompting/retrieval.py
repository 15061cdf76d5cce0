"""Which texts go with a request: BM25 over words, by bm25s."""

from __future__ import annotations

import functools
import logging
from typing import Any

# a word, or one character of the scripts that do not part words by spaces
WORD = r"[\u3040-\u30ff\u3400-\u9fff]|\w+"


def most_relevant(texts: tuple[str, ...], query: str) -> list[int]:
    """Return the numbers of the texts that share a word with `query`, the most relevant first; of equals, the last."""
    numbers, index = _index(texts)
    words = _words((query,))[0]
    if index is None or not words:
        return []
    scores = dict(zip(numbers, index.get_scores(words), strict=True))
    return sorted((i for i in numbers if scores[i] > 0), key=lambda i: (-scores[i], -i))


@functools.lru_cache(maxsize=2)
def _index(texts: tuple[str, ...]) -> tuple[list[int], Any]:
    """Return the numbers of the texts that have words, and an index of these; None where there are none."""
    import bm25s  # nearly half a second that a start of the program need not wait for

    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it tells every index
    words = {i: words_of_text for i, words_of_text in enumerate(_words(texts)) if words_of_text}
    if not words:
        return [], None
    index = bm25s.BM25()
    index.index(list(words.values()), show_progress=False)
    return list(words), index


def _words(texts: tuple[str, ...]) -> list[list[str]]:
    import bm25s

    words: list[list[str]] = bm25s.tokenize(
        list(texts), token_pattern=WORD, stopwords=None, return_ids=False, show_progress=False
    )
    return words
