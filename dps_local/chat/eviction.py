"""Eviction: which turns leave a full context, and how those behind them move up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dps_local.chat.turn import Turn
from dps_local.errors import ContextFullError, Remedy

ROOM = 8  # an answer shall have this part of what the system message leaves of the context, before turns leave


@dataclass(frozen=True)
class Eviction:
    """The first `n_turns` turns leave; the tokens from `start`, where the system message ends, to `end` are theirs."""

    n_turns: int
    start: int
    end: int


def is_due(turns: Sequence[Turn], n_predict: int, n_ctx: int) -> bool:
    """Whether the answer of the last turn is likely not to fit in; raises ContextFullError if it never will."""
    turn, keep = turns[-1], turns[0].question
    if keep + (question := len(turn.pending) - turn.opening) >= n_ctx:
        cause, remedy = "the question needs more than", Remedy.LARGER_CONTEXT
        if keep > question:
            cause, remedy = "the profile leaves the question too little of", Remedy.SHORTER_ABOUT
        raise ContextFullError(f"{cause} the context of {n_ctx} tokens", remedy)
    used, room = turn.answer + 1, (n_ctx - keep) // ROOM
    return used + max(1, min(n_predict, room) if n_predict >= 0 else room) > n_ctx


def evict(turns: Sequence[Turn], n_used: int, n_ctx: int) -> Eviction | None:
    """Choose the oldest turns, until half of what the system message leaves is free; None where none can leave.

    turns: those in the context, of which the last stays. n_used: the tokens that all of them need.
    """
    keep, half = turns[0].question, (n_ctx + turns[0].question) // 2
    n = next((k for k, t in enumerate(turns) if k and n_used - (t.question - keep) <= half), len(turns) - 1)
    return Eviction(n, keep, turns[n].question) if n else None


def move_up(turns: Sequence[Turn], eviction: Eviction, system: list[int]) -> None:
    """Let turns stand where they are after an eviction; system: the tokens that stay before the first of them."""
    for turn in turns:
        turn.start -= eviction.end - eviction.start
    first = turns[0]
    first.pending = system + first.pending[first.opening :]
    first.start, first.opening = 0, eviction.start
