"""`ChatPrompts`: the turns of a chat as the tokens that the model reads."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from dps_local.engine.stream import common
from dps_local.prompting.chat_template import ChatTemplate, Exchange


class ChatPrompts:
    """Prompts of one chat, whose first one begins with a system message and earlier exchanges."""

    def __init__(self, template: ChatTemplate, system: str, earlier: Sequence[Exchange] = ()) -> None:
        self.template, self.system, self.earlier = template, system, earlier

    def tokens(self, user: str, n_turns: int, exchanges: Sequence[Exchange] = ()) -> list[int]:
        """Return the tokens from the end of the last answer, after so many turns, up to where the next one starts.

        exchanges: that stand before this question.
        """
        if n_turns:
            return self.template.next_tokens(self.system, n_turns, user, exchanges)
        return self.template.first_tokens(self.system, user, [*self.earlier, *exchanges])

    def opening(self, n_turns: int) -> list[int]:
        """Return the tokens that the prompt begins with, whatever is asked."""
        return self._opening(n_turns) if n_turns else self.prefix

    @cached_property
    def prefix(self) -> list[int]:
        """Tokens that the prompts of all first turns begin with."""
        return self._opening(0)

    def _opening(self, n_turns: int) -> list[int]:
        first, *others = (self.tokens(user, n_turns) for user in ("A", "on", "3", "¿"))
        return first[: min(common(first, other) for other in others)]
