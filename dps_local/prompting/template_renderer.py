"""What a model's chat template makes of messages: it is a Jinja program, or the name of one of llama.cpp's own."""

from __future__ import annotations

import ctypes
import importlib
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, Literal, TypedDict

import jinja2

from dps_local.engine import native

MAX_LINES = 2_000_000  # that a template may run: seconds; those of models run some thousand
MAX_SECONDS = 5.0  # and by the clock, as a line may do much


class Message(TypedDict):
    role: Literal["system", "user", "assistant"]
    content: str


Renderer = Callable[[Sequence[Message]], str]  # raises anything: a template is a program


def renderer(source: str, eos: str, bos: str, *, parts: bool) -> Renderer:
    """Return how a template renders messages, up to where the next answer starts.

    parts: the template is given a content as a list of parts, as those of models that also see are. Raises
    jinja2.TemplateError when the source cannot be read.
    """
    if source.strip() in _builtin():
        return lambda messages: _apply(source.strip(), messages)
    if any(token[1:] == ("operator", "**") for token in jinja2.Environment().lex(source)):
        return _refuse_powers
    formatter = importlib.import_module("llama_cpp.llama_chat_format").Jinja2ChatFormatter(source, eos, bos)

    def render(messages: Sequence[Message]) -> str:
        given = [{**m, "content": [{"type": "text", "text": m["content"]}]} if parts else m for m in messages]
        # no thinking: the user's words are scored right after the prompt
        return str(_bounded(lambda: formatter(messages=given, enable_thinking=False)).prompt)

    return render


def _refuse_powers(_: Sequence[Message]) -> str:
    """Refuse what is computed in C, and already when a template is compiled: nothing could end it."""
    raise ValueError("it takes powers, which may be endless")


def _bounded(call: Callable[[], Any]) -> Any:
    """Call a Jinja program, and raise RuntimeError when it runs too many lines, or too long: it may be endless."""
    left, end, before = MAX_LINES, time.monotonic() + MAX_SECONDS, sys.gettrace()

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        left -= 1
        if not left % 64 and time.monotonic() > end:
            raise RuntimeError(f"it is still running after {MAX_SECONDS:g} s")
        if left < 0:
            raise RuntimeError(f"it is still running after {MAX_LINES} lines")
        return trace if event != "call" or frame.f_code.co_filename == "<template>" else None

    sys.settrace(trace)
    try:
        return call()
    finally:
        sys.settrace(before)


def _builtin() -> list[str]:
    """Return the names of llama.cpp's own templates."""
    llama = native.load().llama
    names = (ctypes.c_char_p * llama.llama_chat_builtin_templates(None, 0))()
    llama.llama_chat_builtin_templates(names, len(names))
    return [name.decode() for name in names if name]


def _apply(name: str, messages: Sequence[Message]) -> str:
    """Render messages by one of llama.cpp's own templates."""
    llama = native.load().llama
    chat = (llama.llama_chat_message * len(messages))()
    for to, m in zip(chat, messages, strict=True):
        to.role, to.content = m["role"].encode(), m["content"].replace("\0", "").encode()
    size = 0
    for _ in range(2):
        buffer = ctypes.create_string_buffer(size)
        size = llama.llama_chat_apply_template(name.encode(), chat, len(chat), True, buffer, size)
        if size < 0:
            raise ValueError(f"llama.cpp's template {name} does not take these messages")
    return buffer.raw[:size].decode()
