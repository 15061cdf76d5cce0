"""`Transcript`: the turns of a chat: those in the context, and the messages of those that have left it."""

from __future__ import annotations

from collections.abc import Sequence

from dps_local.chat import eviction
from dps_local.chat.messages import Message, of_turn
from dps_local.chat.stream_pair import StreamPair
from dps_local.chat.turn import Turn


class Transcript:
    def __init__(self) -> None:
        self.turns: list[Turn] = []  # that are in the context
        self._left: list[Message] = []  # of the turns that were

    def clear(self) -> None:
        self.turns, self._left = [], []

    @property
    def past(self) -> list[tuple[str, str]]:
        """Questions and answers of the turns that have left the context."""
        contents = [message["content"] for message in self._left]
        return list(zip(contents[::2], contents[1::2], strict=True))

    def messages(self) -> list[Message]:
        """Return all turns as messages."""
        return [*self._left, *(message for turn in self.turns for message in of_turn(turn))]

    def recalled(self) -> set[int]:
        """Return the numbers of the items that came with the questions in the context."""
        return {i for turn in self.turns for i in turn.recalled}

    def evict(self, turn: Turn, turns: Sequence[Turn], n_used: int, streams: StreamPair) -> bool:
        """Let the oldest turns leave the context, to make room for the answer of `turn`; False if none can.

        turns: those in the context, and `turn`. n_used: the tokens that all of them need.
        """
        leaving = eviction.evict(turns, n_used, streams.full.context.n_ctx)
        if leaving is None:
            return False
        streams.drop(leaving.start, leaving.end)
        eviction.move_up(turns[leaving.n_turns :], leaving, streams.full.tokens()[: leaving.start])
        self._left += [message for left in turns[: leaving.n_turns] for message in of_turn(left)]
        self.turns = self.turns[leaving.n_turns :]
        turn.left += leaving.n_turns
        return True
