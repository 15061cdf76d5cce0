"""Context-aware decoding: the second stream reads the questions alone, without what is known about the user."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

import numpy as np
import pytest
from tiny import ATTENTION

from dps_local.chat.session import Session
from dps_local.chat.turn import Token
from dps_local.engine.context import Context, Run
from dps_local.engine.model import Model, head_mask
from dps_local.engine.sampler import Sampling
from dps_local.prompting.chat_template import Exchange
from dps_local.prompting.prompt import Request
from dps_local.steering import speculative
from dps_local.steering.decoding import Engine
from dps_local.steering.mixing import Gamma, mix, probabilities
from dps_local.steering.steering import Steering

SYSTEM = "You write for Ada, who is precise."
QUESTIONS = ["Where is the harbour?", "And the tide?", "Who said so?"]
KINDS = [kind for kind in ATTENTION if kind != "deepseek2"]  # whose verified steps are the same to rounding only

Open = Callable[..., Session]


def cad(model: Model, gamma: float = 1.5, beta: float = 0.02) -> Steering:
    return Steering(head_mask(model, []), Gamma(gamma), beta, mode="cad")


def recall(question: str, _: Container[int]) -> Request:
    return Request(f"Ada said: no.\n\n{question}", [Exchange("Tea?", "No, no.")])


def steps(tokens: Sequence[Token]) -> list[tuple[int, float | None, float | None]]:
    return [(t.id, t.p_plain, t.p_steered) for t in tokens]


class Reader:
    """A context of its own, read without Session."""

    def __init__(self, model: Model) -> None:
        self.context, self.n = Context(model, 512, n_threads=1), 0

    def read(self, tokens: Sequence[int], n_logits: int = 0) -> np.ndarray:
        logits = self.context.decode([Run(0, self.n, tokens, n_logits)])
        self.n += len(tokens)
        return np.array(logits)


@pytest.mark.parametrize("kind", KINDS)
def test_the_second_stream_is_the_chat_without_system_message_and_recalled_items(open_session: Open, kind: str) -> None:
    session = open_session(kind, system=SYSTEM, recall=recall, n_ctx=512)
    model, template = session.model, session.template
    session.steering = cad(model)
    answers = [list(session.ask(question, 6)) for question in QUESTIONS]
    full, alone = Reader(model), Reader(model)
    for i, (question, answer) in enumerate(zip(QUESTIONS, answers, strict=True)):
        told = recall(question, ())
        texts = [(full, SYSTEM, told.text, told.exchanges), (alone, "", question, [])]
        for reader, system, asked, exchanges in texts:
            text = template.next(system, i, asked, exchanges) if i else template.first(system, asked, exchanges)
            tokens = model.tokenize(text, special=True) if i else model.prompt_tokens(text)
            reader.read([*([answers[i - 1][-1].id] if i else []), *tokens[:-1]])
        token = tokens[-1]
        for step in answer:
            f, m = (reader.read([token], 1)[0] for reader in (full, alone))
            steered = mix(f, m, 1.5, 0.02)
            token = int(steered.argmax())
            assert step.id == token
            assert step.p_plain == pytest.approx(probabilities(f)[token], abs=0.01)  # other batches round otherwise
            assert step.p_steered == pytest.approx(probabilities(steered)[token], abs=0.03)


@pytest.mark.parametrize("engine", ["eager", "speculative"])
def test_without_anything_to_leave_out_the_contrast_is_nothing(open_session: Open, engine: Engine) -> None:
    session = open_session(engine=engine)
    session.steering = cad(session.model, gamma=5.0, beta=0.0)
    for i, question in enumerate(QUESTIONS):
        for token in session.ask(question, 6):
            # later turns are read again in other batches, which round otherwise
            assert token.p_steered == (token.p_plain if i == 0 else pytest.approx(token.p_plain, abs=0.02))
        full, muted = session.full, session.streams.muted
        assert muted
        assert muted.tokens() == full.tokens()


@pytest.mark.parametrize("temp", [0.0, 0.8])
@pytest.mark.parametrize("kind", KINDS)
def test_speculative_answers_are_the_eager_ones(
    open_session: Open, kind: str, temp: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speculative, "MAX_EXPECTED_REJECTIONS", 1000.0)  # draft as many tokens as may be
    by_engine = []
    for engine in ("eager", "speculative"):
        options = {"system": SYSTEM, "recall": recall, "engine": engine, "sampling": Sampling(temp=temp, seed=3)}
        session = open_session(kind, n_ctx=512, **options)
        session.steering = cad(session.model)
        by_engine.append([steps(list(session.ask(question, 60))) for question in QUESTIONS])
        rejected = sum(turn.counts.rejected for turn in session.turns if turn.counts)
    assert by_engine[0] == by_engine[1]
    # taken back in both streams, which have other lengths
    assert bool(rejected) == session.model.rewinds


def test_a_long_chat_goes_on_with_what_is_left(open_session: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    by_engine = []
    for engine in ("eager", "speculative"):
        session = open_session(system=SYSTEM, recall=recall, engine=engine, sampling=Sampling(temp=0.9, seed=2))
        monkeypatch.setattr(session.model, "is_eog", lambda _: False)
        session.steering = cad(session.model)
        answers = [steps(list(session.ask(f"Is it {i}?", 20))) for i in range(9)]
        answers.append(steps(list(session.ask("Go on?", 200))))  # turns leave in the middle of it
        assert session.past
        assert session.turns[-1].left
        by_engine.append(answers)
        muted, last = session.streams.muted, session.turns[-1]
        assert muted
        prompt = session.model.prompt_tokens(session.template.first("", "Go on?"))
        assert muted.tokens() == [*prompt, *(t.id for t in last.tokens[:-1])]
    assert by_engine[0] == by_engine[1]


def test_regenerating_with_and_without_is_as_asking(open_session: Open) -> None:
    session = open_session(system=SYSTEM)
    plain = steps(list(session.ask(QUESTIONS[0], 8)))
    session.steering = cad(session.model)
    steered = steps(list(session.regenerate(8)))
    session.steering = Steering(head_mask(session.model, [(2, 2)]), Gamma(1.0))
    list(session.regenerate(8))
    session.steering = cad(session.model)
    assert steps(list(session.regenerate(8))) == steered
    session.steering = None
    assert steps(list(session.regenerate(8))) == plain
    assert steered != plain
