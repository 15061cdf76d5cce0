"""Both streams in one call: the eager engine's bits, whatever the chat went through before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import ATTENTION

from dps_local.chat.explanation import explain
from dps_local.chat.session import Session
from dps_local.chat.turn import Token
from dps_local.engine.context import N_TOP, Context, Run
from dps_local.engine.model import Head, Scope, head_mask
from dps_local.engine.prefix_cache import PrefixCache
from dps_local.engine.sampler import Sampling
from dps_local.steering.decoding import Engine
from dps_local.steering.mixing import Gamma
from dps_local.steering.steering import Steering, SteeringMode

KINDS = [kind for kind in ATTENTION if kind != "deepseek2"]  # whose products round otherwise for several tokens
HEADS: dict[str, list[Head]] = {
    "llama": [(0, 1), (2, 2)],
    "qwen2": [(0, 1), (1, 3)],
    "gemma3": [(0, 2), (2, 3)],
    "gemma4": [(0, 3), (5, 1)],
    "deci": [(1, 1), (4, 2)],
    "lfm2": [(1, 0), (1, 2)],
}
QUESTIONS = ["Where is the harbour?", "And the tide?", "Who said so?"]

Open = Callable[..., Session]
Steps = list[tuple[int, float | None, float | None, float | None]]


def steered(session: Session, kind: str = "llama", scope: Scope = "generated", gamma: float = 2.0) -> Steering:
    return Steering(head_mask(session.model, HEADS[kind]), Gamma(gamma), 0.02, scope)


def steps(tokens: Sequence[Token]) -> Steps:
    return [(t.id, t.p_plain, t.p_muted, t.p_steered) for t in tokens]


@pytest.mark.parametrize("temp", [0.0, 0.8])
@pytest.mark.parametrize("scope", ["generated", "all"])
@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_the_eager_ones_bit_for_bit(open_session: Open, kind: str, scope: Scope, temp: float) -> None:
    by_engine = []
    for engine in ("eager", "together"):
        sampling = Sampling(temp=temp, seed=3, repeat_penalty=1.1)
        session = open_session(kind, engine=engine, sampling=sampling, n_ctx=512)
        session.steering = steered(session, kind, scope)
        by_engine.append([steps(list(session.ask(question, 30))) for question in QUESTIONS])
    assert by_engine[0] == by_engine[1]
    muted = session.streams.muted
    assert muted
    assert session.streams.joined
    assert (muted.n, muted.calls) == (session.full.n, session.full.calls)
    assert any(p_steered != p_plain for answer in by_engine[1] for _, p_plain, _, p_steered in answer)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scope", ["generated", "all"])
def test_nothing_muted_is_exactly_nothing(open_session: Open, kind: str, scope: Scope) -> None:
    session = open_session(kind, engine="together")
    session.steering = Steering(head_mask(session.model, []), Gamma(5.0), 0.0, scope)
    for question in QUESTIONS:
        for token in session.ask(question, 6):
            assert token.p_plain == token.p_muted == token.p_steered


@pytest.mark.parametrize("kind", ["llama", "gemma3", "lfm2"])
def test_a_chat_that_began_otherwise_goes_on_as_the_eager_one(open_session: Open, kind: str) -> None:
    by_engine = []
    for engine in ("eager", "together"):
        session = open_session(kind, sampling=Sampling(temp=0.8, seed=3), n_ctx=512)
        steering = steered(session, kind)
        answers = [list(session.ask(QUESTIONS[0], 20, steering=None))]
        answers.append(list(session.ask(QUESTIONS[1], 20, steering=steering, engine=engine)))
        answers.append(list(session.ask(QUESTIONS[2], 20, steering=replace(steering, scope="all"), engine=engine)))
        by_engine.append([steps(answer) for answer in answers])
    assert by_engine[0] == by_engine[1]


def test_any_engine_goes_on_from_any_other(open_session: Open) -> None:
    engines: list[Engine] = ["together", "speculative", "together", "eager", "speculative"]
    by_order = []
    eager: list[Engine] = ["eager"] * len(engines)
    for chosen in (engines, eager):
        session = open_session(sampling=Sampling(temp=0.8, seed=5), n_ctx=512)
        session.steering = Steering(head_mask(session.model, [(2, 2)]), Gamma(2.0), 0.02)  # the layers below are shared
        answers = [list(session.ask(QUESTIONS[i % 3], 12, engine=engine)) for i, engine in enumerate(chosen)]
        by_order.append([[(t.id, t.p_plain, t.p_steered) for t in answer] for answer in answers])
    assert by_order[0] == by_order[1]


@pytest.mark.parametrize("mode", ["contrast", "cad"])
def test_a_long_chat_goes_on_with_what_is_left(
    open_session: Open, monkeypatch: pytest.MonkeyPatch, mode: SteeringMode
) -> None:
    by_engine = []
    for engine in ("eager", "together"):
        session = open_session(engine=engine, system="You write for Ada.", sampling=Sampling(temp=0.9, seed=2))
        monkeypatch.setattr(session.model, "is_eog", lambda _: False)
        session.steering = replace(steered(session), mode=mode)
        answers = [steps(list(session.ask(f"Is it {i}?", 20))) for i in range(9)]
        answers.append(steps(list(session.ask("Go on?", 200))))  # turns leave in the middle of it
        assert session.past
        by_engine.append(answers)
    assert by_engine[0] == by_engine[1]


def test_an_answer_is_broken_off_made_again_and_taken_back(open_session: Open) -> None:
    by_engine = []
    for engine in ("eager", "together"):
        session = open_session(engine=engine, n_ctx=512)
        session.steering = steered(session)
        answer = session.ask(QUESTIONS[0])
        broken = steps([next(answer) for _ in range(3)])
        answer.close()  # type: ignore[attr-defined]
        again, other = (steps(list(session.regenerate(9))) for _ in range(2))
        session.undo()
        by_engine.append([broken, again, other, steps(list(session.ask(QUESTIONS[1], 9)))])
        assert session.full.n == session.turns[-1].answer + session.turns[-1].n_decoded
    assert by_engine[0] == by_engine[1]


# --- logits that are picked where they are computed


@pytest.mark.parametrize("kind", KINDS)
def test_the_largest_logits_are_those_of_all(open_session: Open, kind: str) -> None:
    model = open_session(kind).model
    runs = [Run(seq, 0, list(b"The tide"), 1) for seq in range(2)]
    context = Context(model, 256, n_seq=2, n_outputs=2, n_threads=1)
    with context.head_scales({1: head_mask(model, HEADS[kind])}):
        for n in (1, 7, N_TOP, model.n_vocab):
            for seq in range(2):
                context.truncate(seq, 0)
            tokens, logits = context.decode_top(runs, n)
            f, m = context.fetch_logits(2).copy()
            assert not np.array_equal(f, m)
            assert tokens.tolist() == sorted(np.argsort(-f, kind="stable")[:n].tolist())
            assert np.array_equal(logits, [f[tokens], m[tokens]])
    for seq in range(2):
        context.truncate(seq, 0)
    assert np.array_equal(context.decode(runs)[0], f)
    context.close()


@pytest.mark.parametrize("engine", ["speculative", "together"])
@pytest.mark.parametrize("mode", [None, "contrast", "amplify"])
@pytest.mark.parametrize(
    "sampling",
    [Sampling(temp=0.0), Sampling(temp=0.8, seed=4), Sampling(seed=4, top_k=0), Sampling(seed=4, repeat_penalty=1.2)],
)
@pytest.mark.parametrize("beta", [0.0, 0.0001, 0.3])
def test_answers_from_picked_logits_are_those_from_all(
    open_session: Open,
    monkeypatch: pytest.MonkeyPatch,
    engine: Engine,
    mode: SteeringMode | None,
    sampling: Sampling,
    beta: float,
) -> None:
    picked = list[int]()
    original = Context.decode_top

    def decode_top(self: Context, runs: Sequence[Run], n: int) -> object:
        picked.append(n)
        return original(self, runs, n)

    monkeypatch.setattr(Context, "decode_top", decode_top)
    by_place = []
    for on_device in (False, True):
        session = open_session(engine=engine, sampling=sampling, probs=False, n_ctx=512)
        monkeypatch.setattr(session.model, "offloads_output", on_device)
        session.steering = replace(steered(session, gamma=0.5), mode=mode, beta=beta) if mode else None
        by_place.append([[t.id for t in session.ask(question, 20)] for question in QUESTIONS])
        assert on_device or not picked
    assert by_place[0] == by_place[1]
    few = sampling.top_k and sampling.repeat_penalty == 1
    assert bool(picked) == bool(beta if mode == "contrast" else few)


# --- with what else a session does


@pytest.mark.parametrize("kind", ["llama", "gemma3", "lfm2"])
@pytest.mark.parametrize("scope", ["generated", "all"])
def test_what_was_read_of_a_profile_comes_from_the_disk(
    open_session: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, scope: Scope
) -> None:
    by_cache, read = list[list[Steps]](), list[int]()
    original = Context._decode

    def decode(self: Context, runs: Sequence[Run]) -> int:
        read.append(sum(len(run.tokens) for run in runs))
        return original(self, runs)

    monkeypatch.setattr(Context, "_decode", decode)
    caches = [tmp_path / "eager", tmp_path / "together", tmp_path / "together"]
    for folder in caches:
        folder.mkdir(exist_ok=True)
        cache = PrefixCache(folder)
        session = open_session(kind, engine=folder.name, cache=cache, system="You write for Ada. " * 5, n_ctx=512)
        session.steering = steered(session, kind, scope)
        read.clear()
        by_cache.append([steps(list(session.ask(question, 9))) for question in QUESTIONS[:2]])
        if len(by_cache) == 3:
            assert max(read) < 64  # a question, not the profile
    assert by_cache[0] == by_cache[1] == by_cache[2]
    assert len(list(folder.glob("*.state"))) == (1 if scope == "generated" else 2)


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_an_explanation_is_that_of_the_eager_answer(open_session: Open, kind: str) -> None:
    explained = []
    for engine in ("eager", "together"):
        session = open_session(kind, engine=engine, n_ctx=512)
        session.steering = steered(session, kind)
        for question in QUESTIONS:
            list(session.ask(question, 9))
        explained.append(explain(session))
    assert explained[0] == explained[1]
