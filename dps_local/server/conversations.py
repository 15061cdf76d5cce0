"""`Conversations`: the last few conversations, whose contexts are kept for the messages that go on from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from dps_local.assistant import Assistant
from dps_local.steering.mixing import Gamma
from dps_local.steering.steering import SteeringMode


class Key(NamedTuple):
    """What a conversation belongs to for as long as it is kept. person: None for the plain model."""

    person: str | None
    gamma: Gamma | None
    mode: SteeringMode | None
    system: str
    chat: bool


class Conversations:
    """open_: begins one. n: how many are kept; then the least recently used one is closed."""

    def __init__(self, open_: Callable[[Key], Assistant], n: int) -> None:
        self._open, self._n = open_, n
        self._kept: list[tuple[Key, Assistant]] = []  # the least recently used first

    def take(self, key: Key, pairs: Sequence[tuple[str, str]]) -> Assistant:
        """Return the one that shares most turns with `pairs`, or a new one where none shares any."""
        shared = [(assistant.session.shared(pairs), i) for i, (of, assistant) in enumerate(self._kept) if of == key]
        most, i = max(shared, default=(0, 0))
        if most:
            found = self._kept.pop(i)[1]
        else:
            while len(self._kept) >= self._n:
                self._kept.pop(0)[1].close()
            found = self._open(key)
        self._kept.append((key, found))
        return found

    def drop(self, assistant: Assistant) -> None:
        """Close one that something went wrong in."""
        self._kept = [(key, kept) for key, kept in self._kept if kept is not assistant]
        assistant.close()

    def close(self) -> None:
        for _, assistant in self._kept:
            assistant.close()
        self._kept = []
