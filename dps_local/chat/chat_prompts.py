"""`ChatPrompts`: the turns of a chat as the tokens that the model reads."""

from __future__ import annotations

from functools import cached_property

from dps_local.engine.control_tokens import prompt_tokens
from dps_local.engine.model import Model
from dps_local.engine.stream import common
from dps_local.prompting.chat_template import ChatTemplate


class ChatPrompts:
    """Prompts of one chat, whose first one begins with a system message."""

    def __init__(self, model: Model, template: ChatTemplate, system: str) -> None:
        self.model, self.template, self.system = model, template, system

    def tokens(self, user: str, n_turns: int, system: str | None = None) -> list[int]:
        """Return the tokens from the end of the last answer, after so many turns, up to where the next one starts.

        system: in place of the chat's.
        """
        system = self.system if system is None else system
        if not n_turns:
            return self.model.with_bos(prompt_tokens(self.model, self.template.first, system, user))
        return prompt_tokens(self.model, lambda *texts: self.template.next(texts[0], n_turns, texts[1]), system, user)

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
