"""Words in texts, whatever their case and accents; every word is plain text, and may be part of a longer one.

All texts are read for it. An index would keep words of what was removed until it is made anew, and finds none in
languages that are written without spaces.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

BEFORE, ROOM = 30, 100  # characters of an excerpt, before the first word and in all


def folded(text: str) -> str:
    """Return a text without case and accents."""
    if text.isascii():
        return text.lower()
    parts = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in parts if not unicodedata.combining(letter))


def excerpt(text: str, words: Sequence[str]) -> str | None:
    """Return about where the first of the words stands, None unless all of them are in the text.

    words: folded.
    """
    plain = folded(text)
    if not all(word in plain for word in words):
        return None
    start = max(0, plain.find(words[0]) - BEFORE) if words else 0
    found = " ".join(text[start : start + ROOM].split())
    return f"{'…' * bool(start)}{found}{'…' * (len(text) > start + ROOM)}"
