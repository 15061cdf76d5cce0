"""`Scorer` on tiny models: many heads at a time against one full forward pass for each head, and against itself.

The oracle reads a text from its first token for one head alone, and takes what it needs from all logits in float64.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny import ATTENTION, TinyModel

from dps_local.engine.context import N_UBATCH, Context, Run
from dps_local.engine.model import Head, Model, head_mask
from dps_local.errors import NativeError
from dps_local.scoring.forked_sequences import KERNEL_ROWS, ForkedSequences, ScoredText
from dps_local.scoring.head_ablation import MAX_PARALLEL, HeadAblation, parallel_sequences, sequence_bytes
from dps_local.scoring.head_effects import GAIN, VARIANCE
from dps_local.scoring.statistics import LARGEST, amplification
from dps_local.system import memory

Scope = Literal["generated", "all"]
SCOPES: tuple[Scope, ...] = ("generated", "all")
Array = NDArray[np.float64]

PROMPT = list(b"Write to Sam about the shed, as ever.")  # a byte's token is its number
TEXT = ScoredText(PROMPT, list(b"No need to rush, love."))


# --- the oracle: no batches, no shared prefixes, no float32


def forward(
    model: Model,
    text: ScoredText,
    heads: Sequence[Head],
    scope: str,
    *,
    scale: float = 0.0,
    continue_with: Model | None = None,
) -> Array:
    """Return the logits F64 [n_target, n_vocab] of a target, from a context that reads the whole text for it.

    continue_with: a model with edited weights that goes on where the scope begins, from a copy of the KV state.
    """
    reader = continue_with if continue_with and scope == "all" else model
    length = len(text.prompt) + len(text.target)
    context = Context(reader, length, n_outputs=len(text.target), n_threads=1, flash_attn=False)
    writer = context
    mask = head_mask(model, heads, scale) if heads else None
    if scope == "all":
        context.set_head_scales(0, mask)
    prefix = text.prompt[:-1]
    for i in range(0, len(prefix), N_UBATCH):
        context.decode([Run(0, i, prefix[i : i + N_UBATCH])])
    if continue_with and scope == "generated":
        writer = Context(continue_with, length, n_outputs=len(text.target), n_threads=1, flash_attn=False)
        writer.set_state(context.state())
    writer.set_head_scales(0, mask)
    tokens = [text.prompt[-1], *text.target[:-1]]
    logits = writer.decode([Run(0, len(prefix), tokens, len(tokens))]).astype(np.float64)
    context.close()
    writer.close()
    return logits


def logprobs(logits: Array) -> Array:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def nll_of(logits: Array, target: Sequence[int]) -> float:
    return float(-logprobs(logits)[np.arange(len(target)), target].mean())


def effects_by_hand(full: Array, muted: Array, target: Sequence[int]) -> list[float]:
    """Return PCS, gain, variance and KL(softmax f ‖ softmax m), means over the target's tokens."""
    rows, p, delta = np.arange(len(target)), np.exp(logprobs(full)), full - muted
    mean = (p * delta).sum(axis=1)
    gain = delta[rows, target] - mean
    variance = (p * (delta - mean[:, None]) ** 2).sum(axis=1)
    kl = (p * (logprobs(full) - logprobs(muted))).sum(axis=1)
    return [
        nll_of(muted, target) - nll_of(full, target),
        float(gain.mean()),
        float(variance.mean()),
        float(kl.mean()),
    ]


def brute_force(model: Model, text: ScoredText, scope: str, scale: float = 0.0) -> Array:
    """Return PCS, gain, variance and KL of every head: [n_heads, 4]."""
    full = forward(model, text, [], scope)
    muted = [forward(model, text, [head], scope, scale=scale) for head in model.heads()]
    return np.array([effects_by_hand(full, m, text.target) for m in muted])


# another batch shape may take other kernels, which round another way: up to 2e-6 was seen, and a last digit of the
# float16 cache costs a hundred times that
ROUNDING = 2e-4


def assert_equals_brute_force(effects: Array, expected: Array) -> None:
    """effects: [n_heads, 3] of PCS, gain and variance; a variance is a square, and its error grows with it."""
    np.testing.assert_allclose(effects[:, :2], expected[:, :2], rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(effects[:, 2], expected[:, 2], rtol=1e-3, atol=ROUNDING)
    np.testing.assert_allclose(effects[:, 0] - effects[:, 1], expected[:, 3], rtol=0, atol=2 * ROUNDING)


def measure(
    model: Model, text: ScoredText, heads: Sequence[Head] | None = None, **options: Any
) -> tuple[Array, float, list[float]]:
    """Return the effects of heads (all), the NLL, and the null control of each batch."""
    heads = model.heads() if heads is None else heads
    length = len(text.prompt) + len(text.target)
    ablation = HeadAblation(model, length, len(text.target), n_threads=1, **options)
    try:
        nll, null = ablation.read(text)
        effects_of_batches, n = [], ablation.heads_at_a_time
        batches = [ablation.effects(heads[i : i + n]) for i in range(0, len(heads), n)]
        effects_of_batches = [effects for effects, _ in batches]
        return np.concatenate(effects_of_batches), nll, [null, *(null for _, null in batches)]
    finally:
        ablation.close()


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("scale", [0.0, 0.9])
@pytest.mark.parametrize("kind", ATTENTION)
def test_effects_equal_one_full_forward_for_each_head(
    kind: str, scale: float, scope: Scope, tiny_model: TinyModel, load: Callable[[Path], Model]
) -> None:
    model = load(tiny_model(kind))
    effects, nll, _ = measure(model, TEXT, scope=scope, scale=scale, parallel=7)
    expected = brute_force(model, TEXT, scope, scale)
    assert_equals_brute_force(effects, expected)
    assert nll == pytest.approx(nll_of(forward(model, TEXT, [], scope), TEXT.target), abs=ROUNDING)
    # they are about something: far above the rounding
    assert np.abs(effects).max(axis=0).min() > (100 if scale == 0 else 5) * ROUNDING


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(
    ("kind", "heads"),
    [
        ("llama", ((0, 5), (1, 0))),
        ("gemma3", ((0, 1), (2, 2))),
        ("gemma4", ((0, 1), (3, 3), (5, 2))),
        ("deci", ((1, 1), (4, 2))),
        ("lfm2", ((1, 0),)),
    ],
)
def test_effects_equal_those_of_models_whose_output_columns_are_zero(
    kind: str, heads: tuple[Head, ...], scope: Scope, tiny_model: TinyModel, load: Callable[[Path], Model]
) -> None:
    model = load(tiny_model(kind))
    measured, _, _ = measure(model, TEXT, heads, scope=scope)
    full = forward(model, TEXT, [], scope)
    for head, effects in zip(heads, measured, strict=True):
        without = load(tiny_model(kind, edit={head: 0.0}))
        # no scale is set here: the weights alone mute the head
        muted = forward(model, TEXT, [], scope, continue_with=without)
        assert_equals_brute_force(effects[None], np.array([effects_by_hand(full, muted, TEXT.target)]))


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_gamma_of_an_amplification_is_about_the_root_of_twice_the_kl(
    kind: str, tiny_model: TinyModel, load: Callable[[Path], Model]
) -> None:
    model = load(tiny_model(kind))
    effects, _, _ = measure(model, TEXT, scale=0.9)
    head = int(np.argmax(effects[:, VARIANCE]))
    alone = np.zeros((3, len(effects), 3))
    alone[:, head] = effects[head]
    weight = amplification(alone[..., GAIN], alone[..., VARIANCE], 0.9)[head]
    assert 0 < abs(weight) < LARGEST
    full = forward(model, TEXT, [], "generated")
    amplified = forward(model, TEXT, [model.heads()[head]], "generated", scale=1 + 0.05 * weight)
    *_, kl = effects_by_hand(full, amplified, TEXT.target)
    assert kl == pytest.approx(0.05**2 / 2, rel=0.05)


@pytest.mark.parametrize("scope", SCOPES)
def test_a_prompt_longer_than_a_batch_is_read_in_parts(
    scope: Scope, tiny_model: TinyModel, load: Callable[[Path], Model]
) -> None:
    model = load(tiny_model("qwen2"))
    text = ScoredText(PROMPT * 15, TEXT.target[:6])
    assert len(text.prompt) > N_UBATCH
    effects, _, _ = measure(model, text, scope=scope, parallel=7)
    assert_equals_brute_force(effects, brute_force(model, text, scope))


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(("n_prompt", "n_target"), [(1, 1), (1, 5), (2, 2), (40, 1), (33, 13)])
def test_texts_of_any_length_are_scored(
    n_prompt: int, n_target: int, scope: Scope, tiny_model: TinyModel, load: Callable[[Path], Model]
) -> None:
    model = load(tiny_model())
    text = ScoredText((PROMPT * 2)[:n_prompt], TEXT.target[:n_target])
    effects, _, nulls = measure(model, text, scope=scope)
    assert_equals_brute_force(effects, brute_force(model, text, scope))
    assert max(nulls) == 0.0


def test_the_longest_target_fills_a_batch(tiny_model: TinyModel, load: Callable[[Path], Model]) -> None:
    model = load(tiny_model("qwen2"))
    text = ScoredText(PROMPT, (TEXT.target * 6)[: N_UBATCH // KERNEL_ROWS])
    assert len(text.target) == 128
    effects, _, nulls = measure(model, text)
    assert_equals_brute_force(effects, brute_force(model, text, "generated"))
    assert max(nulls) == 0.0


def test_the_two_scopes_differ(tiny_model: TinyModel, load: Callable[[Path], Model]) -> None:
    model = load(tiny_model())
    (generated, one, _), (whole, other, _) = (measure(model, TEXT, scope=scope) for scope in SCOPES)
    assert np.abs(generated - whole).max() > 0.01
    assert one == pytest.approx(other, abs=ROUNDING)  # nothing is muted there


# --- batched = alone


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("kind", ATTENTION)
def test_effects_do_not_depend_on_how_many_heads_are_evaluated_at_a_time(
    kind: str, scope: Scope, tiny_model: TinyModel, load: Callable[[Path], Model]
) -> None:
    model = load(tiny_model(kind))
    expected, expected_nll, _ = measure(model, TEXT, scope=scope, parallel=1)
    for parallel in (3, 5, 8, 11, 15, 27):
        effects, nll, _ = measure(model, TEXT, scope=scope, parallel=parallel)
        assert np.array_equal(effects, expected), parallel
        assert nll == expected_nll


@pytest.mark.parametrize("kind", ["llama", "deci", "lfm2"])
def test_effects_do_not_depend_on_which_heads_are_evaluated_together(
    kind: str, tiny_model: TinyModel, load: Callable[[Path], Model]
) -> None:
    model = load(tiny_model(kind))
    heads, rng = model.heads(), np.random.default_rng(0)
    expected, _, _ = measure(model, TEXT, parallel=3)
    ablation = HeadAblation(model, 80, 40, parallel=4, n_threads=1)
    ablation.read(TEXT)
    for i in rng.permutation(len(heads)):  # alone, and each layer after a higher or a lower one
        assert np.array_equal(ablation.effects([heads[i]])[0][0], expected[i])
    for _ in range(5):
        some = rng.permutation(len(heads))[: ablation.heads_at_a_time]
        assert np.array_equal(ablation.effects([heads[i] for i in some])[0], expected[some])
    ablation.close()


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("kind", ["gemma3", "lfm2"])
def test_texts_one_after_the_other_are_scored_as_if_each_were_alone(
    kind: str, scope: Scope, tiny_model: TinyModel, load: Callable[[Path], Model]
) -> None:
    model = load(tiny_model(kind))
    other_target = ScoredText(PROMPT, list(b"Right then!"))  # the prompt is not read again
    other_prompt = ScoredText(PROMPT[:20], TEXT.target)
    heads = model.heads()[-8:]  # lfm2: the layer with attention, and the last one
    alone = {id(text): measure(model, text, heads, scope=scope, parallel=7) for text in (TEXT, other_target)}
    alone[id(other_prompt)] = measure(model, other_prompt, heads, scope=scope, parallel=7)
    ablation = HeadAblation(model, 80, 40, scope=scope, parallel=7, n_threads=1)
    for text in (TEXT, other_target, other_prompt, TEXT, other_prompt, other_target, other_target, TEXT):
        effects, nll, _ = alone[id(text)]
        assert ablation.read(text) == (nll, 0.0)
        together = np.concatenate([ablation.effects(heads[:7])[0], ablation.effects(heads[7:])[0]])
        assert np.array_equal(together, effects)
    ablation.close()


# --- null control


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("kind", ATTENTION)
def test_the_null_control_is_exactly_zero_in_every_slot(
    kind: str, scope: Scope, tiny_model: TinyModel, load: Callable[[Path], Model]
) -> None:
    model = load(tiny_model(kind))
    for n_target in (1, 5, 7, 13):
        text = ScoredText(PROMPT, TEXT.target[:n_target])
        ones, _, nulls = measure(model, text, scope=scope, scale=1.0)
        assert not ones.any()
        assert max(nulls) == 0.0
        # slots beside muted heads: the multiplication is in their graph
        ablation = HeadAblation(model, 80, 40, scope=scope, parallel=7, n_threads=1)
        ablation.read(text)
        for n in (1, 2, 6):
            effects, null = ablation.effects(model.heads()[-n:])
            assert len(effects) == n
            assert null == 0.0
        ablation.close()


# --- quantized weights

QUANTIZED = ("Q4_0", "Q4_1", "Q4_K", "Q5_0", "Q6_K", "Q8_0", "F16")


@pytest.mark.parametrize("n_target", [1, 5, 7, 13])
@pytest.mark.parametrize("quantized", QUANTIZED)
@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_quantized_weights_give_the_same_bits_however_many_heads_at_a_time(
    kind: str, quantized: str, n_target: int, tiny_model: TinyModel, load: Callable[[Path], Model]
) -> None:
    model = load(tiny_model(kind, wide=True, quantized=quantized))
    text = ScoredText(PROMPT, TEXT.target[:n_target])
    # ggml multiplies K-quants by another kernel from 8 rows on, and 4 sequences of one token are less
    expected, expected_nll, nulls = measure(model, text, parallel=3 if n_target > 1 else 7)
    for parallel in (11, 27):
        effects, nll, null = measure(model, text, parallel=parallel)
        assert np.array_equal(effects, expected), parallel
        assert nll == expected_nll
        nulls += null
    assert max(nulls) == 0.0
    assert np.abs(expected[:, :2]).max(axis=0).min() > 100 * ROUNDING
    ones, _, nulls = measure(model, text, parallel=27, scale=1.0)
    assert not ones.any()
    assert max(nulls) == 0.0
    assert measure(model, text, parallel=3)[2] == [0.0] * 9


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("quantized", QUANTIZED)
def test_quantized_weights_are_scored_as_one_full_forward_for_each_head(
    quantized: str, scope: Scope, tiny_model: TinyModel, load: Callable[[Path], Model]
) -> None:
    model = load(tiny_model(wide=True, quantized=quantized))
    text, heads = ScoredText(PROMPT, TEXT.target[:7]), model.heads()[::5]
    effects, _, _ = measure(model, text, heads, scope=scope)
    full = forward(model, text, [], scope)
    expected = [effects_by_hand(full, forward(model, text, [h], scope), text.target) for h in heads]
    # activations are rounded to 8 bits before each product, and a difference of the last float32 digit may tip one
    np.testing.assert_allclose(effects, np.array(expected)[:, :3], rtol=0.02, atol=0.02)


# --- how many at a time


def test_what_a_sequence_takes_is_its_cache_its_logits_and_its_layers_outputs(
    tiny_model: TinyModel, load: Callable[[Path], Model]
) -> None:
    model = load(tiny_model())  # 3 layers of 96 numbers, 2 key/value heads of 16 in each, 274 tokens
    assert model.kv_bytes == 384  # 3 · 2 · (16 + 16) numbers of 2 bytes
    assert sequence_bytes(model, 100, 10) == 384 * 256 + 4 * 10 * 2 * 274  # KV cells come in steps of 256
    assert sequence_bytes(model, 257, 10) == 384 * 512 + 4 * 10 * 2 * 274


def test_sequences_come_in_fours_fill_a_batch_and_fit_into_half_of_the_free_memory(
    tiny_model: TinyModel, load: Callable[[Path], Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(tiny_model())
    monkeypatch.setattr(memory, "available", lambda: 1 << 40)
    assert parallel_sequences(model, 300, 1) == MAX_PARALLEL == 32
    assert parallel_sequences(model, 300, 25) == 20  # 512 tokens are a batch
    assert parallel_sequences(model, 300, 32) == 16
    assert parallel_sequences(model, 300, 128) == 4
    assert [parallel_sequences(model, 300, 25, wanted) for wanted in (1, 3, 4, 7, 8, 99)] == [4, 4, 8, 8, 12, 20]
    kept, each = 3 * 4 * 4 * 25 * 3 * 96, sequence_bytes(model, 300, 25)
    for n, expected in ((3, 4), (4, 4), (7, 4), (8, 8), (13, 12), (0, 4)):
        monkeypatch.setattr(memory, "available", lambda n=n: 2 * (kept + (n + 1) * each))
        assert parallel_sequences(model, 300, 25) == expected


def test_a_context_that_cannot_be_had_is_tried_with_fewer_sequences(
    tiny_model: TinyModel, load: Callable[[Path], Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tried = load(tiny_model()), list[int]()

    def fork(*arguments: Any) -> ForkedSequences:
        n = arguments[3]
        tried.append(n)
        if n > most:
            raise NativeError("no memory")
        return ForkedSequences(*arguments)

    monkeypatch.setattr("dps_local.scoring.head_ablation.ForkedSequences", fork)
    most = 8
    effects, _, _ = measure(model, TEXT, parallel=19)
    assert tried == [20, 8]
    tried.clear()
    most = 2
    with pytest.raises(NativeError, match="no memory"):
        measure(model, TEXT, parallel=19)
    assert tried == [20, 8, 4]
    monkeypatch.undo()
    assert np.array_equal(effects, measure(model, TEXT)[0])


# --- devices, and memory that runs out


class Device:
    """Stands for a device that computes equal tokens of other tiles differently, and has room for so many tokens."""

    def __init__(self, model: Model, monkeypatch: pytest.MonkeyPatch, tile: int = N_UBATCH, room: int = N_UBATCH):
        self.batches: list[int] = []  # sequences that were compared with all layers, nothing scaled
        compare = Context.compare

        def compared(context: Context, runs: Sequence[Run], targets: Sequence[int]) -> NDArray[np.float32]:
            if len(runs) * len(targets) > room:
                raise NativeError("no room")
            found = compare(context, runs, targets)
            at = np.arange(len(runs) * len(targets)) // tile
            found[..., 0] *= 1 + 1e-4 * at.reshape(found.shape[:2])
            self.batches.append(len(runs))
            return found

        monkeypatch.setattr(Context, "compare", compared)
        monkeypatch.setattr(model, "offloads", True)


SHORT = ScoredText(PROMPT, TEXT.target[:6])


def test_a_device_takes_the_largest_batch_in_which_doing_nothing_changes_nothing(
    tiny_model: TinyModel, load: Callable[[Path], Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(tiny_model())
    expected = brute_force(model, TEXT, "generated")
    device = Device(model, monkeypatch, tile=128)
    ablation = HeadAblation(model, 80, len(TEXT.target), parallel=19, n_threads=1)
    assert ablation.read(TEXT)[1] == 0
    assert len(TEXT.target) * 10 > 128 > len(TEXT.target) * 5
    assert ablation.heads_at_a_time == 4
    # the largest batch shows whether memory has room for it; then each size in two calls, and the one that is taken
    assert device.batches == [20, 4, 20, 2, 10, 1, 5, 1]
    heads = model.heads()
    found = np.concatenate([ablation.effects(heads[i : i + 4])[0] for i in range(0, len(heads), 4)])
    assert_equals_brute_force(found, expected)
    assert ablation.read(SHORT)[1] == 0
    assert ablation.heads_at_a_time == 19  # its batch is one tile
    device.batches.clear()
    assert ablation.read(TEXT)[1] == 0
    assert device.batches == [1]  # no size is tried twice
    assert ablation.heads_at_a_time == 4
    ablation.close()


def test_a_device_that_is_never_exact_takes_the_largest_batch_and_says_so(
    tiny_model: TinyModel, load: Callable[[Path], Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(tiny_model())
    device = Device(model, monkeypatch, tile=8)
    for text in (TEXT, TEXT):
        _, _, nulls = measure(model, text, parallel=19)
        assert nulls[0] > 1e-5
        assert len(nulls) == 2  # 18 heads in one batch
    assert {20, 10, 5, 2} <= set(device.batches)


def test_the_cpu_tries_one_batch(
    tiny_model: TinyModel, load: Callable[[Path], Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(tiny_model())
    device = Device(model, monkeypatch, tile=128)
    monkeypatch.setattr(model, "offloads", False)
    ablation = HeadAblation(model, 80, len(TEXT.target), parallel=19, n_threads=1)
    assert ablation.read(TEXT)[1] > 1e-5
    assert ablation.read(SHORT)[1] == 0
    assert device.batches == [20, 4, 4]
    assert ablation.heads_at_a_time == 19
    ablation.close()


@pytest.mark.parametrize(("offloads", "tried"), [(False, [20, 8, 4]), (True, [20, 10, 5])])
def test_a_batch_that_finds_no_memory_is_tried_with_fewer_sequences_before_anything_is_evaluated(
    offloads: bool,
    tried: list[int],
    tiny_model: TinyModel,
    load: Callable[[Path], Model],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, made = load(tiny_model()), list[int]()

    def fork(*arguments: Any) -> ForkedSequences:
        made.append(arguments[3])
        return ForkedSequences(*arguments)

    monkeypatch.setattr("dps_local.scoring.head_ablation.ForkedSequences", fork)
    Device(model, monkeypatch, room=22 * 6)
    monkeypatch.setattr(model, "offloads", offloads)
    ablation = HeadAblation(model, 80, len(TEXT.target), parallel=19, n_threads=1)
    ablation.read(SHORT)  # the room that a longer text needs is asked for with the first one
    assert made == tried
    assert ablation.read(TEXT)[1] == 0
    assert ablation.heads_at_a_time == tried[-1] - 1
    ablation.close()


def test_where_the_smallest_batch_does_not_fit_it_is_said_at_once(
    tiny_model: TinyModel, load: Callable[[Path], Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(tiny_model())
    Device(model, monkeypatch, room=0)
    with pytest.raises(NativeError, match="no room"):
        measure(model, TEXT)


def test_sequences_fit_into_the_memory_of_the_host_and_of_a_gpu(
    tiny_model: TinyModel, load: Callable[[Path], Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(tiny_model())
    monkeypatch.setattr(memory, "available", lambda: 1 << 40)
    monkeypatch.setattr(model.native, "free_memory", {1: 0, 2: 0, 3: 1 << 40}.__getitem__)
    assert parallel_sequences(model, 300, 25) == 20
    monkeypatch.setattr(model, "_devices", [1, 2])
    assert parallel_sequences(model, 300, 25) == 4
    monkeypatch.setattr(model, "_devices", [1, 3])
    assert parallel_sequences(model, 300, 25) == 20
    monkeypatch.setattr(memory, "available", lambda: 0)
    assert parallel_sequences(model, 300, 25) == 4


LIMITED = """
import re, resource, sys
from dps_local.cli.remedies import explained
from dps_local.engine.model import Model
from dps_local.errors import NativeError
from dps_local.scoring.forked_sequences import ScoredText
from dps_local.scoring.head_ablation import HeadAblation

model = Model(sys.argv[1])
ablation = HeadAblation(model, 275, 25, parallel=19, n_threads=1)
size = int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (size + int(sys.argv[2]) * 2**20,) * 2)
text = ScoredText(list(range(1000, 1250)), list(range(2000, 2025)))
try:
    print(ablation.read(text)[1], ablation.heads_at_a_time, ablation.effects(model.heads()[:3])[0].shape)
except NativeError as exc:
    print(explained(exc))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS, and /proc")
def test_memory_that_really_runs_out_makes_batches_smaller(real_model: Callable[[str], Path]) -> None:
    """The batch that compares 20 sequences of a vocabulary of 262,144 wants 1 GB more than a context reserves."""
    path = real_model("gemma3-270m")
    command = [sys.executable, "-P", "-c", LIMITED, str(path)]
    for room, said in ((100, r"0\.0 7 \(3, 3\)"), (-500, r"no memory to compute .*: close other programs.*")):
        done = subprocess.run([*command, str(room)], capture_output=True, text=True, timeout=600, check=False)
        assert re.fullmatch(said, done.stdout.strip()), done.stdout + done.stderr
