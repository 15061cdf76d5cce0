"""`ChatTemplate`: turns of a chat as the text that the model was trained on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from dps_local.engine.model import Model
from dps_local.errors import ModelError
from dps_local.prompting.template_renderer import Message, Renderer, renderer

# for base models, which have no template of their own
FALLBACK_TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}\n\n"
    "{% elif m.role == 'user' %}Request: {{ m.content }}\n"
    "{% else %}Answer: {{ m.content }}\n\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}Answer:{% endif %}"
)
SYSTEM, QUESTION, ANSWER = "Zq1System", "Zq2Question", "Zq3Answer"  # are looked for in what a template renders
_THINK_TAG = re.compile(r"([<\[])([\w:]*think\w*)([>\]])", re.IGNORECASE)


class ChatTemplate:
    """The model's own Jinja template, rendered by llama-cpp-python's formatter, or the one of llama.cpp that it names.

    Where a template opens a thought at the end of a prompt, it is closed: the user's words are scored right after it.

    stop: texts that end an answer where the model has no end-of-turn token (base models). Raises ModelError when the
    template is damaged, fails, or drops the question.
    """

    def __init__(self, model: Model) -> None:
        self.stop: tuple[str, ...] = () if model.chat_template else ("\n\n", "\nRequest:", "\nAnswer:")
        source = model.chat_template or FALLBACK_TEMPLATE
        eos, bos = model.token_text(model.eos), model.token_text(model.bos)
        self._bos = bos
        if not isinstance(source, str):
            raise ModelError(f"{model.name}: its chat template is no text: download or convert the model again")
        try:
            forms = [renderer(source, eos, bos, parts=parts) for parts in (False, True)]
        except Exception as exc:  # not only Jinja's own: it may be nested too deeply, say
            raise ModelError(f"{model.name}: its chat template is damaged: {_one_line(exc)}") from exc
        self._renderer = max(forms, key=_n_rendered)  # the first of equals: a content is a text where that will do
        first, later = (_render_or_empty(self._renderer, _chat(turns, "system")) for turns in (1, 2))
        self._has_system = SYSTEM in first  # some templates refuse a system message, some drop it
        self._moves_system = SYSTEM in later.rpartition(ANSWER)[2]  # to the last question, as Mistral Nemo's
        self._closing = ""
        prompt = self._render(_chat(1, "system" if self._has_system else None))
        if QUESTION not in prompt:
            raise ModelError(
                f"{model.name}: its chat template drops the question: use a copy of the model with another template"
            )
        self._closing = _closing(prompt.rpartition(QUESTION)[2])

    def _render(self, messages: Sequence[Message]) -> str:
        try:
            return self._renderer(messages) + self._closing
        except Exception as exc:  # a template is a program: it may fail in any way
            raise ModelError(f"the model's chat template fails: {_one_line(exc)}") from exc

    def first(self, system: str, user: str) -> str:
        """Return the prompt of the first turn, up to where the answer starts."""
        prompt = self._render(self._opening(system, user))
        begins = prompt.lstrip()  # a template may write line breaks before the BOS token
        return begins if self._bos and begins.startswith(self._bos) else prompt

    def _opening(self, system: str, user: str) -> list[Message]:
        if not system:
            return [_message("user", user)]
        if self._has_system:
            return [_message("system", system), _message("user", user)]
        return [_message("user", f"{system}\n\n{user}")]

    def next(self, system: str, turns: int, user: str) -> str:
        """Return what stands between an answer and the next one, after `turns` finished turns.

        Only this much is new: what came before is in the KV cache, token for token, and the system message with it.
        """
        messages = self._opening("" if self._moves_system else system, "…")
        for _ in range(turns - 1):
            messages += [_message("assistant", "…"), _message("user", "…")]
        answer = "\u0001"  # stands for the answer, whose tokens are in the KV cache already
        while answer in system + user:
            answer += "\u0001answer"
        messages += [_message("assistant", answer), _message("user", user)]
        _, rendered_answer, after = self._render(messages).rpartition(answer)
        if not rendered_answer:
            raise ModelError("the model's chat template drops an earlier answer: only single turns are possible")
        return after


def _message(role: Literal["system", "user", "assistant"], content: str) -> Message:
    return {"role": role, "content": content}


def _chat(turns: int, system: Literal["system"] | None = None) -> list[Message]:
    """Return a chat of marks, up to its last question."""
    answered = [_message("user", QUESTION), _message("assistant", ANSWER)] * (turns - 1)
    return [*([_message(system, SYSTEM)] if system else []), *answered, _message("user", QUESTION)]


def _one_line(exc: Exception) -> str:
    return " ".join(str(exc).split()) or type(exc).__name__


def _render_or_empty(render: Renderer, messages: Sequence[Message]) -> str:
    try:
        return render(messages)
    except Exception:  # a template may refuse what it is not made for
        return ""


def _n_rendered(render: Renderer) -> int:
    """Return how much of a chat a template lets through: the question, the system message, an earlier answer."""
    with_system, alone, later = (_render_or_empty(render, chat) for chat in (_chat(1, "system"), _chat(1), _chat(2)))
    return (QUESTION in with_system + alone) + (SYSTEM in with_system) + (ANSWER in later)


def _closing(generation_prompt: str) -> str:
    """Return what ends a thought that a template has opened at the end of a prompt, '' where it has not."""
    for opened in reversed(list(_THINK_TAG.finditer(generation_prompt))):
        closes = opened.expand(r"\1/\2\3")
        if closes in generation_prompt[opened.end() :]:
            return ""
        return ("\n" if generation_prompt.endswith("\n") else "\n\n") + closes + "\n\n"
    return ""
