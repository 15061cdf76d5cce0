"""What `bench decode` times: each method with the heads it says, and llama.cpp alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from decoded import Decoded, spy
from maps import NAN, hand_made_map
from opened import shared
from tiny import TinyModel

from dps_local.assistant import Assistant, Settings
from dps_local.bench.decode_bench import DecodeBench, amplification, bench_decoding, llama_cpp_ms
from dps_local.chat.session import Session
from dps_local.chat.turn import Token
from dps_local.engine.model import Model, head_mask
from dps_local.engine.sampler import Sampling
from dps_local.maps.head_map import HeadMap
from dps_local.steering.mixing import Gamma
from dps_local.steering.steering import Steering

SAMPLING = Sampling(temp=0.8, seed=1)
PROMPTS = ["Where is the harbour?", "And the tide?"]

Open = Callable[..., Session]


@pytest.fixture
def model(tiny_model: TinyModel) -> Model:
    return shared(tiny_model())


def weighted(model: Model, **changes: Any) -> HeadMap:
    weights = np.random.default_rng(3).uniform(-1, 1, (model.n_layer, model.n_head_max)).astype(np.float32)
    return hand_made_map(model, weights=weights, **changes)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Decoded]:
    return spy(monkeypatch)


@pytest.fixture
def session(open_session: Open, model: Model) -> Session:
    return open_session(probs=False, steering=Steering(head_mask(model, [(2, 2)]), Gamma(0.5)))


def timed(session: Session, amplify: Steering | None) -> DecodeBench:
    return bench_decoding(session, amplify, PROMPTS, 9, SAMPLING)


@pytest.mark.parametrize("mode", ["contrast", "amplify"])
def test_amplification_is_what_chat_amplifies_by(model: Model, mode: Any) -> None:
    head_map = weighted(model, mode=mode, gamma=0.4, scope="all")
    steering = amplification(model, head_map)
    assert steering
    assert steering.gamma == Gamma(0.4 if mode == "amplify" else 0.2)  # γ of a contrast says nothing of amplification
    settings = Settings(n_ctx=256, mode="amplify", gamma=steering.gamma)
    expected = Assistant(model, None, head_map, settings).steering
    assert expected
    assert np.array_equal(steering.scales, expected.scales)
    assert replace(steering, scales=expected.scales) == expected


def test_the_amplified_answer_is_the_eager_one_read_with_the_weights_of_the_map(
    session: Session, model: Model, steps: list[Decoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    head_map, asked = weighted(model), list[list[int]]()
    ask = session.ask

    def noted(prompt: str, n: int, **options: Any) -> list[Token]:
        answer = list(ask(prompt, n, **options))
        turn = session.turns[-1]
        if n > 1:
            asked.append([turn.pending[-1], *turn.ids[:-1]])
        return answer

    monkeypatch.setattr(session, "ask", noted)
    bench = timed(session, amplification(model, head_map))
    assert session.steering
    muted = session.steering.scales
    own = [call for call in steps if call.scales is not None and not np.array_equal(call.scales, muted)]
    assert [call.tokens for call in own] == [[token] for answer in asked for token in answer]
    expected = (1 + 0.2 * head_map.weights).astype(np.float32)
    assert all(np.array_equal(call.scales, expected) for call in own if call.scales is not None)
    assert len(bench.ms["amplify"]) == len(bench.ms["plain"]) == len(PROMPTS)
    assert bench.as_json()["amplify_ratio"] == pytest.approx(sum(bench.ratios("amplify")) / 2)


@pytest.mark.parametrize("weights", [NAN, 0.0])
def test_a_map_without_weights_is_not_amplified(session: Session, model: Model, weights: float) -> None:
    shape = (model.n_layer, model.n_head_max)
    amplify = amplification(model, hand_made_map(model, weights=np.full(shape, weights, np.float32)))
    assert amplify is None
    assert amplification(model, None) is None
    bench = timed(session, amplify)
    assert bench.as_json()["amplify_ratio"] is None
    assert "amplify" not in bench.ms
    assert bench.as_json()["eager_ratio"] > 0


def test_llama_cpp_alone_decodes_so_many_tokens_by_itself(
    open_session: Open, steps: list[Decoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    session, calls = open_session(probs=False), list[int]()
    list(session.ask(PROMPTS[0], 9))
    steps.clear()
    llama, decode = session.model.llama, session.model.llama.llama_decode

    def counted(context: Any, batch: Any) -> Any:
        calls.append(batch.n_tokens)
        return decode(context, batch)

    monkeypatch.setattr(llama, "llama_decode", counted)
    assert llama_cpp_ms(session, 9, SAMPLING) > 0
    assert (calls, steps) == ([1] * 9, [])


@pytest.mark.parametrize("kind", ["llama", "lfm2", "mamba"])
def test_llama_cpp_alone_leaves_the_chat_as_it_was(open_session: Open, kind: str) -> None:
    session, never = open_session(kind, probs=False), open_session(kind, probs=False)
    for chat in (session, never):
        list(chat.ask(PROMPTS[0], 9))
    llama_cpp_ms(session, 9, SAMPLING)
    assert list(session.regenerate(9)) == list(never.regenerate(9))
    assert session.full.calls == never.full.calls
    assert session.full.context.state() == never.full.context.state()
