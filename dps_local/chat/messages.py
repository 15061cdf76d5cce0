"""Messages: a conversation as role and content, as chat programs exchange it, with what a restart needs beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Required, TypedDict

from dps_local.chat.turn import StopReason, Turn
from dps_local.errors import MessagesError


class Message(TypedDict, total=False):
    """One message. An assistant's may have what gives the same KV cache again, bit for bit on a CPU.

    tokens: of the content. n_decoded: how many tokens were decoded after the prompt but for its last one: of that
    one, the answer's, and the end-of-generation token. n_predict: what was asked for. stop: why the answer ended.
    gamma: that steered it; an answer without one was steered as the session steers.
    """

    role: Required[Literal["system", "user", "assistant"]]
    content: Required[str]
    tokens: list[int]
    n_decoded: int
    n_predict: int
    stop: StopReason
    gamma: str


def of_turn(turn: Turn) -> tuple[Message, Message]:
    """Return a turn as two messages."""
    answer = Message(
        role="assistant",
        content=turn.text,
        tokens=turn.ids,
        n_decoded=turn.n_decoded,
        n_predict=turn.n_predict,
        stop=turn.stop,
        gamma=turn.gamma,
    )
    return Message(role="user", content=turn.user), answer


def exchanges(messages: Sequence[Message]) -> tuple[str | None, list[tuple[Message, Message]]]:
    """Return the system message, None without one, and the pairs of question and answer.

    Raises MessagesError unless questions and answers take turns, beginning with a question, ending with an answer.
    """
    system = messages[0]["content"] if messages and messages[0]["role"] == "system" else None
    rest = messages if system is None else messages[1:]
    roles = [message["role"] for message in rest]
    if roles != ["user", "assistant"] * (len(rest) // 2):
        raise MessagesError(
            f"the messages' roles are {', '.join(roles)}: user and assistant take turns, from a user's to an "
            "assistant's, behind at most one of role system"
        )
    return system, list(zip(rest[::2], rest[1::2], strict=True))
