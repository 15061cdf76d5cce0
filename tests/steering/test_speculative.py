"""Speculative decoding against the eager engine: the same bits."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import ATTENTION, TinyModel

from dps_local.chat.session import Session
from dps_local.chat.turn import Token
from dps_local.engine.context import KV_STEP, MAX_INVARIANT_BATCH, Context, Run
from dps_local.engine.model import Model, Scope, head_mask
from dps_local.engine.sampler import Sampler, Sampling
from dps_local.engine.stream import Stream
from dps_local.prompting.chat_template import ChatTemplate
from dps_local.steering import speculative
from dps_local.steering.contrast import Contrast, DecodingCounts
from dps_local.steering.decoding import Engine
from dps_local.steering.mixing import Gamma
from dps_local.steering.speculative import SpeculativeDecoder
from dps_local.steering.steering import Steering

LAST = {
    "llama": (2, 2),
    "qwen2": (1, 3),
    "gemma3": (2, 3),
    "gemma4": (5, 1),
    "deci": (4, 2),
    "deepseek2": (1, 0),
    "lfm2": (1, 2),
}
FIRST = {
    "llama": (0, 1),
    "qwen2": (0, 1),
    "gemma3": (0, 2),
    "gemma4": (0, 3),
    "deci": (1, 1),
    "deepseek2": (0, 3),
    "lfm2": (1, 0),
}
MLA = "deepseek2"  # multiplies by the weights of its attention otherwise: verified steps are the same to rounding only
PROMPT = list(b"The letter that you wrote to the editor on Sunday, word for word.")  # a byte's token is its number
QUESTIONS = ["Where is the harbour?", "And the tide?", "Who said so?"]

Load = Callable[[Path], Model]


def steering(model: Model, kind: str, gamma: float = 2.0, beta: float = 0.02, scope: Scope = "generated") -> Steering:
    heads = [LAST[kind]] if scope == "generated" else [FIRST[kind], LAST[kind]]
    return Steering(head_mask(model, heads), Gamma(gamma), beta, scope)


def answers(
    model: Model, steered: Steering, engine: Engine, sampling: Sampling, n: int = 40
) -> tuple[list[list[Token]], list[DecodingCounts]]:
    """Return three turns of a chat, the second one broken off by its reader, and what each took."""
    options: dict[str, Any] = {"engine": engine, "probs": True, "n_ctx": 512, "n_threads": 1}
    session = Session(model, ChatTemplate(model), steering=steered, sampling=sampling, **options)
    try:
        turns = [list(session.ask(QUESTIONS[0], n))]
        with contextlib.closing(session.ask(QUESTIONS[1])) as broken_off:  # type: ignore[type-var]
            turns.append(list(itertools.islice(broken_off, 7)))
        turns.append(list(session.ask(QUESTIONS[2], n)))
        return turns, [turn.counts or DecodingCounts() for turn in session.turns]
    finally:
        session.close()


def distributions(turns: list[list[Token]]) -> list[list[tuple[int, float | None, float | None]]]:
    return [[(t.id, t.p_plain, t.p_steered) for t in turn] for turn in turns]


@pytest.fixture
def tape(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Context, int, int]]:
    """Calls of a context: which one, the number of tokens, and of logits."""
    calls: list[tuple[Context, int, int]] = []
    original = Context._decode

    def decode(self: Context, runs: Sequence[Run]) -> int:
        n_logits = original(self, runs)
        calls.append((self, sum(len(run.tokens) for run in runs), n_logits))
        return n_logits

    monkeypatch.setattr(Context, "_decode", decode)
    return calls


@pytest.fixture
def draft_boldly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draft as many tokens as may be: the distributions of tiny models are too flat for less."""
    monkeypatch.setattr(speculative, "MAX_EXPECTED_REJECTIONS", 1000.0)


@pytest.mark.usefixtures("draft_boldly")
@pytest.mark.parametrize("temp", [0.0, 0.8])
@pytest.mark.parametrize("scope", ["generated", "all"])
@pytest.mark.parametrize("kind", [kind for kind in ATTENTION if kind != MLA])
def test_speculative_answers_are_the_eager_ones_bit_for_bit(
    tiny_model: TinyModel, load: Load, kind: str, scope: Scope, temp: float
) -> None:
    model = load(tiny_model(kind))
    sampling = Sampling(temp=temp, seed=3, repeat_penalty=1.1)
    eager, _ = answers(model, steering(model, kind, scope=scope), "eager", sampling)
    drafted, counts = answers(model, steering(model, kind, scope=scope), "speculative", sampling)
    assert distributions(drafted) == distributions(eager)
    if model.rewinds:
        assert sum(c.muted_calls for c in counts) < sum(c.steps for c in counts)


@pytest.mark.usefixtures("draft_boldly")
@pytest.mark.parametrize("kind", ["llama", "lfm2"])
def test_each_token_is_read_once_where_a_stream_cannot_go_back(
    tiny_model: TinyModel, load: Load, tape: list[tuple[Context, int, int]], kind: str
) -> None:
    model = load(tiny_model(kind))
    session = Session(
        model,
        ChatTemplate(model),
        steering=steering(model, kind, gamma=8.0, scope="all"),
        sampling=Sampling(temp=0),
        engine="speculative",
        n_ctx=512,
        n_threads=1,
    )
    given = len(list(session.ask(QUESTIONS[0], 40)))
    read = sum(n for _, n, _ in tape)
    (turn,) = session.turns
    assert turn.counts
    once = 2 * (len(turn.pending) - 1 + given)
    if kind == "llama":
        assert turn.counts.rejected
        assert read > once
    else:
        assert turn.counts.rejected == 0
        assert read == once
    session.close()


@pytest.fixture(scope="module")
def q8_0(tiny_model: TinyModel) -> Iterator[Model]:
    model = Model(tiny_model("llama", quantized="Q8_0"))
    yield model
    model.close()


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 1000),
    temp=st.sampled_from([0.0, 0.5, 1.5]),
    gamma=st.sampled_from([-0.5, 0.3, 1.0, 8.0]),
    beta=st.sampled_from([0.0, 0.02, 0.3, 1.0]),
    n_max=st.integers(1, 8),
    rejections=st.sampled_from([0.0, 0.2, 100.0]),
)
def test_whatever_is_drafted_the_answer_is_the_eager_one(
    q8_0: Model, seed: int, temp: float, gamma: float, beta: float, n_max: int, rejections: float
) -> None:
    sampling = Sampling(temp=temp, seed=seed, presence_penalty=0.5)
    steered = steering(q8_0, "llama", gamma, beta)

    def steps(eager: bool) -> list[tuple[int, float | None, float | None]]:
        full, muted = (Stream(Context(q8_0, 256, n_outputs=8, n_threads=1, batch_invariant=True)) for _ in range(2))
        full.decode(PROMPT[:-1])
        muted.copy_from(full)
        muted.scale(steered.scales)
        contrast = Contrast(full, muted, steered, eager=eager, probs=True)
        limits = {"n_max": n_max, "max_expected_rejections": rejections}
        decoder = SpeculativeDecoder(contrast, Sampler(sampling), threading.Event(), **limits)  # type: ignore[arg-type]
        answer = decoder.steps(PROMPT[-1], 30)
        taken = [(s.id, s.p_plain, s.p_steered) for s in itertools.islice(answer, 30)]
        answer.close()
        full.context.close()
        muted.context.close()
        return taken

    assert steps(eager=False) == steps(eager=True)


@pytest.mark.usefixtures("draft_boldly")
def test_draft_tokens_are_rejected_and_taken_back(tiny_model: TinyModel, load: Load) -> None:
    model = load(tiny_model("llama"))
    steered = steering(model, "llama", 8.0)
    drafted, counts = answers(model, steered, "speculative", Sampling(temp=0))
    eager, _ = answers(model, steered, "eager", Sampling(temp=0))
    assert sum(c.rejected for c in counts) > 0
    assert distributions(drafted) == distributions(eager)


def test_without_a_choice_of_candidates_nothing_is_verified(
    tiny_model: TinyModel, load: Load, tape: list[tuple[Context, int, int]]
) -> None:
    model = load(tiny_model("llama"))
    turns, counts = answers(model, steering(model, "llama", beta=1.0), "speculative", Sampling(temp=0))
    assert all(c.uncertain == 0 for c in counts)
    full = tape[0][0]
    muted = [(n, n_logits) for context, n, n_logits in tape if context is not full]
    assert {n_logits for _, n_logits in muted} == {0}
    assert max(n for n, _ in muted) == MAX_INVARIANT_BATCH
    assert all(t.p_steered == 1 and t.p_muted is None for turn in turns for t in turn)


def test_a_draft_ends_where_attention_takes_more_cells(
    tiny_model: TinyModel, load: Load, tape: list[tuple[Context, int, int]]
) -> None:
    model = load(tiny_model("llama"))
    steered = steering(model, "llama", beta=1.0)
    options: dict[str, Any] = {"engine": "speculative", "n_ctx": 512, "n_threads": 1}
    session = Session(model, ChatTemplate(model), steering=steered, sampling=Sampling(temp=0), **options)
    list(session.ask("x" * 150, 100))
    muted = [n for context, n, _ in tape if context is not session.full.context]
    ends = np.cumsum(muted) + session.turns[0].answer
    assert any(end % KV_STEP == 0 for end in ends)
    session.close()
