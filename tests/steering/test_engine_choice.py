"""Which engine `auto` takes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dps_local.chat.session import Session
from dps_local.engine.call_times import CallTimes
from dps_local.engine.model import head_mask
from dps_local.engine.sampler import Sampling
from dps_local.steering.decoding import Engine
from dps_local.steering.engine_choice import expected_times, fastest
from dps_local.steering.mixing import Gamma
from dps_local.steering.steering import Steering, SteeringMode


@pytest.mark.parametrize(
    ("one", "two", "depth", "greedy", "engine"),
    [
        (1.4, 1.5, 1.0, True, "together"),  # a GPU: the weights are read once
        (1.4, 1.5, 0.1, True, "speculative"),  # only the last layers differ: they cost less than the second token
        (1.4, 1.55, 0.1, False, "speculative"),
        (1.4, 1.6, 0.1, True, "speculative"),
        (7.5, 14.5, 0.9, True, "speculative"),  # two cores: a second token takes as long as the first
        (7.5, 14.5, 0.8, False, "speculative"),
        (200.0, 230.0, 0.9, False, "together"),  # a laptop that waits for its memory
        (1.0, 2.5, 1.0, False, "eager"),  # kernels that are worse for two tokens
    ],
)
def test_the_engine_that_takes_least_is_taken(
    one: float, two: float, depth: float, greedy: bool, engine: Engine
) -> None:
    assert fastest(CallTimes(one, two), depth, greedy=greedy) == engine


def test_what_is_expected_of_each_engine() -> None:
    # a call of 4 tokens every 4 tokens, in half of the layers: 2.5 ms a token for the first one, 0.75 for the others
    expected = expected_times(CallTimes(10.0, 11.0), 0.5, greedy=True)
    assert expected == pytest.approx({"speculative": 10 + 0.5 * (2.5 + 0.75), "together": 11.0, "eager": 20.0})


@pytest.mark.parametrize(
    ("two", "mode", "joined"),
    [(1.1, "contrast", True), (1.1, "cad", True), (1.1, "amplify", False), (2.0, "contrast", False)],
)
def test_auto_is_the_engine_for_this_machine(
    open_session: Callable[..., Session],
    monkeypatch: pytest.MonkeyPatch,
    two: float,
    mode: SteeringMode,
    joined: bool,
) -> None:
    monkeypatch.setattr("dps_local.chat.session.CallTimes.of", lambda *_: CallTimes(1.0, two))
    mask = head_mask(open_session().model, [(0, 1)])
    steering = Steering(mask, Gamma(0.5), mode=mode)
    at_once = open_session(engine="auto", steering=steering, sampling=Sampling(temp=0))
    later = open_session(engine="auto", sampling=Sampling(temp=0))
    list(later.ask("Where is the harbour?", 3))
    assert later.streams.muted is None
    for session in (at_once, later):
        list(session.ask("And the tide?", 3, steering=steering))
        assert session.streams.joined == joined
