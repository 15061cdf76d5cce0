"""Chats longer than the context: the oldest turns leave it, the system message stays, and the streams keep in step."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opened import shared
from tiny import CHATML, TinyModel

from dps_local.chat.session import Session
from dps_local.chat.turn import Token
from dps_local.cli.conversation import Conversation
from dps_local.cli.terminal import Terminal
from dps_local.engine.context import Context, Run
from dps_local.engine.model import Model, Scope, head_mask
from dps_local.engine.sampler import Sampling
from dps_local.engine.stream import Stream
from dps_local.errors import ContextFullError, DpsError
from dps_local.prompting.chat_template import ChatTemplate
from dps_local.steering.decoding import Engine
from dps_local.steering.mixing import Gamma
from dps_local.steering.steering import Steering

N_CTX = 256
SYSTEM = "You write for Ada."
HEADS = [(1, 0), (2, 2)]
WITHOUT_SYSTEM = CHATML.replace(
    "{% for m", "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}{% for m"
)

Open = Callable[..., Session]


@pytest.fixture
def open_chat(open_session: Open) -> Open:
    """`open_chat(kind, …)`: a chat with a system message, sampled."""
    defaults: dict[str, Any] = {"system": SYSTEM, "sampling": Sampling(temp=0.9, seed=4), "engine": "auto"}
    return lambda kind="llama", **options: open_session(kind, **(defaults | options))


def null(model: Model, scope: Scope = "generated") -> Steering:
    return Steering(np.ones((model.n_layer, model.n_head_max), np.float32), Gamma(5.0), 0.0, scope)


def muting(model: Model, scope: Scope = "generated", mode: Any = "contrast") -> Steering:
    return Steering(head_mask(model, HEADS), Gamma(0.7), 0.05, scope, mode)


def questions(n: int) -> list[str]:
    return [f"{'Is' * (i % 5)} it {i}?" for i in range(n)]


def text(stream: Stream) -> str:
    model = stream.context.model
    return "".join(model.token_text(t) if t > 270 else model.detokenize([t]) for t in stream.tokens())


def distributions(tokens: list[Token]) -> list[tuple[int, float | None, float | None]]:
    return [(t.id, t.p_plain, t.p_steered) for t in tokens]


@pytest.mark.parametrize("template", [CHATML, WITHOUT_SYSTEM], ids=["system", "no system role"])
@pytest.mark.parametrize("kind", ["llama", "gemma3", "mamba", "lfm2"])
def test_what_stays_is_the_system_message_and_the_newest_turns(open_chat: Open, kind: str, template: str) -> None:
    session = open_chat(kind, chat_template=template)
    asked = questions(12)
    for question in asked:
        list(session.ask(question, 10))
        assert session.full.n < N_CTX
    expected, model = list[int](), session.model
    for i, turn in enumerate(session.turns):
        text = session.template.next(SYSTEM, i, turn.user) if i else session.template.first(SYSTEM, turn.user)
        expected += model.tokenize(text, special=True) + [t.id for t in turn.tokens]
    assert session.full.tokens() == expected[: session.full.n]
    assert len(expected) - session.full.n <= 1  # the last token need not be read yet
    assert 0 < len(session.turns) < 12
    assert [user for user, _ in session.past] + [turn.user for turn in session.turns] == asked


def test_turns_leave_until_half_of_the_context_is_free(open_chat: Open) -> None:
    session = open_chat()
    for question in questions(20):
        before = session.full.n
        list(session.ask(question, 10))
        turn = session.turns[-1]
        keep = session.turns[0].question
        room = (N_CTX - keep) // 8
        if turn.left:
            assert before + len(turn.pending) + min(10, room) > N_CTX - 40  # not before it is needed
            assert turn.answer + 1 <= (N_CTX + keep) // 2
    assert sum(len(turn.text) for turn in session.turns) < N_CTX


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma3"])
def test_a_shift_is_a_fresh_reading_where_values_depend_on_their_own_token_only(open_chat: Open, kind: str) -> None:
    """Without attention below the last layer, keys and values know nothing of the tokens before theirs."""
    plain = open_chat(kind).model
    edit = {head: 0.0 for head in plain.heads() if head[0] < plain.n_layer - 1}
    session = open_chat(kind, edit=edit)
    for question in questions(8):
        list(session.ask(question, 10))
    assert session.full.shifted
    fresh = Context(session.model, N_CTX, n_threads=1)
    tokens = session.full.tokens()
    expected = fresh.decode([Run(0, 0, tokens, 1)])[0].copy()
    session.full.rewind(len(tokens) - 1)
    found = session.full.decode(tokens[-1:], 1)[0]
    spread = np.abs(found - expected).max()
    fresh.close()
    assert spread < 0.02  # keys in half precision were rotated twice
    if kind != "gemma3":  # whose window is short: what is near the end was always near
        wrong = Context(session.model, N_CTX, n_threads=1)
        wrong.decode([Run(0, 0, tokens[:-1])])
        wrong.llama.llama_memory_seq_add(wrong.memory, 0, 80, -1, 20)  # as if the keys had kept their places
        other = wrong.decode([Run(0, len(tokens) + 19, tokens[-1:], 1)])[0]
        assert np.abs(other - expected).max() > 5 * spread
        wrong.close()


@pytest.mark.parametrize("engine", ["eager", "speculative"])
@pytest.mark.parametrize("scope", ["generated", "all"])
@pytest.mark.parametrize("kind", ["llama", "gemma3", "lfm2"])
def test_nothing_muted_is_exactly_nothing_however_long_the_chat(
    open_chat: Open, kind: str, scope: Scope, engine: Engine
) -> None:
    model = open_chat(kind).model
    session = open_chat(kind, steering=null(model, scope), engine=engine)
    for question in questions(25):
        tokens = list(session.ask(question, 8))
        assert [t.p_steered for t in tokens] == [t.p_plain for t in tokens]
    assert len(session.past) > 10
    assert session.streams.muted
    assert session.streams.muted.tokens() == session.full.tokens()
    assert sum(map(len, session.full.calls)) == session.full.n < N_CTX


@pytest.mark.parametrize("scope", ["generated", "all"])
def test_the_late_engine_answers_as_the_eager_one_after_turns_have_left(open_chat: Open, scope: Scope) -> None:
    steering = muting(open_chat().model, scope)
    eager, speculative = (open_chat(steering=steering, engine=engine) for engine in ("eager", "speculative"))
    for question in questions(15):
        assert distributions(list(eager.ask(question, 12))) == distributions(list(speculative.ask(question, 12)))
    assert speculative.full.shifted


@pytest.mark.parametrize("engine", ["eager", "speculative"])
@pytest.mark.parametrize("scope", ["generated", "all"])
@pytest.mark.parametrize("kind", ["llama", "gemma3", "lfm2"])
def test_an_answer_goes_on_when_the_context_is_full(
    open_chat: Open, kind: str, scope: Scope, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_chat(kind).model
    monkeypatch.setattr(model, "is_eog", lambda _: False)
    session = open_chat(kind, steering=null(model, scope), engine=engine)
    for question in questions(3):
        list(session.ask(question, 4))
    tokens = list(session.ask("Go on?"))
    turn = session.turns[-1]
    assert [t.p_steered for t in tokens] == [t.p_plain for t in tokens]
    assert turn.stop == "context"  # in the end it is alone there
    assert session.turns == [turn]
    assert turn.left == len(session.past) == 3
    assert turn.question == turn.opening == len(session.prompts.prefix)
    assert session.full.n == N_CTX
    assert len(turn.pending) + len(tokens) == N_CTX + 1
    assert text(session.full).startswith(session.template.first(SYSTEM, "Go on?"))


def test_an_answer_that_went_on_is_the_eager_one(open_chat: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_chat().model
    monkeypatch.setattr(model, "is_eog", lambda _: False)
    found = []
    for engine in ("eager", "speculative"):
        session = open_chat(steering=muting(model), engine=engine)
        for question in questions(3):
            list(session.ask(question, 4))
        found.append(distributions(list(session.ask("Go on?"))))
    assert found[0] == found[1]


@pytest.mark.parametrize("scope", ["generated", "all"])
def test_steering_may_begin_after_turns_have_left(open_chat: Open, scope: Scope) -> None:
    session = open_chat()
    for question in questions(10):
        list(session.ask(question, 8))
    assert session.full.shifted
    session.steering = null(session.model, scope)
    for question in questions(10):
        tokens = list(session.ask(question, 8))
        assert [t.p_steered for t in tokens] == [t.p_plain for t in tokens]
        session.steering = null(session.model, scope) if session.steering is None else None
        if session.steering is None:
            list(session.ask("And plainly?", 8))
            session.steering = null(session.model, scope)


@pytest.mark.parametrize("scope", ["generated", "all"])
def test_amplified_chats_go_on(open_chat: Open, scope: Scope) -> None:
    steering = muting(open_chat().model, scope, "amplify")
    session = open_chat(steering=steering)
    for question in questions(15):
        assert list(session.ask(question, 8)) is not None
        assert session.full.n < N_CTX
    assert session.past


def test_the_last_answer_can_be_given_again_and_taken_back_after_turns_have_left(open_chat: Open) -> None:
    session = open_chat(sampling=Sampling(temp=0), steering=muting(open_chat().model))
    for question in questions(30):
        tokens = list(session.ask(question, 8))
        if session.turns[-1].left:
            break
    assert session.past
    assert distributions(list(session.regenerate(8))) == distributions(tokens)
    n = session.turns[-1].start
    assert session.undo().user == question
    assert session.full.n == n
    assert distributions(list(session.ask(question, 8))) == distributions(tokens)
    while session.turns:
        session.undo()
    assert session.full.n == 0
    assert session.past  # what has left stays in the transcript
    assert text(session.full) == ""
    list(session.ask("Again?", 8))
    assert text(session.full).startswith(session.template.first(SYSTEM, "Again?"))


def test_a_question_that_never_fits_makes_no_room(open_chat: Open) -> None:
    session = open_chat()
    for question in questions(3):
        list(session.ask(question, 8))
    state, turns = session.full.context.state(), list(session.turns)
    with pytest.raises(ContextFullError, match="the question needs more than the context of 256 tokens"):
        list(session.ask("x" * 220))
    assert (session.full.context.state(), session.turns, session.past) == (state, turns, [])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 120), st.integers(0, 90)), min_size=3, max_size=12))
def test_any_chat_goes_on(tiny_model: TinyModel, turns: list[tuple[int, int]]) -> None:
    model = shared(tiny_model())
    options: dict[str, Any] = {"probs": True, "n_ctx": N_CTX, "n_threads": 1}
    session = Session(model, ChatTemplate(model), system=SYSTEM, steering=null(model), **options)
    try:
        for length, n in turns:
            tokens = list(session.ask("x" * length, n))
            assert [t.p_steered for t in tokens] == [t.p_plain for t in tokens]
            assert text(session.full).startswith(session.template.first(SYSTEM, "")[: len(SYSTEM)])
            starts = [turn.start for turn in session.turns]
            assert starts == sorted(starts)
            assert starts[0] == 0
        assert len(session.past) + len(session.turns) == len(turns)
    finally:
        session.close()


def test_the_chat_says_so_and_keeps_all_of_the_transcript(open_chat: Open, capsys: pytest.CaptureFixture[str]) -> None:
    session = open_chat()
    chat = Conversation(session, Terminal(), n_predict=8)
    asked = questions(20)
    for question in asked:
        chat.handle(question)
    noticed = capsys.readouterr().err
    assert "turns are forgotten]" in noticed
    messages: Any = chat.transcript()["messages"]
    assert [m["content"] for m in messages[::2]] == asked
    for _ in session.turns.copy():
        chat.handle("/undo")
    with pytest.raises(DpsError, match="the answers have left the context"):
        chat.handle("/undo")
    session.clear()
    assert session.past == []


@pytest.mark.slow
def test_a_thousand_turns_take_no_more_memory_than_a_hundred(open_chat: Open) -> None:
    model = open_chat().model
    session = open_chat(steering=null(model))
    process, used = psutil.Process(), list[int]()
    for i, question in enumerate(itertools.islice(itertools.cycle(questions(50)), 1000)):
        tokens = list(session.ask(question, 8))
        assert [t.p_steered for t in tokens] == [t.p_plain for t in tokens]
        if i % 100 == 99:
            used.append(process.memory_info().rss)
    assert len(session.past) + len(session.turns) == 1000
    assert used[-1] - used[0] < 8_000_000, used
