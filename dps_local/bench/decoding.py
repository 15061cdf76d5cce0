"""Benchmark of decoding: the time a token takes with each way of steering, by what llama.cpp takes by itself."""

from __future__ import annotations

import contextlib
import ctypes
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dps_local.chat.session import Session
from dps_local.engine.context import Context
from dps_local.engine.model import Model
from dps_local.engine.prefix_cache import PrefixCache
from dps_local.engine.sampler import Sampler, Sampling
from dps_local.errors import DpsError, NativeError
from dps_local.maps.cluster_map import ClusterMap
from dps_local.maps.head_map import HeadMap
from dps_local.scoring.calibration import STEPS
from dps_local.steering.contrast import Counts
from dps_local.steering.decoding import Engine
from dps_local.steering.mixing import Gamma, Logits
from dps_local.steering.steering import Steering, scales_of

STARTS = 3  # prompts whose time to the first token is taken
Progress = Callable[[int, int], None]  # (done, total) prompts


class Follower:
    """A sampler that draws as another would, but goes on with the tokens it was given; notes where the two differ."""

    def __init__(self, sampling: Sampling, tokens: Sequence[int]) -> None:
        self.own, self.tokens = Sampler(sampling), iter(tokens)
        self.temp = self.own.temp
        self.differ: list[float] = []  # by how many nats the own token's logit is above the other's

    def sample(self, logits: Logits, tokens: NDArray[np.integer] | None = None) -> int:
        return self._next(self.own.sample(logits, tokens), logits, tokens)

    def sample_last(self, context: Context, logits: Logits) -> int:
        return self._next(self.own.sample_last(context, logits), logits)

    def _next(self, own: int, logits: Logits, tokens: NDArray[np.integer] | None = None) -> int:
        token = next(self.tokens)
        if own != token:
            at = np.searchsorted(tokens, [own, token]) if tokens is not None else [own, token]
            self.differ.append(float(np.subtract(*logits[at])))
        return token

    def recount(self, tokens: Iterable[int]) -> None:
        self.own.recount(tokens)


@dataclass
class DecodeBench:
    """What the answers to each prompt took. ms: milliseconds a token, by prompt; of llama.cpp and of each way.

    cold, warm: milliseconds to the first token where the profile is read, and where it is on disk as it was read.

    counts: of the late engine, by prompt. differ: of the steps in which its token was not the eager one,
    by how much the eager one's logit was higher, in nats.
    """

    model: str
    ms: dict[str, list[float]] = field(default_factory=dict)
    cold: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    counts: list[Counts] = field(default_factory=list)
    compared: int = 0
    differ: list[float] = field(default_factory=list)

    def ratios(self, way: str) -> list[float]:
        """Time a token by that of llama.cpp alone, for each prompt."""
        return [t / plain for t, plain in zip(self.ms[way], self.ms["plain"], strict=True)]

    def _total(self, name: str) -> int:
        return sum(getattr(counts, name) for counts in self.counts)

    def as_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "prompts": len(self.ms["plain"]),
            "tokens": self._total("steps"),
            "plain_ms": median(self.ms["plain"]),
            "amplify_ratio": None,  # where it was not timed
            **{f"{way}_ratio": median(self.ratios(way)) for way in self.ms if way != "plain"},
            "steered_ratio": median(self.ratios("late")),
            **{f"{way}_ratios": self.ratios(way) for way in self.ms if way != "plain"},
            "same_tokens": 1 - len(self.differ) / self.compared,
            "differ": self.differ,
            "uncertain_share": self._total("uncertain") / self._total("steps"),
            "muted_calls_share": self._total("muted_calls") / self._total("steps"),
            "muted_tokens_share": self._total("muted_tokens") / self._total("steps"),
            "refuted_share": self._total("refuted") / self._total("steps"),
            "cold_ttft_ms": median(self.cold),
            "warm_ttft_ms": median(self.warm),
        }


def amplification(model: Model, head_map: HeadMap | ClusterMap | None) -> Steering | None:
    """Return how `--mode amplify` steers by a map, as strongly as it was calibrated or else as calibration tries first.

    None where there are no weights to amplify heads by: maps of clusters have none.
    """
    if not isinstance(head_map, HeadMap):
        return None
    scales = scales_of(model, head_map, "amplify")
    if (scales == 1).all():
        return None
    calibrated = head_map.mode == "amplify" and head_map.gamma
    return Steering(scales, Gamma(calibrated or STEPS[0]), scope=head_map.scope, mode="amplify")


def bench_decoding(
    session: Session,
    amplify: Steering | None,
    prompts: Sequence[str],
    n: int,
    sampling: Sampling,
    progress: Progress | None = None,
) -> DecodeBench:
    """Answer each prompt in each way with n tokens at most, one way after the other; `session` has a contrast.

    amplify: the way of amplified heads, None to leave it out.
    """
    steering = session.steering
    if steering is None or steering.mode != "contrast" or steering.gamma.off:
        raise DpsError("there is nothing to time: --gamma 0.5 steers by a contrast")
    bench = DecodeBench(session.model.name)
    for i, prompt in enumerate(prompts):
        if i < STARTS:
            _starts(bench, session, prompt)
        session.clear()
        with _steered(session, steering, "eager", Sampler(sampling)):
            answer = list(session.ask(prompt, n))
        if len(answer) > 1:
            _add(bench, "eager", session.turns[-1].timings.token_ms)
            _add(bench, "plain", _llama_cpp(session, len(answer), sampling))
            if amplify:
                with _steered(session, amplify, "auto", Follower(sampling, [token.id for token in answer])):
                    _add(bench, "amplify", _again(session, len(answer)))
            _late(bench, session, steering, n, sampling)
        if progress:
            progress(i + 1, len(prompts))
    if not bench.ms:
        raise DpsError("the model ends all answers at once: nothing can be timed")
    return bench


def _starts(bench: DecodeBench, session: Session, prompt: str) -> None:
    """Take the time to the first token twice: with nothing on disk, and with the profile there."""
    with tempfile.TemporaryDirectory() as folder:
        session.cache = PrefixCache(Path(folder))
        for times in (bench.cold, bench.warm):
            session.clear()
            list(session.ask(prompt, 1))
            times.append(session.turns[-1].timings.ttft_ms)
        session.cache = None


def _add(bench: DecodeBench, way: str, ms: float) -> None:
    bench.ms.setdefault(way, []).append(ms)


@contextlib.contextmanager
def _steered(session: Session, steering: Steering, engine: Engine, sampler: Any) -> Iterator[None]:
    before = session.steering, session.engine, session.sampler
    session.steering, session.engine, session.sampler = steering, engine, sampler
    try:
        yield
    finally:
        session.steering, session.engine, session.sampler = before


def _again(session: Session, n: int) -> float:
    """Answer the last prompt again; return the milliseconds a token."""
    list(session.regenerate(n))
    return session.turns[-1].timings.token_ms


def _llama_cpp(session: Session, n: int, sampling: Sampling) -> float:
    """Decode n tokens by llama.cpp and its sampler alone, after the last prompt; return the milliseconds a token."""
    turn, stream = session.turns[-1], session.full
    stream.rewind(turn.answer)
    llama, context, sampler = session.model.llama, stream.context.handle, Sampler(sampling)
    token = (ctypes.c_int32 * 1)(turn.pending[-1])
    batch = llama.llama_batch_get_one(token, 1)  # which reads `token` at each call
    start = perf_counter()
    for _ in range(n):
        if status := llama.llama_decode(context, batch):
            raise NativeError(f"llama_decode failed with {status}: {session.model.native.log.last()}")
        token[0] = llama.llama_sampler_sample(sampler.chain, context, -1)
    ms = 1000 * (perf_counter() - start) / n
    stream.note([0] * n)  # whatever they were, they are taken back
    stream.rewind(turn.answer)
    return ms


def _late(bench: DecodeBench, session: Session, steering: Steering, n: int, sampling: Sampling) -> None:
    """Answer by the late engine; then let the eager one make the same steps, and compare."""
    with _steered(session, steering, "late", Sampler(sampling)):
        _add(bench, "late", _again(session, n))
    turn = session.turns[-1]
    assert turn.counts
    bench.counts.append(turn.counts)
    tokens = [t.id for t in turn.tokens]
    follower = Follower(sampling, tokens)
    with _steered(session, steering, "eager", follower):
        list(session.regenerate(len(tokens)))
    bench.compared += len(tokens)
    bench.differ += follower.differ
