"""What `Context` asks llama.cpp for: batch-invariant calls, logits of some rows, kept layers, calls from a layer on."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny import KINDS, TinyModel

from dps_local.engine.context import Context, Run
from dps_local.engine.model import Model, head_mask
from dps_local.engine.stream import Stream
from dps_local.errors import NativeError, Remedy

MLA = "deepseek2"  # multiplies by the weights of its attention otherwise: equal to rounding only
PROMPT = list(b"The letter that you wrote to the editor on Sunday, word for word.")  # a byte's token is its number

Load = Callable[[Path], Model]


def one_by_one(context: Context, tokens: list[int], start: int) -> NDArray[np.float32]:
    return np.array([context.decode([Run(0, start + i, [t], 1)])[0].copy() for i, t in enumerate(tokens)])


def test_a_batch_invariant_call_with_latent_attention_is_exact_to_rounding(tiny_model: TinyModel, load: Load) -> None:
    model = load(tiny_model(MLA))
    contexts = [Context(model, 256, n_outputs=8, n_threads=1, batch_invariant=invariant) for invariant in (False, True)]
    expected = one_by_one(contexts[0], PROMPT[:8], 0)
    np.testing.assert_allclose(contexts[1].decode([Run(0, 0, PROMPT[:8], 8)]), expected, rtol=0, atol=0.01)
    for context in contexts:
        context.close()


@pytest.mark.parametrize("flash_attn", [True, False])
@pytest.mark.parametrize("quantized", [None, "Q8_0", "Q4_0", "Q5_0", "F16"])
@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_a_batch_invariant_call_has_the_bits_of_one_after_the_other(
    tiny_model: TinyModel, load: Load, n: int, quantized: str | None, flash_attn: bool
) -> None:
    model = load(tiny_model("llama", wide=True, quantized=quantized) if quantized else tiny_model("llama"))
    context = Context(model, 1024, n_outputs=8, n_threads=2, flash_attn=flash_attn, batch_invariant=True)
    tokens = [i % 250 for i in range(600 + n)]
    context.decode([Run(0, 0, tokens[:512])])
    context.decode([Run(0, 512, tokens[512:600])])
    expected = one_by_one(context, tokens[600:], 600)
    context.truncate(0, 600)
    context.set_head_scales(0, None)
    assert np.array_equal(context.decode([Run(0, 600, tokens[600:], n)]), expected)
    context.close()


@pytest.mark.parametrize("batch_invariant", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_some_rows_are_those_of_all_logits(tiny_model: TinyModel, load: Load, kind: str, batch_invariant: bool) -> None:
    model = load(tiny_model(kind))
    context = Context(model, 256, n_outputs=8, n_threads=1, batch_invariant=batch_invariant)
    rows = np.array([3, 77, 78, 200, model.n_vocab - 1])
    for n in (1, 4):
        expected = context.decode([Run(0, 0, PROMPT[:n], n)])[:, rows].copy()
        context.truncate(0, 0)
        logits = context.decode_rows([Run(0, 0, PROMPT[:n], n)], rows)
        # batch-invariant, a row is computed as ever; else the product of fewer rows may be another kernel's
        np.testing.assert_allclose(
            logits, expected, rtol=0, atol=0 if (batch_invariant and kind != MLA) or n == 1 else 1e-5
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


@pytest.mark.parametrize(
    ("kind", "layer", "head"), [("llama", 2, 2), ("qwen2", 1, 3), ("gemma3", 2, 3), ("lfm2", 1, 2)]
)
@pytest.mark.parametrize("n", [1, 3])
def test_a_context_goes_on_from_another_ones_layer(
    tiny_model: TinyModel, load: Load, kind: str, layer: int, head: int, n: int
) -> None:
    model = load(tiny_model(kind))
    # the first one as a chat makes it: its graphs are those of plain decoding, but for what is kept
    contexts = [
        Context(model, 256, n_outputs=4, n_threads=1, batch_invariant=invariant) for invariant in (False, True, True)
    ]
    for context in contexts:
        context.decode([Run(0, 0, PROMPT)])
    full, whole, part = contexts
    for context in (whole, part):
        context.set_head_scales(0, head_mask(model, [(layer, head)]))
    tokens = list(b"Dear all")
    keep = contextlib.ExitStack()
    keep.enter_context(full.keep_layers(range(layer - 1, layer)))
    for i in range(0, 6, n):
        below = []
        for j in range(i, i + n):
            full.decode([Run(0, len(PROMPT) + j, [tokens[j]], 1)])
            output = full.layer_output(layer - 1, 1)
            assert output is not None
            below.append(output)
        run = Run(0, len(PROMPT) + i, tokens[i : i + n], n)
        expected = whole.decode([run]).copy()
        with part.start_at(layer, np.concatenate(below)):
            assert np.array_equal(part.decode([run]), expected)
    assert full.layer_output(layer - 1, 2) is None
    keep.close()
    for context in contexts:
        context.close()


@pytest.mark.parametrize("kind", ["llama", "gemma3", "lfm2"])
def test_other_layers_may_be_kept_from_one_call_to_the_next(tiny_model: TinyModel, load: Load, kind: str) -> None:
    model = load(tiny_model(kind))
    context = Context(model, 256, n_threads=1)
    run = Run(0, 0, PROMPT[:1], 1)

    keep = contextlib.ExitStack()

    def kept(layers: range) -> list[NDArray[np.float32] | None]:
        keep.enter_context(context.keep_layers(layers))  # still within the earlier blocks
        context.decode([run])
        context.truncate(0, 0)
        return [context.layer_output(layer, 1) for layer in range(model.n_layer)]

    every = kept(range(model.n_layer))
    for layers in (range(1), range(1, 2), range(0), range(1, 2), range(1), range(2)):
        for layer, output in enumerate(kept(layers)):
            assert (output is None) == (layer not in layers)
            assert output is None or np.array_equal(output, every[layer])  # type: ignore[arg-type]
    keep.close()
    context.close()


def test_a_copy_of_a_sliding_window_goes_on_bit_for_bit(tiny_model: TinyModel, load: Load) -> None:
    model = load(tiny_model("gemma3"))  # its window is 8 tokens
    full, muted = (Stream(Context(model, 1024, n_threads=2)) for _ in range(2))
    tokens = [i % 250 for i in range(700)]
    full.replay([tokens[:512], tokens[512:600]])
    muted.copy_from(full)
    for token in tokens[600:]:
        assert np.array_equal(full.decode([token], 1), muted.decode([token], 1))
    for stream in (full, muted):
        stream.context.close()


def test_a_control_vector_is_added_to_a_layer_and_can_be_changed_and_taken_away(
    tiny_model: TinyModel, load: Load
) -> None:
    model = load(tiny_model("llama"))
    context = Context(model, 256, n_outputs=4, n_threads=1)
    vectors = np.zeros((model.n_layer - 1, model.n_embd), np.float32)
    vectors[0] = np.linspace(-1, 1, model.n_embd)  # of layer 1

    def read(scale: float | None) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        context.truncate(0, 0)
        with context.keep_layers(range(2)), context.control_vector(None if scale is None else scale * vectors):
            logits = context.decode([Run(0, 0, PROMPT[:4], 4)]).copy()
        first, second = (context.layer_output(layer, 4) for layer in range(2))
        assert first is not None
        assert second is not None
        return first, second, logits

    first, second, logits = read(None)
    for scale in (1.0, -2.0):
        moved = read(scale)
        np.testing.assert_array_equal(moved[0], first)
        np.testing.assert_allclose(moved[1], second + scale * vectors[0], atol=1e-5)
        assert np.abs(moved[2] - logits).max() > 0.01
    np.testing.assert_array_equal(read(None)[2], logits)
    with pytest.raises(NativeError, match="llama_set_adapter_cvec"), context.control_vector(vectors[:, 1:]):
        pass
    context.close()


class SetLater(threading.Event):
    """An event that is found set when it is asked for the n-th time."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.left = n

    def is_set(self) -> bool:
        self.left -= 1
        return self.left <= 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_ends_in_its_middle_and_is_made_again(tiny_model: TinyModel, load: Load, kind: str) -> None:
    model = load(tiny_model(kind))
    streams = [Stream(Context(model, 256, n_threads=1)) for _ in range(2)]
    for stream in streams:
        stream.decode(PROMPT[:20])
    asked = SetLater(10)
    assert streams[0].replay([PROMPT[20:-1]], asked) != model.rewinds
    assert asked.left == (0 if model.rewinds else 9)  # it was not computed to its end
    assert streams[0].n == (20 if model.rewinds else len(PROMPT) - 1)
    for stream in streams:
        assert stream.n > 20 or stream.replay([PROMPT[20:-1]], threading.Event())
    first, second = (stream.decode(PROMPT[-1:], 1)[0].copy() for stream in streams)
    assert np.array_equal(first, second)
    for stream in streams:
        stream.context.close()


@pytest.mark.parametrize(
    ("offloads", "remedy"), [(False, Remedy.LESS_MEMORY), (True, Remedy.LESS_GPU_MEMORY)], ids=["cpu", "gpu"]
)
def test_memory_that_runs_out_in_a_call_is_one_line_again_and_again(
    tiny_model: TinyModel, load: Load, monkeypatch: pytest.MonkeyPatch, offloads: bool, remedy: Remedy
) -> None:
    model = load(tiny_model())
    monkeypatch.setattr(model, "offloads", offloads)
    context = Context(model, 256, n_threads=1)
    with monkeypatch.context() as patch:
        patch.setattr(model.llama, "llama_decode", lambda *_: -2)
        with pytest.raises(NativeError, match=r"^no memory to compute 3 tokens \(") as first:
            context.decode([Run(0, 0, PROMPT[:3], 1)])
    assert first.value.remedy is remedy
    with pytest.raises(NativeError, match=r"^no memory to compute 3 tokens"):  # llama.cpp would crash
        context.decode([Run(0, 0, PROMPT[:3], 1)])
    context.close()


def test_a_context_that_no_memory_holds_is_one_line(
    tiny_model: TinyModel, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(tiny_model())
    monkeypatch.setattr(model.llama, "llama_init_from_model", lambda *_: None)
    with pytest.raises(NativeError, match=r"^llama.cpp cannot make a context of 256 tokens \(.*\)$") as error:
        Context(model, 256, n_threads=1)
    assert error.value.remedy in (Remedy.LESS_MEMORY, Remedy.LESS_GPU_MEMORY)
