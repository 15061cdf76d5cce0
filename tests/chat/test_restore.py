"""A conversation that begins again from its messages goes on as if it had never stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opened import shared
from tiny import TinyModel

from dps_local.chat.messages import Message
from dps_local.chat.session import Session
from dps_local.engine.model import Model, Scope, head_mask
from dps_local.engine.sampler import Sampling
from dps_local.errors import MessagesError
from dps_local.prompting.chat_template import ChatTemplate
from dps_local.steering.decoding import Engine
from dps_local.steering.mixing import Gamma
from dps_local.steering.steering import Steering, SteeringMode

QUESTIONS = ["Where is the harbour?", "And the tide?", "Who said so?"]
SYSTEM = "You write for Ada."
CHILD = """
import json, sys
import dps_local as dps
from dps_local.chat.session import Session
path, messages, question, n, n_ctx = json.load(sys.stdin)
with dps.Model(path) as model, Session(
    model, system="You write for Ada.", sampling=dps.Sampling(temp=0), n_ctx=n_ctx, n_threads=1
) as session:
    assert session.restore(messages)
    print(json.dumps([token.id for token in session.ask(question, n)]))
"""
Open = Callable[..., Session]


def steered(model: Model, mode: SteeringMode, scope: Scope) -> Steering:
    heads = [] if mode == "cad" else [(0, 1), (1, 0), (2, 2)]
    return Steering(head_mask(model, heads), Gamma(0.7), 0.05, scope, mode)


def kept(session: Session) -> list[Message]:
    """Return the messages of a chat, through JSON as on a disk."""
    messages: list[Message] = json.loads(json.dumps(session.messages()))
    return messages


def assert_same(restored: Session, session: Session) -> None:
    assert restored.full.context.state() == session.full.context.state()
    assert restored.messages() == session.messages()
    assert restored.past == session.past
    assert [(t.start, t.pending, t.opening) for t in restored.turns] == [
        (t.start, t.pending, t.opening) for t in session.turns
    ]


@pytest.mark.parametrize("n_ctx", [512, 256], ids=["all turns fit", "turns leave"])
def test_three_turns_are_two_turns_and_a_third_in_a_new_process(
    open_session: Open, tiny_model: TinyModel, n_ctx: int
) -> None:
    session = open_session(system=SYSTEM, n_ctx=n_ctx)
    for question in QUESTIONS[:2]:
        list(session.ask(question, 60))
    messages = kept(session)
    expected = [token.id for token in session.ask(QUESTIONS[2], 60)]
    assert bool(session.past) == (n_ctx == 256)
    given = json.dumps([str(tiny_model()), messages, QUESTIONS[2], 60, n_ctx])
    child = subprocess.run([sys.executable, "-P", "-c", CHILD], input=given, capture_output=True, text=True, check=True)
    assert json.loads(child.stdout) == expected


@pytest.mark.parametrize("engine", ["eager", "auto"])
@pytest.mark.parametrize("scope", ["generated", "all"])
@pytest.mark.parametrize("mode", ["contrast", "amplify", "cad"])
def test_steered_turns_happen_again_also_those_that_left(
    open_session: Open, mode: SteeringMode, scope: Scope, engine: Engine
) -> None:
    session, restored = (open_session(system=SYSTEM, engine=engine) for _ in range(2))
    for chat in (session, restored):
        chat.steering = steered(chat.model, mode, scope)
    for i in range(5):
        list(session.ask(f"{QUESTIONS[i % 3]} {i}", 30))
    assert session.past
    assert restored.restore(kept(session))
    assert_same(restored, session)
    for question in QUESTIONS:
        assert list(restored.ask(question, 20)) == list(session.ask(question, 20))
    assert_same(restored, session)


@pytest.mark.parametrize("kind", ["gemma3", "mamba", "lfm2"])
def test_other_memories_are_restored_as_well(open_session: Open, kind: str) -> None:
    session, restored = (open_session(kind, system=SYSTEM) for _ in range(2))
    for i in range(4):
        list(session.ask(f"{QUESTIONS[i % 3]} {i}", 30))
    assert restored.restore(kept(session))
    assert_same(restored, session)
    assert list(restored.ask("And then?", 20)) == list(session.ask("And then?", 20))


@settings(max_examples=15, deadline=None)
@given(turns=st.lists(st.tuples(st.text(max_size=30), st.integers(0, 50)), min_size=1, max_size=5))
def test_any_chat_is_restored(tiny_model: TinyModel, turns: list[tuple[str, int]]) -> None:
    model = shared(tiny_model())
    template = ChatTemplate(model)
    options: dict[str, Any] = {"sampling": Sampling(temp=0.9, seed=3), "n_ctx": 256, "n_threads": 1}
    with Session(model, template, **options) as session, Session(model, template, **options) as restored:
        for question, n in turns:
            list(session.ask(question, n))
        assert restored.restore(kept(session))
        assert_same(restored, session)


def test_an_answer_that_a_stop_text_ended_inside_a_token_is_restored(
    open_session: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, restored = (open_session(chat_template=None) for _ in range(2))
    texts = {0x20 + i: f"w{i}\n\nRequest:"[: 3 + 9 * (i == 9)] for i in range(10)}
    original = session.model.piece
    monkeypatch.setattr(session.model, "piece", lambda t: texts[t].encode() if t in texts else original(t))
    drawn = iter([0x21, 0x22, 0x29])
    monkeypatch.setattr(session.sampler, "sample_last", lambda *_: next(drawn))
    text = "".join(token.text for token in session.ask("One?"))
    assert session.turns[0].stop == "stop"
    assert session.turns[0].tail is not None
    assert session.turns[0].text == text
    assert restored.restore(kept(session))
    assert_same(restored, session)


def test_answers_without_tokens_are_read_as_text(open_session: Open) -> None:
    session, other = (open_session(n_ctx=512) for _ in range(2))
    messages: list[Message] = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": "Hello, Ada."},
    ]
    assert session.restore(messages)
    assert session.prompts.system == SYSTEM
    assert session.full.n == len(session.turns[0].pending) - 1  # the answer is read with the next question
    list(session.ask("And you?", 5))
    model, template = session.model, session.template
    texts = template.first(SYSTEM, "Hello!"), "Hello, Ada.", template.next(SYSTEM, 1, "And you?")
    first, answer, following = (model.tokenize(text, special=text != "Hello, Ada.") for text in texts)
    assert session.full.tokens()[: len(first + answer + following)] == model.with_bos(first) + answer + following
    assert [m["content"] for m in session.messages()][:2] == ["Hello!", "Hello, Ada."]
    assert other.restore([])
    assert other.turns == []


@pytest.mark.parametrize(
    "roles", ["user", "assistant", "user user", "user assistant system", "system system", "tool user"]
)
def test_messages_that_are_no_conversation_are_refused(open_session: Open, roles: str) -> None:
    session = open_session()
    list(session.ask("Is it kept?", 3))
    with pytest.raises(MessagesError, match="user and assistant take turns"):
        session.restore([{"role": cast(Any, role), "content": "…"} for role in roles.split()])
    assert [turn.user for turn in session.turns] == ["Is it kept?"]


def test_a_restart_that_is_cancelled_leaves_an_empty_chat(open_session: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    session, restored = open_session(), open_session()
    for question in QUESTIONS[:2]:
        list(session.ask(question, 5))
    decode, calls = restored.full.decode, iter(range(100))

    def cancelled(*arguments: Any) -> Any:
        if next(calls) == 3:
            restored.cancel.set()
        return decode(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(restored.full, "decode", cancelled)
        assert not restored.restore(kept(session))
    assert (restored.turns, restored.messages(), restored.full.n) == ([], [], 0)
    assert restored.restore(kept(session))
    assert_same(restored, session)
