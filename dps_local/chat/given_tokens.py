"""`GivenTokens`: a sampler that draws what was drawn before, to let an answer happen again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from dps_local.engine.sampler import Sampler


class GivenTokens(Sampler):
    """Draws these tokens, whatever the logits are, and token 0 when there are no more."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self.temp = 0.0
        self._tokens, self._drawn = tokens, 0

    def sample(self, *_: Any) -> int:
        self._drawn += 1
        return self._tokens[self._drawn - 1] if self._drawn <= len(self._tokens) else 0

    def needs_few(self, _: int) -> bool:
        return True

    def sample_last(self, *_: Any) -> int:
        return self.sample()

    def clone(self) -> GivenTokens:
        other = GivenTokens(self._tokens)
        other._drawn = self._drawn
        return other

    def restore(self, clone: Sampler) -> None:
        assert isinstance(clone, GivenTokens)
        self._drawn = clone._drawn

    def accept(self, tokens: Iterable[int]) -> None:
        """Count nothing: there are no penalties."""

    recount = accept
