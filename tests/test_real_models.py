"""The patch on real models, and against stock llama.cpp, which computes in a process of its own (tests/stock.py)."""

from __future__ import annotations

import itertools
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import gguf
import numpy as np
import pytest
from maps import hand_made_map
from numpy.typing import NDArray
from tiny import KINDS, TinyModel

from dps_local.engine.context import N_UBATCH, Context, Run
from dps_local.engine.gguf_file import GGUFFile
from dps_local.engine.model import Head, Model, head_mask
from dps_local.engine.sampler import Sampler, Sampling
from dps_local.engine.stream import Stream
from dps_local.maps.baking import bake
from dps_local.maps.head_map import HeadMap
from dps_local.scoring.forked_sequences import ScoredText
from dps_local.scoring.head_ablation import HeadAblation
from dps_local.scoring.head_effects import PCS
from dps_local.steering.contrast import Contrast
from dps_local.steering.mixing import Gamma
from dps_local.steering.speculative import SpeculativeDecoder
from dps_local.steering.steering import Steering

if TYPE_CHECKING:
    from conftest import RealModel, StockLogits

pytestmark = pytest.mark.slow

Logits = NDArray[np.float32]

REAL = ("smollm2-135m", "gemma3-270m")
N_CTX, N_THREADS, N_STEPS = 256, 2, 8
TEXT = (
    "The letter said that the ladder was blue, that the shed had to be painted before the rain came, and that nobody "
    "was to touch the bees. She had written it on Sunday, in the kitchen, with the radio on and the cat on the chair. "
)
# layers at both ends and in between, of the sliding and the full kind in Gemma 3 (every sixth is full)
HEADS: dict[str, tuple[Head, ...]] = {
    "smollm2-135m": ((0, 0), (13, 4), (29, 8)),
    "gemma3-270m": ((0, 1), (5, 0), (11, 3), (17, 2)),
}


def prompt_of(model: Model, n: int = 100) -> list[int]:
    return model.prompt_tokens(TEXT * (1 + n // 30))[:n]


def greedy(context: Context, prompt: Sequence[int], n_steps: int) -> tuple[list[Run], Logits]:
    """Return the runs of a prompt and its most likely answer, and the logits of all their tokens."""
    runs = [Run(0, 0, prompt, len(prompt))]
    logits = [context.decode(runs).copy()]
    for i in range(n_steps):
        runs.append(Run(0, len(prompt) + i, [int(logits[-1][-1].argmax())], 1))
        logits.append(context.decode(runs[-1:]).copy())
    return runs, np.concatenate(logits)


def feed(context: Context, runs: Sequence[Run]) -> Logits:
    """Return the logits that `runs` ask for, from an empty context on."""
    assert context.truncate(0, 0)
    return np.concatenate([context.decode([run]).copy() for run in runs])


def new_context(
    model: Model, n_ctx: int = N_CTX, n_outputs: int = 128, n_threads: int = N_THREADS, batch_invariant: bool = False
) -> Context:
    return Context(model, n_ctx, n_outputs=n_outputs, n_threads=n_threads, batch_invariant=batch_invariant)


@pytest.fixture(params=REAL)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(name: str, real_model: RealModel) -> Iterator[Model]:
    loaded = Model(real_model(name))
    yield loaded
    loaded.close()


# --- stock llama.cpp


def test_with_nothing_set_every_logit_is_that_of_stock_llama_cpp(model: Model, stock_logits: StockLogits) -> None:
    context = new_context(model)
    runs, logits = greedy(context, prompt_of(model), N_STEPS)
    context.close()
    assert len(logits) == 100 + N_STEPS
    assert np.array_equal(logits, stock_logits(model.path, runs, n_ctx=N_CTX, n_threads=N_THREADS))


def test_after_scales_were_set_and_cleared_every_logit_is_that_of_stock_llama_cpp(
    name: str, model: Model, stock_logits: StockLogits
) -> None:
    context = new_context(model)
    context.set_head_scales(0, head_mask(model, HEADS[name], 0.0))
    runs, muted = greedy(context, prompt_of(model), N_STEPS)
    context.set_head_scales(0, None)
    logits = feed(context, runs)
    context.close()
    assert not np.array_equal(logits, muted)
    assert np.array_equal(logits, stock_logits(model.path, runs, n_ctx=N_CTX, n_threads=N_THREADS))


@pytest.mark.parametrize("kind", KINDS)
def test_with_nothing_set_every_kind_of_attention_is_that_of_stock_llama_cpp(
    kind: str, tiny_model: TinyModel, stock_logits: StockLogits
) -> None:
    model = Model(tiny_model(kind))
    context = new_context(model, n_threads=1)
    runs, logits = greedy(context, list(TEXT.encode()[:100]), N_STEPS)
    if model.heads():
        context.set_head_scales(0, np.zeros((model.n_layer, model.n_head_max), np.float32))
        assert not np.array_equal(feed(context, runs), logits)
        context.set_head_scales(0, None)
        assert np.array_equal(feed(context, runs), logits)
    context.close()
    model.close()
    assert np.array_equal(logits, stock_logits(model.path, runs, n_ctx=N_CTX, n_threads=1))


def test_a_baked_model_runs_in_stock_llama_cpp_and_gives_its_map_back(
    model: Model, stock_logits: StockLogits, tmp_path: Path
) -> None:
    made = hand_made_map(model)
    made.save(tmp_path / "user.dps.gguf")
    baked = tmp_path / "baked.gguf"
    bake(model.path, tmp_path / "user.dps.gguf", baked)

    loaded = HeadMap.load(baked)
    assert loaded.check("the baked model", model.identity) == ""
    assert loaded.as_json() == made.as_json()
    with GGUFFile(baked) as file, GGUFFile(model.path) as original:
        assert file.fingerprint() == model.fingerprint
        assert [k for k in file.keys() if not k.startswith("dps.")] == original.keys()  # noqa: SIM118 (no dict)

    context = new_context(model)
    runs, logits = greedy(context, prompt_of(model, 32), 4)
    context.close()
    assert np.array_equal(logits, stock_logits(baked, runs, n_ctx=N_CTX, n_threads=N_THREADS))


# --- null control


def test_the_contrast_with_scales_of_one_is_exactly_zero(model: Model) -> None:
    plain, ones = (new_context(model, 640, n_outputs=1, n_threads=1) for _ in range(2))
    ones.set_head_scales(0, head_mask(model, []))
    for n in (1, 2, 31, 64, 257, 600):
        assert plain.truncate(0, 0)
        assert ones.truncate(0, 0)
        prompt, start = prompt_of(model, n), 0
        assert len(prompt) == n
        calls = [prompt[i : i + N_UBATCH] for i in range(0, n, N_UBATCH)]
        for step in range(len(calls) + 16):
            run = Run(0, start, calls[step], 1)
            f, m = (context.decode([run])[0].copy() for context in (plain, ones))
            assert float(np.abs(f - m).max()) == 0.0, (n, step)
            start += len(calls[step])
            if step == len(calls) - 1:
                calls.append([int(f.argmax())])
    plain.close()
    ones.close()


def test_ones_that_are_multiplied_change_nothing(model: Model) -> None:
    # scales of a second sequence put the multiplication into the graph of the first
    plain, ones = (Context(model, N_CTX, n_seq=2, n_outputs=128, n_threads=N_THREADS) for _ in range(2))
    ones.set_head_scales(1, np.zeros((model.n_layer, model.n_head_max), np.float32))
    runs, logits = greedy(plain, prompt_of(model, 64), N_STEPS)
    assert np.array_equal(feed(ones, runs), logits)
    plain.close()
    ones.close()


# --- the oracle: W_O


def zero_output_columns(model: Path, heads: Sequence[Head], n_head: int) -> None:
    """Overwrite the quantized blocks of W_O that read `heads` with zero bytes, which stand for zeros in every type."""
    with GGUFFile(model) as file:
        tensors = {t.name: t for t in file.tensors()}
    with model.open("rb+") as data:
        for layer, head in heads:
            tensor = tensors[f"blk.{layer}.attn_output.weight"]
            block, _ = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(tensor.type)]
            n_columns, n_rows = tensor.shape[:2]
            assert n_columns // n_head % block == 0, "a block holds columns of two heads"
            row = tensor.size // n_rows
            for i in range(n_rows):
                data.seek(tensor.offset + i * row + head * (row // n_head))
                data.write(bytes(row // n_head))


def test_a_muted_head_equals_zero_output_columns_of_the_real_weights(name: str, model: Model, tmp_path: Path) -> None:
    edited = tmp_path / "edited.gguf"
    shutil.copyfile(model.path, edited)
    zero_output_columns(edited, HEADS[name], model.n_head_max)
    oracle_model = Model(edited)
    plain, muted, oracle = new_context(model), new_context(model), new_context(oracle_model)
    muted.set_head_scales(0, head_mask(model, HEADS[name]))
    runs, expected = greedy(oracle, prompt_of(model), N_STEPS)
    assert float(np.abs(feed(muted, runs) - expected).max()) == 0.0
    assert float(np.abs(feed(plain, runs) - expected).max()) > 1
    for context in (plain, muted, oracle):
        context.close()
    oracle_model.close()


# --- scores


def text_of(model: Model, n_prompt: int, n_target: int) -> ScoredText:
    tokens = prompt_of(model, n_prompt + n_target)
    return ScoredText(tokens[:n_prompt], tokens[n_prompt:])


def test_scores_equal_those_of_zero_output_columns(name: str, model: Model, tmp_path: Path) -> None:
    text = text_of(model, 40, 12)
    ablation = HeadAblation(model, 64, 12, scope="all", n_threads=N_THREADS)
    plain, null = ablation.read(text)
    assert null == 0.0
    effects, _ = ablation.effects(HEADS[name])
    for head, effect in zip(HEADS[name], effects, strict=True):
        edited = tmp_path / f"edited-{head}.gguf"
        shutil.copyfile(model.path, edited)
        zero_output_columns(edited, [head], model.n_head_max)
        oracle_model = Model(edited)
        oracle = HeadAblation(oracle_model, 64, 12, scope="all", parallel=ablation.heads_at_a_time, n_threads=N_THREADS)
        assert effect[PCS] == pytest.approx(oracle.read(text)[0] - plain, abs=1e-12)
        assert effect[PCS] != 0
        oracle.close()
        oracle_model.close()
        edited.unlink()
    ablation.close()


@pytest.mark.parametrize("n_target", [1, 7, 25, 32])
def test_nothing_done_has_no_effect_in_any_slot(n_target: int, model: Model) -> None:
    ablation = HeadAblation(model, 128, n_target, n_threads=N_THREADS)
    text = text_of(model, 64, n_target)
    assert ablation.read(text)[1] == 0.0
    # slots beside a muted head, with the layers below it left out
    assert [ablation.effects([head])[1] for head in ((0, 0), (model.n_layer - 1, 1))] == [0.0, 0.0]
    ablation.close()


def test_heads_have_the_same_scores_many_at_a_time_and_one_at_a_time(model: Model) -> None:
    heads, text = model.heads()[:: len(model.heads()) // 12], text_of(model, 64, 25)
    found = []
    for parallel in (None, 1, 8):
        ablation = HeadAblation(model, 128, 25, parallel=parallel, n_threads=N_THREADS)
        ablation.read(text)
        size = ablation.heads_at_a_time
        found.append(np.concatenate([ablation.effects(heads[i : i + size])[0] for i in range(0, len(heads), size)]))
        ablation.close()
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


# the same text in another batch shape, muted or not, takes other kernels: activations are quantized to eight bits, and
# rounding moves logits by tenths
SHAPE_NOISE = 0.03


def test_scores_equal_a_full_forward_for_each_head(name: str, model: Model) -> None:
    text = text_of(model, 64, 25)
    ablation = HeadAblation(model, 128, 25, n_threads=N_THREADS)
    ablation.read(text)
    effects, _ = ablation.effects(HEADS[name])
    ablation.close()
    context = new_context(model, 128, n_outputs=32)

    def nll(head: Head | None) -> float:
        context.truncate(0, 0)
        context.set_head_scales(0, None)
        context.decode([Run(0, 0, text.prompt[:-1])])
        context.set_head_scales(0, head_mask(model, [head]) if head else None)
        tokens = [text.prompt[-1], *text.target[:-1]]
        logits = context.decode([Run(0, len(text.prompt) - 1, tokens, len(tokens))]).astype(np.float64)
        top = logits.max(axis=1)
        sums = np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top
        return float((sums - logits[np.arange(len(tokens)), text.target]).mean())

    expected = [nll(head) - nll(None) for head in HEADS[name]]
    context.close()
    assert effects[:, PCS] == pytest.approx(expected, abs=SHAPE_NOISE)


# --- sampling


@pytest.mark.parametrize("sampling", [Sampling(temp=0), Sampling(seed=3), Sampling(seed=3, repeat_penalty=1.2)])
def test_tokens_are_drawn_where_the_logits_are_as_from_a_copy(model: Model, sampling: Sampling) -> None:
    context, there, copied = new_context(model), Sampler(sampling), Sampler(sampling)
    tokens = prompt_of(model)
    context.decode([Run(0, 0, tokens[:-1])])
    for n in range(len(tokens), len(tokens) + 100):
        logits = context.decode([Run(0, n - 1, tokens[-1:], 1)])[0]
        tokens.append(copied.sample(logits.copy()))
        assert there.sample_last(context, logits) == tokens[-1]
    context.close()


# --- speculative decoding


def test_speculative_steps_are_the_eager_ones_bit_for_bit(model: Model) -> None:
    layer = model.n_layer // 2
    steering = Steering(head_mask(model, [(layer, 0), (layer + 1, 1)]), Gamma(1.0), beta=0.05)
    tokens = prompt_of(model, 700)  # more than the window of Gemma's sliding layers
    full, muted = (Stream(new_context(model, 1024, n_outputs=8, batch_invariant=True)) for _ in range(2))
    full.replay([tokens[:512], tokens[512:-1]])
    found, counts = [], []
    for eager in (True, False):
        full.rewind(len(tokens) - 1)
        muted.copy_from(full)
        muted.scale(steering.scales)
        contrast = Contrast(full, muted, steering, eager=eager, probs=True)
        answer = SpeculativeDecoder(contrast, Sampler(Sampling(seed=5)), threading.Event()).steps(tokens[-1], 60)
        found.append([(s.id, s.p_plain, s.p_steered) for s in itertools.islice(answer, 60)])
        answer.close()
        counts.append(contrast.counts)
    assert found[0] == found[1]
    assert counts[1].muted_calls < counts[0].muted_calls
    full.context.close()
    muted.context.close()
