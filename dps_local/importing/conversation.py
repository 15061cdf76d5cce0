"""`Conversation`: own messages that follow each other become one text, and what others said before them its input."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dps_local.importing.writing import Writing

TOGETHER = timedelta(minutes=5)  # own messages that are not further apart are one text
ANSWERED = timedelta(hours=12)  # what others said longer ago is not what is answered
LONGEST = 4000  # characters of one text, by when it is no more a message
INPUT = 300  # characters of an input
MARKS = "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # of direction, unseen
_CODE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_QUOTE = re.compile(r" ?>(?:>>)?(?: |$)")


@dataclass(frozen=True)
class Message:
    """One message of a chat. at: with a zone where it is known."""

    text: str
    own: bool
    at: datetime | None = None


class Conversation:
    """Takes the messages of one chat in their order. source: of the writings."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._own, self._others = list[Message](), deque[Message](maxlen=10)

    def add(self, message: Message) -> Iterator[Writing]:
        """Yield the text that ends before this message, if any does."""
        if not message.own:
            yield from self.end()
            self._others.append(message)
            return
        if self._own and (
            _apart(self._own[-1], message) > TOGETHER or sum(len(own.text) for own in self._own) > LONGEST
        ):
            yield from self.end()
        self._own.append(message)

    def end(self) -> Iterator[Writing]:
        """Yield the last text."""
        if self._own:
            heard = [other.text for other in self._others if _apart(other, self._own[0]) < ANSWERED]
            text = "\n".join(own.text for own in self._own)
            self._others.clear()
            yield writing(text, self.source, self._own[0].at, "\n".join(heard))
            self._own.clear()


def joined(messages: Iterable[Message], source: str) -> Iterator[Writing]:
    """Yield the own texts of one chat."""
    conversation = Conversation(source)
    for message in messages:
        yield from conversation.add(message)
    yield from conversation.end()


def writing(text: str, source: str, at: datetime | None = None, input: str = "") -> Writing:
    """Return a writing whose input is shortened, and whose text can be written as UTF-8."""
    return Writing(_valid(text), _valid(shortened(input)), at.isoformat(timespec="seconds") if at else "", source)


def shortened(text: str) -> str:
    """Return the last words of a text, as these are what is answered."""
    text = text.strip()
    return text if len(text) <= INPUT else "… " + text[-INPUT:].partition(" ")[2].strip()


def folded(name: str) -> str:
    """Return a name as it is compared: without case, marks of direction and kinds of space."""
    return " ".join(re.sub(f"[{MARKS}]", "", name).split()).casefold()


def is_one_of(me: Collection[str], *names: object) -> bool:
    """Return whether one of the names, ids or addresses of an author is one of the person's."""
    return not {folded(name) for name in names if isinstance(name, str) and name}.isdisjoint(map(folded, me))


def since_1970(seconds: object) -> datetime | None:
    """Return the time of a Unix timestamp, a number or the text of one; None where it is none."""
    try:
        return datetime.fromtimestamp(float(seconds), UTC)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def from_iso(text: object) -> datetime | None:
    """Return the time of an ISO 8601 text; None where it is none."""
    try:
        return datetime.fromisoformat(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def without_code_and_quotes(text: str) -> str:
    """Leave out fenced code, and lines that quote: with "> ", unlike >_<."""
    lines = _CODE.sub("", text).split("\n")
    return "\n".join(line for line in lines if not _QUOTE.match(line)).strip()


def _apart(one: Message, other: Message) -> timedelta:
    """Return the time between two messages; none where it is unknown."""
    if not one.at or not other.at or (one.at.tzinfo is None) != (other.at.tzinfo is None):
        return timedelta()
    return abs(other.at - one.at)


def _valid(text: str) -> str:
    return text.encode(errors="replace").decode().strip()
