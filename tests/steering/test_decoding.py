"""The late engine against the eager one, and what llama.cpp is asked for it: the same bits."""

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
from numpy.typing import NDArray
from tiny import ATTENTION, KINDS, TinyModel

from dps_local.chat.session import Session
from dps_local.chat.turn import Token
from dps_local.engine.context import KV_STEP, Context, Run
from dps_local.engine.model import Model, Scope, head_mask
from dps_local.engine.sampler import Sampler, Sampling
from dps_local.engine.stream import Stream
from dps_local.errors import NativeError
from dps_local.prompting.chat_template import ChatTemplate
from dps_local.steering import decoding
from dps_local.steering.contrast import WINDOW, Contrast, Counts
from dps_local.steering.decoding import Answer, Engine
from dps_local.steering.mixing import Gamma
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
MLA = "deepseek2"  # multiplies by the weights of its attention otherwise: late steps are the same to rounding only
PROMPT = list(b"The letter that you wrote to the editor on Sunday, word for word.")  # a byte's token is its number
QUESTIONS = ["Where is the harbour?", "And the tide?", "Who said so?"]

Load = Callable[[Path], Model]


def steering(model: Model, kind: str, gamma: float = 2.0, beta: float = 0.02, scope: Scope = "generated") -> Steering:
    heads = [LAST[kind]] if scope == "generated" else [FIRST[kind], LAST[kind]]
    return Steering(head_mask(model, heads), Gamma(gamma), beta, scope)


def answers(
    model: Model, steered: Steering, engine: Engine, sampling: Sampling, n: int = 40
) -> tuple[list[list[Token]], list[Counts]]:
    """Return three turns of a chat, the second one broken off by its reader, and what each took."""
    options: dict[str, Any] = {"engine": engine, "probs": True, "n_ctx": 512, "n_threads": 1}
    session = Session(model, ChatTemplate(model), steering=steered, sampling=sampling, **options)
    try:
        turns = [list(session.ask(QUESTIONS[0], n))]
        with contextlib.closing(session.ask(QUESTIONS[1])) as broken_off:  # type: ignore[type-var]
            turns.append(list(itertools.islice(broken_off, 7)))
        turns.append(list(session.ask(QUESTIONS[2], n)))
        return turns, [turn.counts or Counts() for turn in session.turns]
    finally:
        session.close()


def found(turns: list[list[Token]]) -> list[list[tuple[int, float | None, float | None]]]:
    return [[(t.id, t.p_plain, t.p_steered) for t in turn] for turn in turns]


@pytest.fixture
def bold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guess as long as the window lasts: the distributions of tiny models are too flat for less."""
    monkeypatch.setattr(decoding, "RISK", 1000.0)


@pytest.mark.usefixtures("bold")
@pytest.mark.parametrize("temp", [0.0, 0.8])
@pytest.mark.parametrize("scope", ["generated", "all"])
@pytest.mark.parametrize("kind", [kind for kind in ATTENTION if kind != MLA])
def test_late_answers_are_the_eager_ones_bit_for_bit(
    tiny_model: TinyModel, load: Load, kind: str, scope: Scope, temp: float
) -> None:
    model = load(tiny_model(kind))
    sampling = Sampling(temp=temp, seed=3, repeat_penalty=1.1)
    eager, _ = answers(model, steering(model, kind, scope=scope), "eager", sampling)
    late, counts = answers(model, steering(model, kind, scope=scope), "late", sampling)
    assert found(late) == found(eager)
    if model.rewinds:
        assert sum(c.muted_calls for c in counts) < sum(c.steps for c in counts)


@pytest.mark.usefixtures("bold")
@pytest.mark.parametrize("kind", ["llama", "lfm2"])
def test_each_token_is_read_once_where_a_stream_cannot_go_back(
    tiny_model: TinyModel, load: Load, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    read, counted = 0, Context._decode

    def count(self: Context, runs: Sequence[Run]) -> int:
        nonlocal read
        read += sum(len(run.tokens) for run in runs)
        return counted(self, runs)

    monkeypatch.setattr(Context, "_decode", count)
    model = load(tiny_model(kind))
    session = Session(
        model,
        ChatTemplate(model),
        steering=steering(model, kind, gamma=8.0, scope="all"),
        sampling=Sampling(temp=0),
        engine="late",
        n_ctx=512,
        n_threads=1,
    )
    given = len(list(session.ask(QUESTIONS[0], 40)))
    (turn,) = session.turns
    assert turn.counts
    once = 2 * (len(turn.pending) - 1 + given)
    if kind == "llama":
        assert turn.counts.refuted
        assert read > once
    else:
        assert turn.counts.refuted == 0
        assert read == once
    session.close()


def test_late_steps_of_latent_attention_are_the_eager_ones_to_rounding(tiny_model: TinyModel, load: Load) -> None:
    model = load(tiny_model(MLA))
    contexts = [Context(model, 256, n_outputs=8, n_threads=1, tokens_alone=alone) for alone in (False, True)]
    expected = one_by_one(contexts[0], PROMPT[:8], 0)
    np.testing.assert_allclose(contexts[1].decode([Run(0, 0, PROMPT[:8], 8)]), expected, rtol=0, atol=0.01)
    for context in contexts:
        context.close()


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
    window=st.integers(1, 8),
    risk=st.sampled_from([0.0, 0.2, 100.0]),
)
def test_whatever_is_guessed_the_answer_is_the_eager_one(
    q8_0: Model, seed: int, temp: float, gamma: float, beta: float, window: int, risk: float
) -> None:
    sampling = Sampling(temp=temp, seed=seed, presence_penalty=0.5)
    steered = steering(q8_0, "llama", gamma, beta)

    def steps(eager: bool) -> list[tuple[int, float | None, float | None]]:
        full, muted = (Stream(Context(q8_0, 256, n_outputs=8, n_threads=1, tokens_alone=True)) for _ in range(2))
        full.decode(PROMPT[:-1])
        muted.become(full)
        muted.scale(steered.scales)
        contrast = Contrast(full, muted, steered, eager=eager, window=window, probs=True)
        answer = Answer(contrast, Sampler(sampling), threading.Event(), risk=risk).steps(PROMPT[-1], 30)
        taken = [(s.id, s.p_plain, s.p_steered) for s in itertools.islice(answer, 30)]
        answer.close()
        full.context.close()
        muted.context.close()
        return taken

    assert steps(eager=False) == steps(eager=True)


@pytest.mark.usefixtures("bold")
def test_guesses_are_refuted_and_taken_back(tiny_model: TinyModel, load: Load) -> None:
    model = load(tiny_model("llama"))
    steered = steering(model, "llama", 8.0)
    late, counts = answers(model, steered, "late", Sampling(temp=0))
    eager, _ = answers(model, steered, "eager", Sampling(temp=0))
    assert sum(c.refuted for c in counts) > 0
    assert found(late) == found(eager)


def test_without_a_plausible_choice_the_muted_stream_only_follows(
    tiny_model: TinyModel, load: Load, tape: list[tuple[Context, int, int]]
) -> None:
    model = load(tiny_model("llama"))
    turns, counts = answers(model, steering(model, "llama", beta=1.0), "late", Sampling(temp=0))
    assert all(c.uncertain == 0 for c in counts)
    full = tape[0][0]
    muted = [(n, n_logits) for context, n, n_logits in tape if context is not full]
    assert {n_logits for _, n_logits in muted} == {0}
    assert max(n for n, _ in muted) == WINDOW
    assert all(t.p_steered == 1 and t.p_muted is None for turn in turns for t in turn)


def test_auto_is_the_late_engine(tiny_model: TinyModel, load: Load) -> None:
    model = load(tiny_model("llama"))
    auto, counts = answers(model, steering(model, "llama"), "auto", Sampling(temp=0))
    late, same = answers(model, steering(model, "llama"), "late", Sampling(temp=0))
    assert (found(auto), counts) == (found(late), same)


# --- what the late engine asks llama.cpp for


@pytest.fixture
def tape(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Context, int, int]]:
    """Calls of Stream.decode: the context, the number of tokens, and of logits."""
    calls: list[tuple[Context, int, int]] = []
    original = Stream.decode

    def decode(
        self: Stream, tokens: list[int], n_logits: int = 0, rows: NDArray[np.integer] | None = None
    ) -> NDArray[np.float32]:
        calls.append((self.context, len(tokens), n_logits))
        return original(self, tokens, n_logits, rows)

    monkeypatch.setattr(Stream, "decode", decode)
    return calls


def one_by_one(context: Context, tokens: list[int], start: int) -> NDArray[np.float32]:
    return np.array([context.decode([Run(0, start + i, [t], 1)])[0].copy() for i, t in enumerate(tokens)])


@pytest.mark.parametrize("flash_attn", [True, False])
@pytest.mark.parametrize("quantized", [None, "Q8_0", "Q4_0", "Q5_0", "F16"])
@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_tokens_alone_have_the_bits_of_one_after_the_other(
    tiny_model: TinyModel, load: Load, n: int, quantized: str | None, flash_attn: bool
) -> None:
    model = load(tiny_model("llama", wide=True, quantized=quantized) if quantized else tiny_model("llama"))
    context = Context(model, 1024, n_outputs=8, n_threads=2, flash_attn=flash_attn, tokens_alone=True)
    tokens = [i % 250 for i in range(600 + n)]
    context.decode([Run(0, 0, tokens[:512])])
    context.decode([Run(0, 512, tokens[512:600])])
    expected = one_by_one(context, tokens[600:], 600)
    context.truncate(0, 600)
    context.set_head_scales(0, None)
    assert np.array_equal(context.decode([Run(0, 600, tokens[600:], n)]), expected)
    context.close()


@pytest.mark.parametrize("tokens_alone", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_some_rows_are_those_of_all_logits(tiny_model: TinyModel, load: Load, kind: str, tokens_alone: bool) -> None:
    model = load(tiny_model(kind))
    context = Context(model, 256, n_outputs=8, n_threads=1, tokens_alone=tokens_alone)
    rows = np.array([3, 77, 78, 200, model.n_vocab - 1])
    for n in (1, 4):
        expected = context.decode([Run(0, 0, PROMPT[:n], n)])[:, rows].copy()
        context.truncate(0, 0)
        found = context.decode_rows([Run(0, 0, PROMPT[:n], n)], rows)
        # alone, a row is computed as ever; else the product of fewer rows may be another kernel's
        np.testing.assert_allclose(
            found, expected, rtol=0, atol=0 if (tokens_alone and kind != MLA) or n == 1 else 1e-5
        )
        context.truncate(0, 0)
    many = np.arange(40)
    expected = context.decode([Run(0, 0, PROMPT[:1], 1)])[:, many].copy()
    context.truncate(0, 0)
    assert np.array_equal(context.decode_rows([Run(0, 0, PROMPT[:1], 1)], many), expected)
    context.close()


def test_rows_that_are_no_tokens_are_refused_and_leave_nothing_set(tiny_model: TinyModel, load: Load) -> None:
    model = load(tiny_model("llama"))
    context = Context(model, 256, n_threads=1)
    expected = context.decode([Run(0, 0, PROMPT[:3], 1)]).copy()
    context.truncate(0, 0)
    with pytest.raises(NativeError, match="not in the vocabulary"):
        context.decode_rows([Run(0, 0, PROMPT[:3], 1)], np.array([model.n_vocab]))
    assert np.array_equal(context.decode([Run(0, 0, PROMPT[:3], 1)]), expected)
    context.close()


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma3", "lfm2"])
@pytest.mark.parametrize("n", [1, 3])
def test_a_context_goes_on_from_another_ones_layer(tiny_model: TinyModel, load: Load, kind: str, n: int) -> None:
    model = load(tiny_model(kind))
    # the first one as a chat makes it: its graphs are those of plain decoding, but for what is kept
    contexts = [Context(model, 256, n_outputs=4, n_threads=1, tokens_alone=alone) for alone in (False, True, True)]
    for context in contexts:
        context.decode([Run(0, 0, PROMPT)])
    full, whole, part = contexts
    layer, head = LAST[kind]
    for context in (whole, part):
        context.set_head_scales(0, head_mask(model, [(layer, head)]))
    tokens = list(b"Dear all")
    full.keep_layers(range(layer - 1, layer))
    for i in range(0, 6, n):
        below = []
        for j in range(i, i + n):
            full.decode([Run(0, len(PROMPT) + j, [tokens[j]], 1)])
            output = full.layer_output(layer - 1, 1)
            assert output is not None
            below.append(output)
        run = Run(0, len(PROMPT) + i, tokens[i : i + n], n)
        expected = whole.decode([run]).copy()
        with part.above(layer, np.concatenate(below)):
            assert np.array_equal(part.decode([run]), expected)
    assert full.layer_output(layer - 1, 2) is None
    for context in contexts:
        context.close()


@pytest.mark.parametrize("kind", ["llama", "gemma3", "lfm2"])
def test_other_layers_may_be_kept_from_one_call_to_the_next(tiny_model: TinyModel, load: Load, kind: str) -> None:
    model = load(tiny_model(kind))
    context = Context(model, 256, n_threads=1)
    run = Run(0, 0, PROMPT[:1], 1)

    def kept(layers: range) -> list[NDArray[np.float32] | None]:
        context.keep_layers(layers)
        context.decode([run])
        context.truncate(0, 0)
        return [context.layer_output(layer, 1) for layer in range(model.n_layer)]

    every = kept(range(model.n_layer))
    for layers in (range(1), range(1, 2), range(0), range(1, 2), range(1), range(2)):
        for layer, output in enumerate(kept(layers)):
            assert (output is None) == (layer not in layers)
            assert output is None or np.array_equal(output, every[layer])  # type: ignore[arg-type]
    context.close()


def test_a_copy_of_a_sliding_window_goes_on_bit_for_bit(tiny_model: TinyModel, load: Load) -> None:
    model = load(tiny_model("gemma3"))  # its window is 8 tokens
    full, muted = (Stream(Context(model, 1024, n_threads=2)) for _ in range(2))
    tokens = [i % 250 for i in range(700)]
    full.replay([tokens[:512], tokens[512:600]])
    muted.become(full)
    for token in tokens[600:]:
        assert np.array_equal(full.decode([token], 1), muted.decode([token], 1))
    for stream in (full, muted):
        stream.context.close()


def test_a_window_of_late_steps_ends_where_attention_takes_more_cells(
    tiny_model: TinyModel, load: Load, tape: list[tuple[Context, int, int]]
) -> None:
    model = load(tiny_model("llama"))
    steered = steering(model, "llama", beta=1.0)
    session = Session(model, ChatTemplate(model), steering=steered, sampling=Sampling(temp=0), n_ctx=512, n_threads=1)
    list(session.ask("x" * 150, 100))
    muted = [n for context, n, _ in tape if context is not session.full.context]
    ends = np.cumsum(muted) + session.turns[0].answer
    assert any(end % KV_STEP == 0 for end in ends)
    session.close()
