"""What contexts were asked to decode, and with which heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from dps_local.engine.context import Context, Logits, Run
from dps_local.engine.model import HeadScales


@dataclass(frozen=True, eq=False)
class Decoded:
    """What a call of Context.decode had of one sequence, and the head scales that were set for it."""

    context: Context
    seq: int
    tokens: list[int]
    scales: HeadScales | None


def spy(monkeypatch: pytest.MonkeyPatch) -> list[Decoded]:
    """Return a list that every call of Context.decode is added to from now on."""
    calls: list[Decoded] = []
    now: dict[tuple[Context, int], HeadScales | None] = {}
    decode, set_head_scales = Context.decode, Context.set_head_scales

    def set_(self: Context, seq: int, scales: HeadScales | None) -> None:
        now[self, seq] = scales
        set_head_scales(self, seq, scales)

    def decode_(self: Context, runs: Sequence[Run]) -> Logits:
        calls.extend(Decoded(self, run.seq, list(run.tokens), now.get((self, run.seq))) for run in runs)
        return decode(self, runs)

    monkeypatch.setattr(Context, "set_head_scales", set_)
    monkeypatch.setattr(Context, "decode", decode_)
    return calls
