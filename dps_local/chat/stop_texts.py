"""Stop texts: what ends an answer where the model has no end-of-turn token (base models)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from dps_local.chat.turn import Token, Turn


def until_stop(
    tokens: Iterator[Token], turn: Turn, stops: Sequence[str], tokenize: Callable[[str], list[int]]
) -> Iterator[Token]:
    """Yield the tokens of an answer up to the first stop text; sets the turn's `stop`, and its `tail`.

    Tokens are held back while they may be the beginning of a stop text.
    """
    held: list[Token] = []
    for token in tokens:
        held.append(token)
        text = "".join(t.text for t in held)
        if ends := [text.index(stop) for stop in stops if stop in text]:
            turn.stop = "stop"
            yield from _cut(held, min(ends), turn, tokenize)
            return
        if not any(_overlap(text, stop) for stop in stops):
            yield from held
            held = []
    yield from held


def _cut(tokens: list[Token], length: int, turn: Turn, tokenize: Callable[[str], list[int]]) -> Iterator[Token]:
    """Yield the tokens of the first `length` characters; what is left of a token that is cut goes on as `tail`."""
    for token in tokens:
        if length <= 0:
            return
        if length < len(token.text):
            token = replace(token, text=token.text[:length])
            turn.tail = tokenize(token.text)
        yield token
        length -= len(token.text)


def _overlap(text: str, stop: str) -> bool:
    """Whether `text` ends with a beginning of `stop`."""
    return any(text.endswith(stop[:n]) for n in range(1, len(stop) + 1))
