"""The patched llama.cpp: head scales against models whose output projection W_O was edited in the file.

Scaling a head's output by s, and multiplying the columns of W_O that read that head by s, are one and the same
function; on the CPU both give the same bits for s = 0, 0.5, 1 and -1, as these factors round nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny import ATTENTION, KINDS, N_VOCAB, TinyModel

from dps_local.engine.context import N_UBATCH, Context, Run
from dps_local.engine.model import Head, Model, head_mask
from dps_local.errors import NativeError

Logits = NDArray[np.float32]
Open = Callable[..., Context]

PROMPT = list(b"The letter that you wrote to the editor on Sunday, word for word.")  # a byte's token is its number
ANSWER = list(b"Dear all")
Q8_0, Q4_0 = 8, 2  # enum ggml_type

# heads whose scale has an effect: of each kind's first and last layer with attention
HEADS: dict[str, tuple[Head, ...]] = {
    "llama": ((0, 0), (2, 5)),
    "qwen2": ((0, 1), (1, 3)),
    "gemma3": ((0, 2), (2, 3)),  # layers 0 and 2 slide, layer 1 does not
    "deci": ((1, 1), (4, 2)),
    "deepseek2": ((0, 3), (1, 0)),
    "gemma4": ((1, 1), (5, 3)),
    "lfm2": ((1, 0), (1, 2)),
}


@pytest.fixture
def open_context(tiny_model: TinyModel) -> Iterator[Open]:
    """`open_context(kind_or_model, n_ctx, …)`: a context on one thread, with logits of every token."""
    opened: list[Context] = []

    def open_(model: str | Model, n_ctx: int = 128, *, n_seq: int = 1, **options: Any) -> Context:
        loaded = load(tiny_model(model)) if isinstance(model, str) else model
        defaults = {"n_outputs": n_ctx * n_seq, "n_batch": n_ctx * n_seq, "n_threads": 1}
        opened.append(Context(loaded, n_ctx, n_seq=n_seq, **defaults | options))
        return opened[-1]

    yield open_
    for context in opened:
        context.close()


MODELS: dict[Path, Model] = {}


def load(path: Path) -> Model:
    if path not in MODELS:
        MODELS[path] = Model(path)
    return MODELS[path]


@pytest.fixture(scope="module", autouse=True)
def close_models() -> Iterator[None]:
    yield
    for model in MODELS.values():
        model.close()
    MODELS.clear()


def feed(context: Context, runs: Sequence[Run]) -> Logits:
    """Return the logits of all tokens of `runs`, decoded run by run."""
    return np.concatenate([context.decode([Run(r.seq, r.start, r.tokens, len(r.tokens))]).copy() for r in runs])


def chat(seq: int = 0, prompt: Sequence[int] = PROMPT, answer: Sequence[int] = ANSWER) -> list[Run]:
    """A prompt in one call, and an answer token by token."""
    steps = [Run(seq, len(prompt) + i, [token]) for i, token in enumerate(answer)]
    return [Run(seq, 0, prompt), *steps]


def again(context: Context, runs: Sequence[Run]) -> Logits:
    """Empty the context, and feed it."""
    for seq in range(context.n_seq):
        assert context.truncate(seq, 0)
    return feed(context, runs)


def difference(a: Logits, b: Logits) -> float:
    assert a.shape == b.shape
    return float(np.abs(a - b).max())


# --- the oracle: W_O


@pytest.mark.parametrize("kind", ATTENTION)
def test_a_muted_head_equals_a_model_whose_output_columns_are_zero(
    kind: str, tiny_model: TinyModel, open_context: Open
) -> None:
    plain = feed(open_context(kind), chat())
    for heads in (*((h,) for h in HEADS[kind]), HEADS[kind]):
        edited = open_context(load(tiny_model(kind, edit=dict.fromkeys(heads, 0.0))))
        context = open_context(kind)
        context.set_head_scales(0, head_mask(context.model, heads))
        muted = feed(context, chat())
        assert difference(muted, feed(edited, chat())) == 0.0
        # every token from the first on: the muted layer is not only that of the last one
        assert np.abs(muted - plain).max(axis=1).min() > 1e-3


@pytest.mark.parametrize("kind", ATTENTION)
@pytest.mark.parametrize("scale", [0.5, -1.0, 2.0])
def test_a_scale_that_rounds_nothing_equals_scaled_output_columns_bit_for_bit(
    kind: str, scale: float, tiny_model: TinyModel, open_context: Open
) -> None:
    edited = open_context(load(tiny_model(kind, edit=dict.fromkeys(HEADS[kind], scale))))
    context = open_context(kind)
    context.set_head_scales(0, head_mask(context.model, HEADS[kind], scale))
    assert difference(feed(context, chat()), feed(edited, chat())) == 0.0


@pytest.mark.parametrize("kind", ATTENTION)
@pytest.mark.parametrize("scale", [1.5, 0.3])
def test_any_other_scale_equals_scaled_output_columns_to_rounding(
    kind: str, scale: float, tiny_model: TinyModel, open_context: Open
) -> None:
    edited = open_context(load(tiny_model(kind, edit=dict.fromkeys(HEADS[kind], scale))))
    context = open_context(kind)
    context.set_head_scales(0, head_mask(context.model, HEADS[kind], scale))
    scaled, oracle = feed(context, chat()), feed(edited, chat())
    # one rounds s·x, the other s·w: float32 keeps 7 digits, but K and V are cached in float16, which keeps 3
    np.testing.assert_allclose(scaled, oracle, rtol=0, atol=0.01)
    assert difference(scaled, feed(open_context(kind), chat())) > 0.3


def test_each_head_of_a_layer_has_a_scale_of_its_own(tiny_model: TinyModel, open_context: Open) -> None:
    scales = {(0, 0): 0.5, (0, 1): 0.0, (0, 4): -2.0, (1, 2): 4.0, (2, 0): 0.25, (2, 5): 0.0}
    context = open_context("llama")
    mask = np.ones((3, 6), np.float32)
    for head, scale in scales.items():
        mask[head] = scale
    context.set_head_scales(0, mask)
    assert difference(feed(context, chat()), feed(open_context(load(tiny_model("llama", edit=scales))), chat())) == 0.0


@pytest.mark.parametrize("kind", ATTENTION)
def test_a_muted_head_equals_zero_columns_in_a_prompt_longer_than_a_batch(
    kind: str, tiny_model: TinyModel, open_context: Open
) -> None:
    prompt = PROMPT * 9
    assert len(prompt) > N_UBATCH
    edited = open_context(load(tiny_model(kind, edit=dict.fromkeys(HEADS[kind], 0.0))), 640)
    context = open_context(kind, 640)
    context.set_head_scales(0, head_mask(context.model, HEADS[kind]))
    assert difference(feed(context, chat(0, prompt)), feed(edited, chat(0, prompt))) == 0.0


def test_a_muted_head_equals_zero_columns_on_two_threads(tiny_model: TinyModel, open_context: Open) -> None:
    edited = open_context(load(tiny_model("llama", edit={(1, 3): 0.0})), n_threads=2)
    context = open_context("llama", n_threads=2)
    context.set_head_scales(0, head_mask(context.model, [(1, 3)]))
    runs = chat(0, PROMPT, ANSWER[:1])  # short: on a busy machine the threads wait for one another
    assert difference(feed(context, runs), feed(edited, runs)) == 0.0


@pytest.mark.parametrize("quantized", ["Q8_0", "Q4_0"])
def test_a_muted_head_equals_zero_columns_of_quantized_weights(
    quantized: str, tiny_model: TinyModel, open_context: Open
) -> None:
    # a head of 64 fills whole blocks of 32 columns, so zero columns leave the other heads' blocks as they are
    options: dict[str, Any] = {"head_size": 64, "quantized": quantized}
    edited = open_context(load(tiny_model("llama", edit={(1, 3): 0.0}, **options)))
    context = open_context(load(tiny_model("llama", **options)))
    context.set_head_scales(0, head_mask(context.model, [(1, 3)]))
    assert difference(feed(context, chat()), feed(edited, chat())) == 0.0


@pytest.mark.parametrize("flash_attn", [False, True])
@pytest.mark.parametrize("kind", ATTENTION)
def test_a_muted_head_equals_zero_columns_with_and_without_flash_attention(
    kind: str, flash_attn: bool, tiny_model: TinyModel, open_context: Open
) -> None:
    edited = open_context(load(tiny_model(kind, edit={HEADS[kind][-1]: 0.0})), flash_attn=flash_attn)
    context = open_context(kind, flash_attn=flash_attn)
    context.set_head_scales(0, head_mask(context.model, HEADS[kind][-1:]))
    assert difference(feed(context, chat()), feed(edited, chat())) == 0.0


# --- a quantized KV cache

QUANTIZED: dict[str, Any] = {"flash_attn": True, "type_k": Q8_0, "type_v": Q8_0}
ROTATED = ("llama", "gemma3")  # without and with a sliding window: two places in llama-graph.cpp


def rotation_is_on(model: Model, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, open_context: Open) -> bool:
    """Whether llama.cpp rotates what it caches, so that the attention output has to be rotated back."""
    rotated = feed(open_context(model, **options), chat())
    with monkeypatch.context() as patch:
        patch.setenv("LLAMA_ATTN_ROT_DISABLE", "1")
        return difference(rotated, feed(open_context(model, **options), chat())) > 0


@pytest.mark.parametrize("kv_type", [Q8_0, Q4_0])
@pytest.mark.parametrize("kind", ROTATED)
def test_a_muted_head_equals_zero_columns_when_a_quantized_cache_is_rotated(
    kind: str, kv_type: int, tiny_model: TinyModel, open_context: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = QUANTIZED | {"type_v": kv_type}
    model = load(tiny_model(kind, head_size=64))
    # K and V are rotated only at head sizes that 64 divides; with K in F16 it is V's rotation alone
    assert rotation_is_on(model, options | {"type_k": 1}, monkeypatch, open_context)
    for scale in (0.0, 0.5):
        edited = load(tiny_model(kind, head_size=64, edit=dict.fromkeys(HEADS[kind], scale)))
        context = open_context(model, **options)
        context.set_head_scales(0, head_mask(model, HEADS[kind], scale))
        muted = feed(context, chat())
        assert difference(muted, feed(open_context(edited, **options), chat())) == 0.0
        assert difference(muted, feed(open_context(model, **options), chat())) > 0.3


def test_a_muted_head_equals_zero_columns_when_a_quantized_cache_is_not_rotated(
    tiny_model: TinyModel, open_context: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(tiny_model("gemma3"))  # head size 32
    assert not rotation_is_on(model, QUANTIZED, monkeypatch, open_context)
    context = open_context(model, **QUANTIZED)
    context.set_head_scales(0, head_mask(model, HEADS["gemma3"]))
    edited = load(tiny_model("gemma3", edit=dict.fromkeys(HEADS["gemma3"], 0.0)))
    assert difference(feed(context, chat()), feed(open_context(edited, **QUANTIZED), chat())) == 0.0


# --- null controls


@pytest.mark.parametrize("kind", KINDS)
def test_two_contexts_are_bit_identical_at_every_prompt_length(kind: str, open_context: Open) -> None:
    plain, ones = open_context(kind, 640), open_context(kind, 640)
    ones.set_head_scales(0, head_mask(ones.model, []))
    for n in (*range(1, 71), 255, 256, 257, N_UBATCH - 1, N_UBATCH, N_UBATCH + 1, 600):
        runs = chat(0, (PROMPT * 10)[:n], ANSWER[:2])
        assert difference(again(plain, runs), again(ones, runs)) == 0.0, n


@pytest.mark.parametrize("kind", ATTENTION)
def test_ones_that_are_multiplied_change_nothing_at_any_prompt_length(kind: str, open_context: Open) -> None:
    # scales of another sequence put the multiplication into the graph of this one
    plain, ones = open_context(kind, 640, n_seq=2), open_context(kind, 640, n_seq=2)
    ones.set_head_scales(1, np.zeros((ones.model.n_layer, ones.model.n_head_max), np.float32))
    for n in (*range(1, 71), 256, 257, N_UBATCH + 1, 600):
        runs = chat(0, (PROMPT * 10)[:n], ANSWER[:2])
        assert difference(again(plain, runs), again(ones, runs)) == 0.0, n


@pytest.mark.parametrize("options", [{"type_k": Q8_0, "type_v": Q8_0}, {"type_k": Q4_0, "type_v": Q4_0}])
@pytest.mark.parametrize("kind", ROTATED)
def test_ones_change_nothing_in_a_quantized_cache(
    kind: str, options: dict[str, int], tiny_model: TinyModel, open_context: Open
) -> None:
    model = load(tiny_model(kind, head_size=64))
    plain, ones, multiplied = (open_context(model, 640, n_seq=2, flash_attn=True, **options) for _ in range(3))
    ones.set_head_scales(0, head_mask(model, []))
    multiplied.set_head_scales(1, np.zeros((model.n_layer, model.n_head_max), np.float32))
    for n in (1, 2, 3, 8, 31, 64, 65, 257, 600):
        runs = chat(0, (PROMPT * 10)[:n], ANSWER[:2])
        expected = again(plain, runs)
        assert difference(expected, again(ones, runs)) == 0.0, n
        assert difference(expected, again(multiplied, runs)) == 0.0, n


# --- sequences


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_sequences_of_one_batch_are_scaled_as_if_each_were_alone(data: st.DataObject, tiny_model: TinyModel) -> None:
    model = load(tiny_model(data.draw(st.sampled_from(ATTENTION))))
    n_seq, n = 4, data.draw(st.integers(1, 40))
    values = st.sampled_from([0.0, 0.5, 1.0, 1.3, -2.0])
    shape = (model.n_layer, model.n_head_max)
    scales = {
        seq: np.array(data.draw(st.lists(values, min_size=shape[0] * shape[1], max_size=shape[0] * shape[1])))
        .reshape(shape)
        .astype(np.float32)
        for seq in data.draw(st.sets(st.integers(0, n_seq - 1), min_size=1))
    }
    text = PROMPT * 4
    batch = [Run(seq, 0, text[7 * seq : 7 * seq + n], n) for seq in range(n_seq)]
    steps = [[Run(seq, n + i, [ANSWER[i] + seq], 1) for seq in range(n_seq)] for i in range(3)]

    def logits(applied: dict[int, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        context = Context(model, 64, n_seq=n_seq, n_outputs=64 * n_seq, n_threads=1)
        for seq, scale in applied.items():
            context.set_head_scales(seq, scale)
        decoded = [context.decode(runs).copy() for runs in [batch, *steps]]
        context.close()
        return [d.reshape(n_seq, -1, N_VOCAB) for d in decoded]

    together, plain = logits(scales), logits({})
    for seq in range(n_seq):
        expected = logits({seq: scales[seq]}) if seq in scales else plain
        for a, b in zip(together, expected, strict=True):
            assert difference(a[seq], b[seq]) == 0.0


@pytest.mark.parametrize("kind", ATTENTION)
def test_a_sequence_that_branches_off_is_muted_from_there_on(kind: str, open_context: Open) -> None:
    # the scoring engine in small: a shared prefix, copies of it, each with a head of its own muted
    context = open_context(kind, n_seq=4)
    feed(context, [Run(0, 0, PROMPT)])
    for seq in (1, 2, 3):
        context.copy(0, seq)
    scales = {2: head_mask(context.model, HEADS[kind][:1]), 3: head_mask(context.model, HEADS[kind][1:])}
    with context.head_scales(scales):
        branches = [Run(seq, len(PROMPT), ANSWER, len(ANSWER)) for seq in (1, 2, 3)]
        logits = context.decode(branches).copy().reshape(3, len(ANSWER), -1)
    prefix, alone = context.state(), open_context(kind, n_seq=4)
    for branch, head in zip(logits, [None, *HEADS[kind]], strict=True):
        alone.set_state(prefix)
        alone.set_head_scales(0, head_mask(alone.model, [head]) if head else None)
        # one sequence alone is another batch shape: equal to rounding
        np.testing.assert_allclose(branch, feed(alone, [Run(0, len(PROMPT), ANSWER)]), rtol=0, atol=0.01)


@pytest.mark.parametrize("kind", ATTENTION)
def test_none_clears_the_scales_and_restores_every_bit(kind: str, open_context: Open) -> None:
    context = open_context(kind)
    plain = feed(context, chat())
    context.set_head_scales(0, head_mask(context.model, HEADS[kind]))
    assert difference(again(context, chat()), plain) > 0.3
    context.set_head_scales(0, None)
    assert difference(again(context, chat()), plain) == 0.0


def test_the_block_clears_its_scales_even_when_it_fails(open_context: Open) -> None:
    context = open_context("llama", n_seq=2)
    plain = feed(context, chat(1))
    with pytest.raises(ZeroDivisionError), context.head_scales({0: head_mask(context.model, [(0, 0)])}):
        raise ZeroDivisionError
    with (
        pytest.raises(NativeError),
        context.head_scales({1: head_mask(context.model, [(0, 0)]), 2: np.ones(5, np.float32)}),
    ):
        pass
    assert difference(again(context, chat(1)), plain) == 0.0


@pytest.mark.parametrize("kind", ATTENTION)
def test_changed_values_take_effect_at_once_and_the_old_ones_come_back_bit_for_bit(
    kind: str, open_context: Open
) -> None:
    context = open_context(kind)
    masks = [head_mask(context.model, HEADS[kind], scale) for scale in (0.0, 0.7, 0.0)]
    logits = []
    for mask in masks:
        context.set_head_scales(0, mask)
        logits.append(again(context, chat()))
    assert difference(logits[0], logits[1]) > 0.1
    assert difference(logits[0], logits[2]) == 0.0


def test_a_scale_set_in_the_middle_of_an_answer_leaves_the_tokens_before_it_as_they_were(open_context: Open) -> None:
    plain, context = open_context("llama"), open_context("llama")
    expected, steps = feed(plain, chat()), chat()
    for i, step in enumerate(steps):
        context.set_head_scales(0, head_mask(context.model, [(2, 0)]) if i == 4 else None)
        logits, start = feed(context, [step]), step.start
        same = difference(logits, expected[start : start + len(step.tokens)]) == 0.0
        # in the last layer a muted head touches its own token only: the keys and values after it are the same
        assert same == (i != 4)


def test_the_scales_of_another_sequence_change_nothing(open_context: Open) -> None:
    context = open_context("llama", n_seq=3)
    plain = feed(context, chat(1))
    context.set_head_scales(0, head_mask(context.model, [(0, 0)]))
    context.set_head_scales(2, np.full((3, 6), 7.0, np.float32))
    assert difference(again(context, chat(1)), plain) == 0.0
    context.set_head_scales(1, head_mask(context.model, [(1, 1)]))
    muted = again(context, chat(1))
    context.set_head_scales(0, None)
    context.set_head_scales(2, None)
    assert difference(again(context, chat(1)), muted) == 0.0
    context.set_head_scales(1, None)
    assert difference(again(context, chat(1)), plain) == 0.0


# --- graph reuse


class Reuse:
    """Decodes token after token, and says whether llama.cpp reused the graph."""

    def __init__(self, context: Context) -> None:
        self.context = context
        feed(context, [Run(0, 0, PROMPT)])
        self.n = len(PROMPT)

    def next(self) -> bool:
        before = self._count()
        self.context.decode([Run(0, self.n, [ANSWER[0]], 1)])
        self.n += 1
        return self._count() == before + 1

    def _count(self) -> int:
        return int(self.context.llama.llama_perf_context(self.context.handle).n_reused)


@pytest.mark.parametrize("kind", [k for k in ATTENTION if k != "lfm2"])
def test_new_values_keep_the_graph_and_a_new_set_of_layers_builds_another(kind: str, open_context: Open) -> None:
    context = open_context(kind)
    first, last = HEADS[kind]
    both = head_mask(context.model, [first, last])
    steps = Reuse(context)
    steps.next()
    assert steps.next()
    changes: list[tuple[NDArray[np.float32] | None, bool]] = [
        (both, False),  # two layers more than before
        (both * np.float32(0.5) + np.float32(0.5), True),
        (head_mask(context.model, []), False),  # ones: no layer, as if cleared
        (None, True),
        (both, False),
        (head_mask(context.model, [first, last], 0.3), True),
        (head_mask(context.model, [(first[0], 0), (last[0], 1)], 5.0), True),  # other heads of the same layers
        (head_mask(context.model, [first]), False),  # one layer less
        (head_mask(context.model, [last]), False),  # another one
        (None, False),
    ]
    for scales, kept in changes:
        context.set_head_scales(0, scales)
        assert [steps.next(), steps.next(), steps.next()] == [kept, True, True]


def test_the_reused_graph_of_one_step_gives_what_a_fresh_context_gives(open_context: Open) -> None:
    reused, fresh = open_context("llama"), open_context("llama")
    feed(reused, chat())
    for scale in (0.0, 0.4, 2.0, 0.0):
        mask = head_mask(reused.model, [(0, 1), (2, 2)], scale)
        reused.truncate(0, len(PROMPT))
        reused.set_head_scales(0, mask)
        logits = feed(reused, chat()[1:])
        again(fresh, chat()[:1])
        with fresh.head_scales({0: mask}):
            assert difference(logits, feed(fresh, chat()[1:])) == 0.0


# --- what is refused

BAD: dict[str, tuple[int, Callable[[], NDArray[np.float32]]]] = {
    "too short": (0, lambda: np.zeros(17, np.float32)),
    "too long": (0, lambda: np.zeros(19, np.float32)),
    "empty": (0, lambda: np.zeros(0, np.float32)),
    "a negative sequence": (-1, lambda: np.zeros((3, 6), np.float32)),
    "a sequence that the context does not have": (1, lambda: np.zeros((3, 6), np.float32)),
    "not a number": (0, lambda: np.where(np.arange(18) == 17, np.nan, 0).astype(np.float32)),
    "infinite": (0, lambda: np.where(np.arange(18) == 0, np.inf, 0).astype(np.float32)),
    "minus infinite": (0, lambda: np.where(np.arange(18) == 9, -np.inf, 0).astype(np.float32)),
}


@pytest.mark.parametrize("case", BAD)
def test_a_refused_call_keeps_the_scales_as_they_were(case: str, open_context: Open) -> None:
    context = open_context("llama")
    context.set_head_scales(0, head_mask(context.model, [(1, 1)]))
    muted = feed(context, chat())
    seq, scales = BAD[case][0], BAD[case][1]()
    status = context.native.set_adapter_head_scale(context.handle, seq, scales.ctypes.data, scales.size)
    assert status == -1
    with pytest.raises(NativeError, match="llama_set_adapter_head_scale"):
        context.set_head_scales(seq, scales)
    assert difference(again(context, chat()), muted) == 0.0


def test_clearing_takes_any_length_but_no_sequence_that_is_not_there(open_context: Open) -> None:
    context = open_context("llama")
    call = context.native.set_adapter_head_scale
    assert [call(context.handle, 0, None, n) for n in (0, 18, 99)] == [0, 0, 0]
    assert [call(context.handle, seq, None, 0) for seq in (-1, 1, 7)] == [-1, -1, -1]


def test_any_finite_value_is_taken(tiny_model: TinyModel, open_context: Open) -> None:
    context = open_context("llama")
    for value in (-0.0, 1e-30, -1e6, float(np.finfo(np.float32).max)):
        context.set_head_scales(0, head_mask(context.model, [(2, 5)], value))
    context.set_head_scales(0, head_mask(context.model, [(2, 5)], 2.0**20))
    edited = open_context(load(tiny_model("llama", edit={(2, 5): 2.0**20})))
    assert difference(feed(context, chat()), feed(edited, chat())) == 0.0


# --- layers that differ


def test_columns_past_a_layers_own_heads_are_ignored(open_context: Open) -> None:
    context = open_context("deci")  # 4, 2, 4, 0 and 3 heads
    assert context.model.n_heads == (4, 2, 4, 0, 3)
    plain = feed(context, chat())
    scales = np.ones((5, 4), np.float32)
    scales[1, 2:], scales[3, :], scales[4, 3:] = 0.0, -3.0, 9.0
    context.set_head_scales(0, scales)
    assert difference(again(context, chat()), plain) == 0.0
    scales[1, 1] = 0.0
    context.set_head_scales(0, scales)
    muted = again(context, chat())
    context.set_head_scales(0, head_mask(context.model, [(1, 1)]))
    assert difference(again(context, chat()), muted) == 0.0
    assert difference(muted, plain) > 0.3


def test_columns_past_a_layers_own_heads_build_no_other_graph(open_context: Open) -> None:
    context = open_context("deci")
    steps = Reuse(context)
    steps.next()
    scales = np.ones((5, 4), np.float32)
    scales[1, 2:] = 0.0
    context.set_head_scales(0, scales)
    assert steps.next()


@pytest.mark.parametrize(("kind", "layers"), [("deci", (2, 3)), ("lfm2", (0, 2))])
def test_a_layer_without_attention_is_left_as_it_is(kind: str, layers: tuple[int, ...], open_context: Open) -> None:
    context = open_context(kind)
    plain = feed(context, chat())
    scales = np.ones((context.model.n_layer, context.model.n_head_max), np.float32)
    scales[list(layers)] = 0.0
    context.set_head_scales(0, scales)
    assert difference(again(context, chat()), plain) == 0.0


def test_a_model_without_attention_has_no_heads(open_context: Open) -> None:
    context = open_context("mamba")
    assert context.model.heads() == []
    assert context.model.n_head_max == 0
    context.set_head_scales(0, np.ones((2, 0), np.float32))
    assert feed(context, chat()).shape == (len(PROMPT) + len(ANSWER), N_VOCAB)


# --- state


@pytest.mark.parametrize("kind", KINDS)
def test_a_copied_state_goes_on_bit_for_bit(kind: str, open_context: Open) -> None:
    source, target = open_context(kind), open_context(kind)
    prompt, *steps = chat()
    feed(source, [prompt])
    feed(target, [Run(0, 0, ANSWER)])  # is replaced
    target.set_state(source.state())
    assert difference(feed(source, steps), feed(target, steps)) == 0.0


@pytest.mark.parametrize("kind", ATTENTION)
def test_scales_are_no_part_of_a_state(kind: str, open_context: Open) -> None:
    # generated scope: the prompt is read with all heads, and only the copy goes on without some
    source, target, oracle = (open_context(kind) for _ in range(3))
    prompt, *steps = chat()
    feed(source, [prompt])
    plain = source.state()
    mask = head_mask(source.model, HEADS[kind])
    target.set_head_scales(0, mask)
    target.set_state(plain)
    feed(oracle, [prompt])
    oracle.set_head_scales(0, mask)
    assert difference(feed(target, steps), feed(oracle, steps)) == 0.0


# --- sequences compared in the graph

N_SEQ = 5  # sequence 0 keeps the prompt, the others branch off it
TARGETS = [*ANSWER[1:], 7]


def branches() -> list[Run]:
    return [Run(seq, len(PROMPT), ANSWER, len(ANSWER)) for seq in range(1, N_SEQ)]


def branch_off(context: Context) -> None:
    """Put the prompt, and nothing else, into every sequence."""
    if not context.truncate(0, len(PROMPT)):
        context.truncate(0, 0)
        feed(context, [Run(0, 0, PROMPT)])
    for seq in range(1, N_SEQ):
        context.copy(0, seq)


def at_the_answer(context: Context) -> Context:
    feed(context, [Run(0, 0, PROMPT)])
    branch_off(context)
    return context


def some_scales(model: Model, lowest: int = 0) -> dict[int, NDArray[np.float32]]:
    """Scales of heads in the layers from `lowest` on, for some of the sequences after the first."""
    heads = [(layer, head) for layer, head in model.heads() if layer >= lowest]
    chosen = {2: (heads[:1], 0.0), 3: (heads[-2:], 0.6), 4: (heads[::2], 1.7)} if heads else {}
    return {seq: head_mask(model, some, scale) for seq, (some, scale) in chosen.items()}


def kept(context: Context, runs: list[Run]) -> tuple[NDArray[np.float32], dict[int, Logits]]:
    """Compare with all layers kept; return what was found, and what each layer put out, where that can be had."""
    with context.keep_layers(range(context.model.n_layer)):
        found = context.compare(runs, TARGETS)
    n_tokens = sum(len(run.tokens) for run in runs)
    outputs = {layer: context.layer_output(layer, n_tokens) for layer in range(context.model.n_layer)}
    return found, {layer: output for layer, output in outputs.items() if output is not None}


def compare_above(context: Context, layer: int, outputs: dict[int, Logits], runs: list[Run]) -> NDArray[np.float32]:
    """Compare from a layer on, or from the highest below it where something was kept."""
    layer = max((n + 1 for n in outputs if n < layer and context.model.layer_start(n + 1) == n + 1), default=0)
    if not layer:
        return context.compare(runs, TARGETS)
    with context.start_at(layer, outputs[layer - 1]):
        return context.compare(runs, TARGETS)


@pytest.mark.parametrize("kind", ATTENTION)
def test_a_comparison_equals_what_numpy_makes_of_all_logits(kind: str, open_context: Open) -> None:
    context, oracle = (at_the_answer(open_context(kind, n_seq=N_SEQ)) for _ in range(2))
    scales = some_scales(context.model)
    with context.head_scales(scales), oracle.head_scales(scales):
        found = context.compare(branches(), TARGETS)
        logits = oracle.decode(branches()).copy().reshape(N_SEQ - 1, len(TARGETS), -1)
    rows = np.arange(len(TARGETS))
    # a difference of two float32 numbers is rounded once, here and there
    assert np.array_equal(found[..., 1], (logits - logits[0])[:, rows, TARGETS])
    m, delta = logits.astype(np.float64), (logits - logits[0]).astype(np.float64)
    p = np.exp(m - m.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    # the others are sums of 274 float32 terms of about one sign: an error of some 274 · 2⁻²⁴ = 2e-5 of the largest sum
    np.testing.assert_allclose(found[..., 0], p[:, rows, TARGETS], rtol=2e-5, atol=0)
    size = (p[0] * np.abs(delta)).sum(axis=-1)
    assert (np.abs(found[..., 2] - (p[0] * delta).sum(axis=-1)) <= 2e-5 * size).all()
    np.testing.assert_allclose(found[..., 3], (p[0] * delta**2).sum(axis=-1), rtol=2e-5, atol=0)
    assert np.abs(found[1:, :, 1:]).max() > 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_equal_sequences_do_not_differ_at_all(kind: str, open_context: Open) -> None:
    context = at_the_answer(open_context(kind, n_seq=N_SEQ))
    alone = context.compare(branches(), TARGETS)
    assert not alone[..., 1:].any()
    assert (alone[..., 0] == alone[0, :, 0]).all()
    assert (alone[..., 0] > 0).all()
    if context.model.heads():  # beside one that does differ
        branch_off(context)
        with context.head_scales({3: head_mask(context.model, HEADS[kind])}):
            found = context.compare(branches(), TARGETS)
        assert np.array_equal(found[[0, 1, 3]], alone[[0, 1, 3]])
        assert np.abs(found[2, :, 1:]).min() > 0


def test_one_sequence_is_compared_with_itself(open_context: Open) -> None:
    context = open_context("llama")
    found = context.compare([Run(0, 0, PROMPT, 2)], [5, 6])
    assert found.shape == (1, 2, 4)
    assert not found[..., 1:].any()


def test_targets_change_from_one_comparison_to_the_next(open_context: Open) -> None:
    context = at_the_answer(open_context("llama", n_seq=N_SEQ))
    found = []
    with context.head_scales(some_scales(context.model)):
        for targets in (TARGETS, [0] * 8, [N_VOCAB - 1] * 8, TARGETS):
            branch_off(context)
            found.append(context.compare(branches(), targets))
    assert np.array_equal(found[0], found[3])
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (found[a][1:, :, :2] != found[b][1:, :, :2]).all()
        assert np.array_equal(found[a][..., 2:], found[b][..., 2:])  # the means do not depend on a target


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_comparison_every_logit_is_as_if_there_had_been_none(kind: str, open_context: Open) -> None:
    plain, context = (at_the_answer(open_context(kind, n_seq=N_SEQ)) for _ in range(2))
    _, outputs = kept(context, branches())
    branch_off(context)
    compare_above(context, 1, outputs, branches())
    branch_off(context)
    expected = plain.decode(branches()).copy()
    assert difference(context.decode(branches()).copy(), expected) == 0.0
    assert difference(again(context, chat()), again(plain, chat())) == 0.0


REFUSED: dict[str, tuple[list[Run], list[int]]] = {
    "a negative target": (branches(), [*TARGETS[1:], -1]),
    "a target past the vocabulary": (branches(), [N_VOCAB, *TARGETS[1:]]),
    "fewer targets than outputs": (branches(), TARGETS[1:]),
    "more targets than outputs": (branches(), [*TARGETS, 1]),
    "half as many targets as outputs": (branches(), TARGETS[:4]),
    "twice as many targets as outputs": (branches(), TARGETS * 2),
    "one sequence with fewer outputs": ([*branches()[:3], Run(4, len(PROMPT), ANSWER, 4)], TARGETS),
    "one sequence twice": ([Run(1, len(PROMPT), ANSWER, 8), Run(1, len(PROMPT) + 8, ANSWER, 8)], TARGETS),
    "more than one micro-batch": ([Run(1, len(PROMPT), ANSWER * 65, 8)], TARGETS),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_compared_is_refused_and_the_context_goes_on(case: str, open_context: Open) -> None:
    plain, context = (at_the_answer(open_context("llama", 640, n_seq=N_SEQ)) for _ in range(2))
    runs, targets = REFUSED[case]
    with pytest.raises(NativeError, match=r"llama_set_logits_part: .*vocabulary|llama_decode failed with -1"):
        context.compare(runs, targets)
    expected = plain.decode(branches()).copy()
    assert difference(context.decode(branches()).copy(), expected) == 0.0  # not truncated: nothing was decoded
    for c in (plain, context):
        branch_off(c)
    assert np.array_equal(context.compare(branches(), TARGETS), plain.compare(branches(), TARGETS))


# --- a graph that starts at a layer


@pytest.mark.parametrize("kind", KINDS)
def test_layers_below_the_first_scaled_one_need_not_be_computed_again(kind: str, open_context: Open) -> None:
    context, full = (at_the_answer(open_context(kind, n_seq=N_SEQ)) for _ in range(2))
    model = context.model
    plain = full.compare(branches(), TARGETS)
    found, outputs = kept(context, branches())
    assert np.array_equal(found, plain)
    layers = [*range(1, model.n_layer), *range(model.n_layer - 1, 0, -1)]
    for layer in layers:
        for lowest in (layer, min(layer + 1, model.n_layer - 1), None):  # scales at the layer, above it, none
            scales = {} if lowest is None else some_scales(model, lowest)
            branch_off(context)
            branch_off(full)
            with context.head_scales(scales), full.head_scales(scales):
                expected = full.compare(branches(), TARGETS)
                assert np.array_equal(compare_above(context, layer, outputs, branches()), expected), (layer, lowest)
            if not scales:
                assert np.array_equal(expected, plain)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("llama", [0, 1, 2, 2, 2]),
        ("gemma4", [0, 1, 1, 1, 1, 1, 1]),  # layers 3 to 5 read the keys and values of layers 1 and 2
        ("mamba", [0, 1, 1]),
    ],
)
def test_no_layer_above_the_start_reads_what_those_below_it_leave(
    kind: str, expected: list[int], tiny_model: TinyModel, load: Callable[[Path], Model]
) -> None:
    model = load(tiny_model(kind))
    assert [model.layer_start(layer) for layer in range(-1, len(expected) - 1)] == [0, *expected[:-1]]
    assert model.layer_start(99) == expected[-1]


def test_a_batch_of_another_number_of_tokens_is_refused_and_the_context_goes_on(open_context: Open) -> None:
    context, full = (at_the_answer(open_context("llama", n_seq=N_SEQ)) for _ in range(2))
    assert context.layer_output(1, len(ANSWER)) is None  # nothing was kept yet
    _, outputs = kept(context, branches())
    branch_off(context)
    with pytest.raises(NativeError, match="llama_decode failed with -1"):
        compare_above(context, 2, outputs, branches()[:3])
    assert np.array_equal(context.compare(branches()[:3], TARGETS), full.compare(branches()[:3], TARGETS))


def test_what_the_last_call_kept_is_what_counts(open_context: Open) -> None:
    context, full = (at_the_answer(open_context("gemma3", n_seq=N_SEQ)) for _ in range(2))
    other = [Run(seq, len(PROMPT), ANSWER[::-1], len(ANSWER)) for seq in range(1, N_SEQ)]
    for runs in (branches(), other, branches()):
        branch_off(context)
        _, outputs = kept(context, runs)
        for layer in (2, 1):
            for c in (context, full):
                branch_off(c)
            scales = some_scales(context.model, layer)
            with context.head_scales(scales), full.head_scales(scales):
                assert np.array_equal(compare_above(context, layer, outputs, runs), full.compare(runs, TARGETS))


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "gemma4"])  # there, tokens come in at each layer
def test_layers_below_the_start_are_indeed_those_that_were_kept(kind: str, open_context: Open) -> None:
    context = at_the_answer(open_context(kind, n_seq=N_SEQ))
    other = [Run(seq, len(PROMPT), ANSWER[::-1], len(ANSWER)) for seq in range(1, N_SEQ)]
    for layer in range(1, context.model.n_layer):
        branch_off(context)
        expected, outputs = kept(context, branches())
        branch_off(context)
        # not what this is for: a call with other tokens shows what it starts from
        assert np.array_equal(compare_above(context, layer, outputs, other), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_what_one_part_of_a_batch_kept_stands_for_its_repetitions(kind: str, open_context: Open) -> None:
    context, full = (at_the_answer(open_context(kind, n_seq=N_SEQ)) for _ in range(2))
    for part in (2, 1, 4):  # of four sequences
        branch_off(context)
        _, outputs = kept(context, branches()[:part])
        for layer in range(context.model.n_layer - 1, 0, -1):
            for c in (context, full):
                branch_off(c)
            scales = some_scales(context.model, layer)
            with context.head_scales(scales), full.head_scales(scales):
                found = compare_above(context, layer, outputs, branches())
                assert np.array_equal(found, full.compare(branches(), TARGETS)), (part, layer)


@pytest.mark.parametrize("layer", [-2, -99, 0, 3, 99])
def test_a_layer_that_is_not_there_is_refused(layer: int, open_context: Open) -> None:
    context, full = (at_the_answer(open_context("llama", n_seq=N_SEQ)) for _ in range(2))
    _, outputs = kept(context, branches())
    branch_off(context)
    with (
        pytest.raises(NativeError, match=f"llama_set_layer_start: .*no batch can start at layer {layer}"),
        context.start_at(layer, outputs[1]),
    ):
        pass
    with (
        pytest.raises(NativeError, match=r"llama_set_layer_start: .*not those of whole tokens"),
        context.start_at(2, outputs[1].reshape(-1)[1:]),
    ):
        pass
    with (
        pytest.raises(NativeError, match=r"llama_set_layer_outputs: .*there are no layers"),
        context.keep_layers(range(min(layer, 1), 99)),
    ):
        pass
    assert np.array_equal(context.compare(branches(), TARGETS), full.compare(branches(), TARGETS))
