"""Which engine makes the steps of a contrast soonest."""

from __future__ import annotations

from dps_local.engine.call_times import CallTimes
from dps_local.steering.decoding import Engine

# calls of the muted stream a token in speculative decoding: muted_calls_share of
# `dps-local bench decode -m smollm2-135m -p mara --json`, without and with `--temp 0.8`
GREEDY_CALLS, SAMPLED_CALLS = 0.25, 0.84


def fastest(times: CallTimes, depth: float, *, greedy: bool) -> Engine:
    """Return the engine that is expected to take the least time.

    depth: the part of the layers that the muted stream computes in speculative decoding.
    """
    expected = expected_times(times, depth, greedy=greedy)
    return min(expected, key=lambda engine: expected[engine])


def expected_times(times: CallTimes, depth: float, *, greedy: bool) -> dict[Engine, float]:
    """Return the milliseconds a token with each engine.

    A call of n tokens takes as much longer than one of a token as n - 1 times what the second token of two adds.
    """
    calls = GREEDY_CALLS if greedy else SAMPLED_CALLS
    verified = calls * times.one + (1 - calls) * (times.two - times.one)  # 1 / calls tokens in each call
    return {"speculative": times.one + depth * verified, "together": times.two, "eager": 2 * times.one}
