"""`ChatTemplate`: turns of a chat as the text that the model was trained on."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Literal, TypedDict

import jinja2

from dps_local.errors import ModelError
from dps_local.model import Model

# for base models, which have no template of their own
PLAIN = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}\n\n"
    "{% elif m.role == 'user' %}Request: {{ m.content }}\n"
    "{% else %}Answer: {{ m.content }}\n\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}Answer:{% endif %}"
)


class Message(TypedDict):
    role: Literal["system", "user", "assistant"]
    content: str


class ChatTemplate:
    """The model's own Jinja template, rendered by llama-cpp-python's formatter.

    stop: texts that end an answer where the model has no end-of-turn token (base models).
    """

    def __init__(self, model: Model) -> None:
        formatter = importlib.import_module("llama_cpp.llama_chat_format").Jinja2ChatFormatter
        self.stop: tuple[str, ...] = () if model.chat_template else ("\n\n", "\nRequest:", "\nAnswer:")
        try:
            self._formatter = formatter(
                model.chat_template or PLAIN, model.token_text(model.eos), model.token_text(model.bos)
            )
        except jinja2.TemplateError as exc:
            raise ModelError(f"{model.name}: its chat template is damaged: {exc}") from exc
        self._has_system = self._takes_system()

    def _takes_system(self) -> bool:
        """Whether a system message reaches the prompt: some templates refuse it, some drop it."""
        try:
            return "SYSTEM" in self._render([_message("system", "SYSTEM"), _message("user", "USER")])
        except ModelError:
            return False

    def _render(self, messages: Sequence[Message]) -> str:
        try:
            # no thinking: the user's words are scored right after the prompt
            return str(self._formatter(messages=list(messages), enable_thinking=False).prompt)
        except Exception as exc:  # a template is a program: it may fail in any way
            raise ModelError(f"the model's chat template fails: {' '.join(str(exc).split())}") from exc

    def first(self, system: str, user: str) -> str:
        """Return the prompt of the first turn, up to where the answer starts."""
        return self._render(self._opening(system, user))

    def _opening(self, system: str, user: str) -> list[Message]:
        if not system:
            return [_message("user", user)]
        if self._has_system:
            return [_message("system", system), _message("user", user)]
        return [_message("user", f"{system}\n\n{user}")]

    def next(self, system: str, turns: int, user: str) -> str:
        """Return what stands between an answer and the next one, after `turns` finished turns.

        Only this much is new: what came before is in the KV cache, token for token.
        """
        messages = self._opening(system, "…")
        for _ in range(turns - 1):
            messages += [_message("assistant", "…"), _message("user", "…")]
        answer = "\u0001"  # stands for the answer, whose tokens are in the KV cache already
        while answer in system + user:
            answer += "\u0001answer"
        messages += [_message("assistant", answer), _message("user", user)]
        _, found, after = self._render(messages).rpartition(answer)
        if not found:
            raise ModelError("the model's chat template drops an earlier answer: only single turns are possible")
        return after


def _message(role: Literal["system", "user", "assistant"], content: str) -> Message:
    return {"role": role, "content": content}
