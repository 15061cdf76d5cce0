"""`Conversation`: a chat that is kept, and the turns of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from dps_local.chat.messages import Message
from dps_local.conversations.setup import Setup

TITLE = 60  # characters


class KeptTurn(NamedTuple):
    """answer: None while there is none, or where the program was killed before it was finished."""

    question: str
    answer: Message | None


@dataclass(frozen=True)
class Conversation:
    """turns: that are answered. created, updated: ISO 8601, UTC. revision: grows with each change."""

    id: int
    title: str
    setup: Setup
    created: str
    updated: str
    turns: int
    revision: int

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "title": self.title,
            "model": self.setup.model,
            "turns": self.turns,
            "updated": self.updated,
            "created": self.created,
            "person": self.setup.person,
            "mode": self.setup.mode,
        }


def title_of(question: str) -> str:
    """Return the beginning of a question, in one line."""
    words = " ".join(question.split())
    return words if len(words) <= TITLE else words[: TITLE - 1].rstrip() + "…"


def messages_of(turns: Sequence[KeptTurn]) -> list[Message]:
    """Return what `Session.restore` takes: the turns that have an answer."""
    return [
        message
        for turn in turns
        if turn.answer
        for message in (Message(role="user", content=turn.question), turn.answer)
    ]


def without_tokens(messages: Sequence[Message]) -> list[Message]:
    """Return messages as another program would keep them: their texts are read again."""
    return [Message(role=message["role"], content=message["content"]) for message in messages]
