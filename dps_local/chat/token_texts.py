"""The texts of an answer's tokens."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator

from dps_local.chat.turn import Token
from dps_local.engine.model import Model
from dps_local.steering.decoding import Step


def with_texts(steps: Iterable[Step], model: Model) -> Iterator[Token]:
    """Yield each step with its text; a character whose bytes are several tokens comes with the last of them."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for step in steps:
        top = tuple(one._replace(piece=model.piece(one.id)) for one in step.top)
        yield Token(**{**vars(step), "top": top}, text=decoder.decode(model.piece(step.id)))


def known_tokens(ids: Iterable[int], text: str, model: Model) -> list[Token]:
    """Return tokens that were not drawn here, so that their texts make up `text`.

    Where the tokens of another program's text do not give it back, the first one has all of it.
    """
    tokens = list(with_texts((Step(i, None, None, None) for i in ids), model))
    if "".join(token.text for token in tokens) == text:
        return tokens
    return [Token(token.id, None, None, None, "" if i else text) for i, token in enumerate(tokens)]
