"""What a chat does when something goes wrong in the middle, with a session that does only that."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dps_local.chat.session import Session
from dps_local.cli.conversation import Conversation
from dps_local.cli.terminal import Terminal
from dps_local.errors import ModelError, NativeError


def chat_of(**session: Any) -> Conversation:
    return Conversation(cast(Session, SimpleNamespace(**session)), Terminal())


def test_ctrl_c_while_a_turn_is_taken_back_keeps_the_chat(capsys: pytest.CaptureFixture[str]) -> None:
    def undo() -> None:
        raise KeyboardInterrupt

    assert chat_of(undo=undo, steering=None, turns=["a turn"], past=[]).handle("/undo")
    assert capsys.readouterr().err == "[stopped: nothing is taken back]\n"


@pytest.mark.parametrize(("error", "tried"), [(ModelError("no"), 3), (NativeError("broken"), 1)])
def test_a_pipe_goes_on_after_a_question_that_failed_but_not_with_a_broken_engine(
    error: Exception, tried: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\ntwo\nthree\n"))
    questions: list[str] = []

    def ask(question: str, _: int, **__: object) -> None:
        questions.append(question)
        raise error

    chat = chat_of(ask=ask, steering=None, turns=[])
    if isinstance(error, NativeError):
        with pytest.raises(NativeError):
            chat.run()
    else:
        assert not chat.run()
        assert capsys.readouterr().err == "error: no\n" * 3
    assert len(questions) == tried
