"""`PlainText`: stands for a chat template where a text is to be completed as it is."""

from __future__ import annotations

from collections.abc import Sequence

from dps_local.engine.model import Model
from dps_local.prompting.chat_template import ChatTemplate, Exchange


class PlainText(ChatTemplate):
    """Shows a text as the model's tokens, its control tokens too, as llama.cpp's server does; there are no turns."""

    def __init__(self, model: Model) -> None:
        self.stop, self._model = (), model

    def first_tokens(self, system: str, user: str, earlier: Sequence[Exchange] = ()) -> list[int]:
        del system, earlier
        return self._model.prompt_tokens(user)
