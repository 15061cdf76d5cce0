"""The patch on a GPU: exactness against itself, and against the CPU to rounding.

These tests run where the libraries are built for a GPU and there is one (`tests/gpu.sh` does all of it). Where there is
none, tests/engine/test_vulkan.py runs them on a software driver; tests/engine/test_rpc.py on the RPC servers that
DPS_LOCAL_TEST_RPC names.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny import ATTENTION, TinyModel

from dps_local.chat.session import Session
from dps_local.engine import native
from dps_local.engine.context import Context, Run
from dps_local.engine.model import Head, Model, Scope, head_mask
from dps_local.engine.rpc import Endpoint, server_at
from dps_local.engine.sampler import Sampling
from dps_local.prompting.chat_template import ChatTemplate
from dps_local.scoring.forked_sequences import ScoredText
from dps_local.scoring.head_ablation import HeadAblation
from dps_local.scoring.head_effects import PCS
from dps_local.steering.mixing import Gamma
from dps_local.steering.steering import Steering

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

Load = Callable[..., Model]
SERVERS = list(filter(None, os.environ.get("DPS_LOCAL_TEST_RPC", "").split(",")))


@pytest.fixture(scope="module", autouse=True)
def gpu() -> None:
    if not SERVERS and not native.load().gpus():
        pytest.skip("no GPU, or a build for the CPU alone: see the README on GPU builds")


@pytest.fixture
def load_on() -> Iterator[Load]:
    """`load_on(path, "gpu")` or "cpu" opens a model there."""
    models: list[Model] = []

    def open_(path: Path, device: str = "gpu") -> Model:
        on_gpu = device == "gpu"
        models.append(Model(path, n_gpu_layers=99 if on_gpu else 0, rpc=SERVERS if on_gpu else []))
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
    for device in ("gpu", "cpu"):
        model = load_on(tiny_model(), device)
        ablation = HeadAblation(model, len(text.prompt) + len(text.target), len(text.target), parallel=8, n_threads=2)
        nll, null = ablation.read(text)
        assert null == 0
        assert ablation.null_control() == 0
        effects, null = ablation.effects(model.heads()[:6])
        assert null == 0
        found.append((nll, effects[:, PCS]))
        ablation.close()
    (nll, pcs), (nll_on_cpu, pcs_on_cpu) = found
    assert nll == pytest.approx(nll_on_cpu, abs=0.01)
    np.testing.assert_allclose(pcs, pcs_on_cpu, rtol=0, atol=0.01)
    assert np.abs(pcs_on_cpu).max() > 0.01


def answers(model: Model, steering: Steering, engine: str) -> list[list[tuple[int, float | None, float | None]]]:
    session = Session(
        model,
        ChatTemplate(model),
        steering=steering,
        sampling=Sampling(temp=0),
        engine=engine,  # type: ignore[arg-type]
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


@pytest.mark.parametrize("scope", ["generated", "all"])
def test_nothing_muted_is_exactly_nothing(tiny_model: TinyModel, load_on: Load, scope: Scope) -> None:
    model = load_on(tiny_model())
    null = Steering(head_mask(model, []), Gamma(5.0), 0.0, scope)
    for answer in answers(model, null, "eager"):
        assert all(p_plain == p_steered for _, p_plain, p_steered in answer)


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_the_late_engine_answers_as_the_eager_one_to_rounding(tiny_model: TinyModel, load_on: Load, kind: str) -> None:
    model = load_on(tiny_model(kind))
    steering = Steering(head_mask(model, [MUTED[kind]]), Gamma(1.0), 0.05)
    eager, speculative = (answers(model, steering, engine) for engine in ("eager", "speculative"))
    for one, other in zip(eager, speculative, strict=True):
        same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a[0] != b[0]), len(one))
        for a, b in zip(one[:same], other[:same], strict=True):
            assert a[2] == pytest.approx(b[2], abs=0.02)
        assert same > 2


@pytest.mark.slow
def test_a_real_model_is_exact_on_the_gpu(real_model: Callable[[str], Path], load_on: Load) -> None:
    model = load_on(real_model("smollm2-135m"))
    head = (model.n_layer // 2, 0)
    assert np.array_equal(logits_of(model, [head], 1.0), logits_of(model, []))
    assert not np.array_equal(logits_of(model, [head]), logits_of(model, []))
