"""The slopes of head scales: derivatives of a text's log-likelihood, against differences of the same model's losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.polynomial import Polynomial
from numpy.typing import NDArray
from tiny import TinyModel

from dps_local.engine.context import Context, Run
from dps_local.engine.model import Head, Model
from dps_local.errors import NativeError

Grid = NDArray[np.floating]  # [n_layer, n_head_max]

PROMPT = list(b"The letter that you wrote to the editor on Sunday, word for word.")  # a byte's token is its number
ANSWER = list(b"Dear all, thanks for it")
OTHER = list(b"No reply")
F32 = 0  # enum ggml_type

Open = Callable[..., Context]


@pytest.fixture
def open_context(tiny_model: TinyModel) -> Iterator[Open]:
    """`open_context(kind, …)`: a context for slopes, on one thread, with a KV cache in F32 that has read PROMPT."""
    opened: list[Context] = []
    models: list[Model] = []

    def open_(kind: str = "llama", *, n_seq: int = 1, slopes: bool = True, **options: object) -> Context:
        models.append(Model(tiny_model(kind, **options), repack=False))  # type: ignore[arg-type]
        attention = {"slopes": True} if slopes else {"flash_attn": False}
        context = Context(models[-1], 256, n_seq=n_seq, n_outputs=64, n_threads=1, type_k=F32, type_v=F32, **attention)
        opened.append(context)
        context.decode([Run(0, 0, PROMPT[:-1])])
        return context

    yield open_
    for context in opened:
        context.close()
    for model in models:
        model.close()


def run_of(answer: Sequence[int] = ANSWER, seq: int = 0) -> Run:
    """Return the last token of the prompt and the answer: what has an output for each of the answer's tokens."""
    return Run(seq, len(PROMPT) - 1, [PROMPT[-1], *answer[:-1]], len(answer))


def slopes(context: Context, answer: Sequence[int] = ANSWER, seq: int = 0) -> Grid:
    assert context.truncate(seq, len(PROMPT) - 1)
    values: Grid = context.slopes([run_of(answer, seq)], answer)[1][0]
    return values


def log_likelihood(context: Context, head: Head, scale: float) -> float:
    """Return the answer's log-likelihood with a scaled head, from the forward pass of the same graph."""
    assert context.truncate(0, len(PROMPT) - 1)
    with context.head_scales({0: scaled(context.model, head, scale)}):
        p, _ = context.slopes([run_of()], ANSWER)
    return float(np.log(p.astype(np.float64)).sum())


def scaled(model: Model, head: Head, scale: float) -> NDArray[np.float32]:
    scales = np.ones((model.n_layer, model.n_head_max), np.float32)
    scales[head] = scale
    return scales


def central_difference(value: Callable[[float], float], step: float = 0.02) -> float:
    """Return the derivative at scale 1, from four values: the error falls with the fourth power of the step."""
    near, far = (value(1 + k * step) - value(1 - k * step) for k in (1, 2))
    return (8 * near - far) / (12 * step)


def fitted_slope(context: Context, head: Head) -> float:
    """Return the derivative at scale 1 of a polynomial through many losses, which noise moves less."""
    steps = 0.3 * np.cos(np.pi * (np.arange(160) + 0.5) / 160)
    losses = [log_likelihood(context, head, 1 + step) for step in steps]
    return float(Polynomial.fit(steps, losses, 9).deriv()(0.0))


@pytest.mark.parametrize("kind", ["llama", "qwen2", "deci"])
def test_slopes_equal_central_differences_of_the_same_graph(open_context: Open, kind: str) -> None:
    context = open_context(kind)
    exact = slopes(context).copy()
    expected = np.zeros_like(exact)
    for head in context.model.heads():
        expected[head] = central_difference(partial(log_likelihood, context, head))
    assert np.abs(exact).max() > 1  # nats per unit of scale: not lost in rounding
    assert np.abs(exact - expected).max() < 1e-3 * np.abs(expected).max()


def test_slopes_equal_the_losses_of_a_model_whose_activation_is_a_table(open_context: Open) -> None:
    """ggml takes GELU from a table of half precision: its steps are noise in small differences, and bend them a little.

    Built without that table (GGML_GELU_FP16), gemma3 passes the test above as the others do.
    """
    context = open_context("gemma3")
    exact = slopes(context).copy()
    expected = np.zeros_like(exact)
    for head in context.model.heads():
        expected[head] = fitted_slope(context, head)
    assert np.abs(exact - expected).max() < 5e-3 * np.abs(expected).max()


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma3", "deci"])
def test_the_gain_of_a_head_that_is_almost_untouched_is_its_slope(open_context: Open, kind: str) -> None:
    """By the comparison of two sequences that scoring by ablation uses, after a prompt that another kernel has read."""
    exact = slopes(open_context(kind))
    context = open_context(kind, slopes=False, n_seq=2)
    context.copy(0, 1)

    def gain(scale: float) -> float:
        for seq in (0, 1):
            assert context.truncate(seq, len(PROMPT) - 1)
        with context.head_scales({1: scaled(context.model, head, scale)}):
            compared = context.compare([run_of(), run_of(seq=1)], ANSWER)
        difference, mean = compared[1, :, 1], compared[1, :, 2]  # m[y] - f[y], and the mean of m - f under f
        return float((difference - mean).sum())

    for head in context.model.heads()[::3]:
        assert central_difference(gain, 0.05) == pytest.approx(exact[head], abs=0.02 * float(np.abs(exact).max()))


def test_the_slope_of_a_dead_head_is_0(open_context: Open) -> None:
    exact = slopes(open_context("llama", edit={(1, 2): 0.0}))
    assert exact[1, 2] == 0
    assert (exact[1, [0, 1, 3, 4, 5]] != 0).all()


def test_layers_with_fewer_heads_have_no_slopes_beyond_them(open_context: Open) -> None:
    context = open_context("deci")
    exact = slopes(context)
    for layer, n_head in enumerate(context.model.n_heads):
        assert (exact[layer, n_head:] == 0).all()


def test_probabilities_are_those_of_an_ordinary_call(open_context: Open) -> None:
    p, _ = open_context("llama").slopes([run_of()], ANSWER)
    logits = open_context("llama", slopes=False).decode([run_of()]).astype(np.float64)
    expected = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    assert np.log(p) == pytest.approx(np.log(expected[np.arange(len(ANSWER)), ANSWER]), abs=0.02)


def test_sequences_of_one_batch_have_the_slopes_that_they_have_alone(open_context: Open) -> None:
    context = open_context("llama", n_seq=2)
    alone = slopes(context).copy(), slopes(context, OTHER).copy()
    assert context.truncate(0, len(PROMPT) - 1)
    context.copy(0, 1)
    p, together = context.slopes([run_of(), run_of(OTHER, seq=1)], [*ANSWER, *OTHER])
    assert len(p) == len(ANSWER) + len(OTHER)
    for exact, expected in zip(together, alone, strict=True):
        assert exact == pytest.approx(expected, abs=1e-4 * float(np.abs(expected).max()))


def test_slopes_are_repeatable_bit_for_bit(open_context: Open) -> None:
    context = open_context("gemma3")
    assert np.array_equal(slopes(context), slopes(context))


def test_quantized_weights_have_the_slopes_of_their_values(open_context: Open) -> None:
    """The products of both models round otherwise: activations are quantised, too."""
    quantized = slopes(open_context("llama", wide=True, quantized="Q8_0"))
    exact = slopes(open_context("llama", wide=True))
    assert np.corrcoef(quantized.ravel(), exact.ravel())[0, 1] > 0.99


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("gemma4", "a layer uses the keys and values of another one"),
        ("deepseek2", "the backward pass of CONCAT is not implemented"),
        ("lfm2", "the backward pass of SSM_CONV is not implemented"),
        ("mamba", "the model has no attention heads to scale"),
    ],
)
def test_an_architecture_without_a_backward_pass_is_an_error_that_says_why(
    open_context: Open, kind: str, why: str
) -> None:
    with pytest.raises(NativeError, match=why):
        open_context(kind).slopes([run_of()], ANSWER)


def test_repacked_weights_are_an_error_that_says_what_to_do(tiny_model: TinyModel) -> None:
    path: Path = tiny_model("llama", wide=True, quantized="Q4_0")
    with Model(path) as model:
        context, message = Context(model, 128, n_outputs=64, n_threads=1, slopes=True), None
        try:
            context.slopes([run_of()], ANSWER)
        except NativeError as exc:
            message = str(exc)
        context.close()
    if message is None:
        pytest.skip("llama.cpp repacks no weights for this processor")
    assert message.endswith("load the model with use_extra_bufts = false")
