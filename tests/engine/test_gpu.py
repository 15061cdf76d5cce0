"""The patch on a GPU: exactness against itself, and against the CPU to rounding.

These tests run where the libraries are built for a GPU and there is one (`tests/gpu.sh` does all of it). Where there is
none, tests/engine/test_vulkan.py runs them on a software driver; tests/engine/test_rpc.py on the RPC servers that
DPS_LOCAL_TEST_RPC names.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny import ATTENTION, TinyModel

from dps_local.chat.session import Session
from dps_local.engine import native
from dps_local.engine.context import Context, Run, TopLogits
from dps_local.engine.model import Head, Model, Scope, head_mask
from dps_local.engine.rpc import Endpoint, server_at
from dps_local.engine.sampler import Sampling
from dps_local.prompting.chat_template import ChatTemplate
from dps_local.scoring.forked_sequences import ScoredText
from dps_local.scoring.head_ablation import HeadAblation
from dps_local.scoring.head_effects import PCS
from dps_local.steering.decoding import Engine
from dps_local.steering.mixing import Gamma
from dps_local.steering.steering import Steering, SteeringMode
from dps_local.system import memory

PROMPT = list(b"The letter that you wrote to the editor on Sunday, word for word.")
MUTED: dict[str, Head] = {
    "llama": (1, 3),
    "qwen2": (1, 3),
    "gemma3": (2, 3),
    "deci": (4, 2),
    "deepseek2": (1, 0),
    "gemma4": (5, 1),
    "lfm2": (1, 2),
}

LAYERS = {"gpu": 99, "partly": 2, "cpu": 0}  # on the GPU; of a model of three, the last one and the output

Load = Callable[..., Model]
SERVERS = list(filter(None, os.environ.get("DPS_LOCAL_TEST_RPC", "").split(",")))


@pytest.fixture(scope="module", autouse=True)
def gpu() -> None:
    if not SERVERS and not native.load().gpus():
        pytest.skip("no GPU, or a build for the CPU alone: see the README on GPU builds")


@pytest.fixture
def load_on() -> Iterator[Load]:
    """`load_on(path, "gpu")`, "partly" or "cpu" opens a model there."""
    models: list[Model] = []

    def open_(path: Path, device: str = "gpu") -> Model:
        models.append(Model(path, n_gpu_layers=LAYERS[device], rpc=SERVERS if LAYERS[device] else []))
        return models[-1]

    yield open_
    for model in models:
        model.close()


def logits_of(model: Model, heads: list[Head], scale: float = 0.0, n: int = 4) -> NDArray[np.float32]:
    context = Context(model, 256, n_outputs=n, n_threads=2)
    try:
        context.set_head_scales(0, head_mask(model, heads, scale))
        context.decode([Run(0, 0, PROMPT[:-n])])
        return context.decode([Run(0, len(PROMPT) - n, PROMPT[-n:], n)]).copy()
    finally:
        context.close()


def test_the_device_is_shown() -> None:
    library = native.load()
    servers = [server_at(Endpoint.parse(server)) for server in SERVERS]
    of_servers = [library.described(device) for server in servers for device in server.devices]
    assert any("CPU" not in device["name"] for device in [*library.backends(), *of_servers])


@pytest.mark.parametrize("kind", ATTENTION)
def test_scales_of_one_change_nothing_at_all(tiny_model: TinyModel, load_on: Load, kind: str) -> None:
    model = load_on(tiny_model(kind))
    assert np.array_equal(logits_of(model, [MUTED[kind]], 1.0), logits_of(model, []))
    assert not np.array_equal(logits_of(model, [MUTED[kind]]), logits_of(model, []))


@pytest.mark.parametrize("kind", ATTENTION)
def test_a_muted_head_is_a_head_without_its_columns(tiny_model: TinyModel, load_on: Load, kind: str) -> None:
    muted = logits_of(load_on(tiny_model(kind)), [MUTED[kind]])
    edited = logits_of(load_on(tiny_model(kind, edit={MUTED[kind]: 0.0})), [])
    assert np.array_equal(muted, edited)


def test_heads_are_muted_on_both_sides_of_a_model_that_is_partly_on_the_gpu(
    tiny_model: TinyModel, load_on: Load
) -> None:
    model, on_cpu = load_on(tiny_model(), "partly"), load_on(tiny_model(), "cpu")
    plain = logits_of(model, [])
    for head in ((0, 1), (2, 3)):
        muted = logits_of(model, [head])
        assert np.array_equal(muted, logits_of(load_on(tiny_model(edit={head: 0.0}), "partly"), []))
        assert np.array_equal(logits_of(model, [head], 1.0), plain)
        assert not np.array_equal(muted, plain)
        for scale, found in ((0.0, muted), (2.0, logits_of(model, [head], 2.0))):
            expected = logits_of(on_cpu, [head], scale)
            assert np.abs(found - expected).max() < 0.05 * float(expected.std())


@pytest.mark.parametrize("device", ["gpu", "partly"])
def test_some_logits_are_those_of_all_and_batches_are_not_promised_to_be_invariant(
    tiny_model: TinyModel, load_on: Load, device: str
) -> None:
    context = Context(load_on(tiny_model(), device), 256, n_outputs=4, n_threads=2, batch_invariant=True)
    assert not context.batch_invariant
    rows = np.array([3, 70, 200, 5])
    every = context.decode([Run(0, 0, PROMPT, 4)])[:, rows].copy()
    context.truncate(0, 0)
    assert np.array_equal(context.decode_rows([Run(0, 0, PROMPT, 4)], rows), every)
    context.close()


def test_a_gpu_says_how_much_memory_is_free(tiny_model: TinyModel, load_on: Load) -> None:
    model = load_on(tiny_model())
    assert 0 < model.free_memory() <= memory.available() * 1.1
    assert load_on(tiny_model(), "partly").offloads
    assert not load_on(tiny_model(), "cpu").offloads


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("kind", ATTENTION)
def test_the_gpu_computes_what_the_cpu_does(tiny_model: TinyModel, load_on: Load, kind: str, scale: float) -> None:
    path = tiny_model(kind)
    on_gpu, on_cpu = (logits_of(load_on(path, device), [MUTED[kind]], scale) for device in ("gpu", "cpu"))
    spread = float(on_cpu.std())
    assert np.abs(on_gpu - on_cpu).max() < 0.05 * spread, (np.abs(on_gpu - on_cpu).max(), spread)


def test_scores_are_those_of_the_cpu(tiny_model: TinyModel, load_on: Load) -> None:
    text = ScoredText(PROMPT, list(b"Right then!"))
    found = []
    for device in ("gpu", "partly", "cpu"):
        model = load_on(tiny_model(), device)
        ablation = HeadAblation(model, len(text.prompt) + len(text.target), len(text.target), parallel=8, n_threads=2)
        nll, null = ablation.read(text)
        assert null == 0
        assert ablation.null_control() == 0
        effects, null = ablation.effects(model.heads()[:6])
        assert null == 0
        found.append((nll, effects[:, PCS]))
        ablation.close()
    *on_gpu, (nll_on_cpu, pcs_on_cpu) = found
    for nll, pcs in on_gpu:
        assert nll == pytest.approx(nll_on_cpu, abs=0.01)
        np.testing.assert_allclose(pcs, pcs_on_cpu, rtol=0, atol=0.01)
    assert np.abs(pcs_on_cpu).max() > 0.01


def answers(model: Model, steering: Steering, engine: Engine) -> list[list[tuple[int, float | None, float | None]]]:
    session = Session(
        model,
        ChatTemplate(model),
        steering=steering,
        sampling=Sampling(temp=0),
        engine=engine,
        probs=True,
        n_ctx=512,
        n_threads=2,
    )
    try:
        return [
            [(t.id, t.p_plain, t.p_steered) for t in session.ask(question, 10)]
            for question in ("Where is the harbour?", "And the tide?")
        ]
    finally:
        session.close()


@pytest.mark.parametrize("engine", ["eager", "together"])
@pytest.mark.parametrize(("scope", "device"), [("generated", "gpu"), ("all", "gpu"), ("generated", "partly")])
def test_nothing_muted_is_exactly_nothing(
    tiny_model: TinyModel, load_on: Load, scope: Scope, device: str, engine: Engine
) -> None:
    model = load_on(tiny_model(), device)
    null = Steering(head_mask(model, []), Gamma(5.0), 0.0, scope)
    for answer in answers(model, null, engine):
        assert all(p_plain == p_steered for _, p_plain, p_steered in answer)


@pytest.mark.parametrize("engine", ["speculative", "together"])
@pytest.mark.parametrize(("kind", "device"), [("llama", "gpu"), ("gemma3", "gpu"), ("llama", "partly")])
def test_other_engines_answer_as_the_eager_one_to_rounding(
    tiny_model: TinyModel, load_on: Load, kind: str, device: str, engine: Engine
) -> None:
    model = load_on(tiny_model(kind), device)
    steering = Steering(head_mask(model, [MUTED[kind]]), Gamma(1.0), 0.05)
    eager, by_engine = (answers(model, steering, name) for name in ("eager", engine))
    for one, other in zip(eager, by_engine, strict=True):
        same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a[0] != b[0]), len(one))
        for a, b in zip(one[:same], other[:same], strict=True):
            assert a[2] == pytest.approx(b[2], abs=0.02)
        assert same > 2


@pytest.mark.parametrize("mode", ["contrast", "amplify"])
def test_logits_are_picked_on_the_device(
    tiny_model: TinyModel, load_on: Load, monkeypatch: pytest.MonkeyPatch, mode: SteeringMode
) -> None:
    model, picked = load_on(tiny_model()), list[int]()
    original = Context.decode_top

    def decode_top(self: Context, runs: Sequence[Run], n: int) -> TopLogits:
        top = original(self, runs, n)
        assert np.array_equal(self.fetch_logits(len(runs))[:, top.tokens], top.logits)
        picked.append(len(runs))
        return top

    monkeypatch.setattr(Context, "decode_top", decode_top)
    steering = Steering(head_mask(model, [(1, 3)], 0.5), Gamma(1.0), 0.05, mode=mode)
    by_place = []
    for on_device in (True, False):
        model.offloads_output = on_device
        options: dict[str, Any] = {"engine": "together", "sampling": Sampling(temp=0.8, seed=2), "n_ctx": 512}
        with Session(model, ChatTemplate(model), steering=steering, n_threads=2, **options) as session:
            by_place.append([token.id for token in session.ask("Where is the harbour?", 10)])
    assert by_place[0] == by_place[1]
    assert set(picked) == {2 if mode == "contrast" else 1}


@pytest.mark.parametrize("device", ["gpu", "partly"])
def test_an_amplified_answer_is_that_of_the_cpu_to_rounding(tiny_model: TinyModel, load_on: Load, device: str) -> None:
    scales = head_mask(load_on(tiny_model(), device), [(0, 1), (2, 3)], 1.5)
    found, expected, plain = (
        answers(load_on(tiny_model(), where), Steering(scales, Gamma(gamma), mode="amplify"), "auto")[0][0]
        for where, gamma in ((device, 1.0), ("cpu", 1.0), (device, 0.0))
    )
    assert found[0] == expected[0]
    assert found[2] == pytest.approx(expected[2], abs=0.02)
    assert found[2] != plain[2]


@pytest.mark.slow
def test_a_real_model_is_exact_on_the_gpu(real_model: Callable[[str], Path], load_on: Load) -> None:
    model = load_on(real_model("smollm2-135m"))
    head = (model.n_layer // 2, 0)
    assert np.array_equal(logits_of(model, [head], 1.0), logits_of(model, []))
    assert not np.array_equal(logits_of(model, [head]), logits_of(model, []))
