"""`ChatTemplate`: turns of a chat as the text that the model was trained on."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from dps_local.engine.control_tokens import prompt_tokens
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
EARLIER = "Earlier writing:"  # before exchanges where they are a list and no turns
SYSTEM, QUESTION, ANSWER = "Zq1System", "Zq2Question", "Zq3Answer"  # are looked for in what a template renders
_THINK_TAG = re.compile(r"([<\[])([\w:]*think\w*)([>\]])", re.IGNORECASE)


class Exchange(NamedTuple):
    """A request, and what was written for it: a turn of a chat that the model is shown as if it had been."""

    request: str
    answer: str


class ChatTemplate:
    """The model's own Jinja template, rendered by llama-cpp-python's formatter, or the one of llama.cpp that it names.

    Where a template opens a thought at the end of a prompt, it is closed: the user's words are scored right after it.
    Exchanges are turns of the chat; where a template takes single turns only, or there is none, they are a list.

    stop: texts that end an answer where the model has no end-of-turn token (base models). Raises ModelError when the
    template is damaged, fails, or drops the question.
    """

    def __init__(self, model: Model) -> None:
        self.stop: tuple[str, ...] = () if model.chat_template else ("\n\n", "\nRequest:", "\nAnswer:")
        source = model.chat_template or FALLBACK_TEMPLATE
        self._model = model
        eos, bos = model.token_text(model.eos), model.token_text(model.bos)
        self._bos = bos
        if not isinstance(source, str):
            raise ModelError(f"{model.name}: its chat template is no text: download or convert the model again")
        try:
            forms = [renderer(source, eos, bos, parts=parts) for parts in (False, True)]
        except Exception as exc:  # not only Jinja's own: it may be nested too deeply, say
            raise ModelError(f"{model.name}: its chat template is damaged: {_one_line(exc)}") from exc
        self._renderer = max(forms, key=_n_rendered)  # the first of equals: a content is a text where that will do
        first = _render_or_empty(self._renderer, _chat(1, "system"))
        before, answer, after = _render_or_empty(self._renderer, _chat(2)).partition(ANSWER)
        self._has_turns = bool(model.chat_template) and QUESTION in before and QUESTION in after
        later = _render_or_empty(self._renderer, _chat(2, "system")) if answer else first
        # some templates refuse a system message, some drop it, and Mistral Nemo's moves it to the last question
        self._has_system = SYSTEM in first and SYSTEM in later.partition(ANSWER)[0]
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

    def first(self, system: str, user: str, earlier: Sequence[Exchange] = ()) -> str:
        """Return the prompt of the first turn behind earlier exchanges, up to where the answer starts."""
        prompt = self._render(self._opening(system, user, earlier))
        begins = prompt.lstrip()  # a template may write line breaks before the BOS token
        return begins if self._bos and begins.startswith(self._bos) else prompt

    def _opening(self, system: str, user: str, earlier: Sequence[Exchange] = ()) -> list[Message]:
        if earlier and not self._has_turns:
            system, earlier = in_words(system, earlier), ()
        messages = [*_turns(earlier), _message("user", user)]
        if not system:
            return messages
        if self._has_system:
            return [_message("system", system), *messages]
        return [_message("user", f"{system}\n\n{messages[0]['content']}"), *messages[1:]]

    def next(self, system: str, turns: int, user: str, earlier: Sequence[Exchange] = ()) -> str:
        """Return what stands between an answer and the next one, after `turns` finished turns.

        Only this much is new: what came before is in the KV cache, token for token, and the system message with it.
        earlier: exchanges that stand before the new question.
        """
        messages = self._opening(system, "…", [Exchange("…", "…")] * (turns - 1))
        answer = "\u0001"  # stands for the answer, whose tokens are in the KV cache already
        while answer in "".join([system, user, *(text for exchange in earlier for text in exchange)]):
            answer += "\u0001answer"
        messages += [_message("assistant", answer), *_turns(earlier), _message("user", user)]
        _, rendered_answer, after = self._render(messages).rpartition(answer)
        if not rendered_answer:
            raise ModelError("the model's chat template drops an earlier answer: only single turns are possible")
        return after

    def first_tokens(self, system: str, user: str, earlier: Sequence[Exchange] = ()) -> list[int]:
        """Return the tokens of `first`; control tokens in the texts are text."""
        return self._model.with_bos(self._tokens(self.first, system, user, earlier))

    def next_tokens(self, system: str, turns: int, user: str, earlier: Sequence[Exchange] = ()) -> list[int]:
        """Return the tokens of `next`; control tokens in the texts are text."""
        return self._tokens(lambda system, *rest: self.next(system, turns, *rest), system, user, earlier)

    def _tokens(self, render: Callable[..., str], system: str, user: str, earlier: Sequence[Exchange]) -> list[int]:
        def of_texts(system: str, user: str, *texts: str) -> str:
            return render(system, user, list(map(Exchange, texts[::2], texts[1::2])))

        return prompt_tokens(self._model, of_texts, system, user, *(text for exchange in earlier for text in exchange))


def in_words(system: str, earlier: Sequence[Exchange]) -> str:
    """Return a system message with exchanges as a list."""
    listed = [f"Request: {exchange.request}\nAnswer: {exchange.answer}" for exchange in earlier]
    return "\n\n".join([*([system] if system else []), *([EARLIER, *listed] if earlier else [])])


def _turns(exchanges: Sequence[Exchange]) -> list[Message]:
    return [
        message
        for exchange in exchanges
        for message in (_message("user", exchange.request), _message("assistant", exchange.answer))
    ]


def _message(role: Literal["system", "user", "assistant"], content: str) -> Message:
    return {"role": role, "content": content}


def _chat(turns: int, system: Literal["system"] | None = None) -> list[Message]:
    """Return a chat of marks, up to its last question."""
    answered = _turns([Exchange(QUESTION, ANSWER)] * (turns - 1))
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
