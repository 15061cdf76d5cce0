"""`DecodeBench`: the time a token takes with each method of steering, by what llama.cpp takes by itself."""

from __future__ import annotations

import ctypes
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from dps_local.bench.forced_sampler import ForcedSampler
from dps_local.chat.session import Session
from dps_local.engine.model import Model
from dps_local.engine.prefix_cache import PrefixCache
from dps_local.engine.sampler import Sampler, Sampling
from dps_local.errors import NativeError, Remedy, SettingsError, StateError
from dps_local.maps.cluster_map import ClusterMap
from dps_local.maps.head_map import HeadMap
from dps_local.scoring.calibrate import STEPS
from dps_local.steering.contrast import DecodingCounts
from dps_local.steering.decoding import Engine
from dps_local.steering.mixing import Gamma
from dps_local.steering.steering import Steering
from dps_local.system.progress import Progress

ENGINES: tuple[Engine, ...] = ("speculative", "together")  # beside the eager one
FIRST_TOKENS = 3  # prompts whose time to the first token is taken


@dataclass
class DecodeBench:
    """What the answers to each prompt took. ms: milliseconds a token, by prompt; of llama.cpp and of each method.

    cold, warm: milliseconds to the first token where the profile is read, and where its KV state is on disk.
    counts: of speculative decoding, by prompt. compared: steps of each other engine. margins: of those in which its
    token was not the eager one, by how much the eager one's logit was higher, in nats.
    """

    model: str
    ms: dict[str, list[float]] = field(default_factory=dict)
    cold: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    counts: list[DecodingCounts] = field(default_factory=list)
    compared: Counter[Engine] = field(default_factory=Counter)
    margins: dict[Engine, list[float]] = field(default_factory=dict)

    def ratios(self, method: str) -> list[float]:
        """Time a token by that of llama.cpp alone, for each prompt."""
        return [t / plain for t, plain in zip(self.ms[method], self.ms["plain"], strict=True)]

    def same_tokens(self, engine: Engine) -> float:
        """Share of an engine's tokens that are the eager ones."""
        return 1 - len(self.margins[engine]) / self.compared[engine]

    def _total(self, name: str) -> int:
        return sum(getattr(counts, name) for counts in self.counts)

    def as_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "prompts": len(self.ms["plain"]),
            "tokens": self._total("steps"),
            "plain_ms": median(self.ms["plain"]),
            "amplify_ratio": None,  # where it was not timed
            **{f"{method}_ratio": median(self.ratios(method)) for method in self.ms if method != "plain"},
            "steered_ratio": median(self.ratios("speculative")),
            **{f"{method}_ratios": self.ratios(method) for method in self.ms if method != "plain"},
            "same_tokens": self.same_tokens("speculative"),
            "together_same_tokens": self.same_tokens("together"),
            "differ": self.margins["speculative"],
            "together_differ": self.margins["together"],
            "uncertain_share": self._total("uncertain") / self._total("steps"),
            "muted_calls_share": self._total("muted_calls") / self._total("steps"),
            "muted_tokens_share": self._total("muted_tokens") / self._total("steps"),
            "rejected_share": self._total("rejected") / self._total("steps"),
            "cold_ttft_ms": median(self.cold),
            "warm_ttft_ms": median(self.warm),
        }


def amplification(model: Model, head_map: HeadMap | ClusterMap | None) -> Steering | None:
    """Return how `--mode amplify` steers by a map, as strongly as it was calibrated or else as calibration tries first.

    None where there are no weights to amplify heads by: maps of clusters have none.
    """
    if not isinstance(head_map, HeadMap):
        return None
    steering = head_map.steering(model, "amplify")
    if not steering.heads:
        return None
    return replace(steering, gamma=Gamma(STEPS[0])) if steering.gamma.off else steering


def bench_decoding(
    session: Session,
    amplify: Steering | None,
    prompts: Sequence[str],
    n: int,
    sampling: Sampling,
    progress: Progress | None = None,
) -> DecodeBench:
    """Answer each prompt by each method with n tokens at most, in turn; `session` has a contrast.

    amplify: the method of amplified heads, None to leave it out.
    """
    steering = session.steering
    if steering is None or steering.mode != "contrast" or steering.gamma.off:
        raise SettingsError("there is nothing to time", Remedy.STEER_BY_CONTRAST)
    bench = DecodeBench(session.model.name)
    for i, prompt in enumerate(prompts):
        if i < FIRST_TOKENS:
            _time_first_token(bench, session, prompt)
        session.clear()
        answer = list(session.ask(prompt, n, steering=steering, engine="eager", sampler=Sampler(sampling)))
        if len(answer) > 1:
            _add(bench, "eager", session.turns[-1].timings.token_ms)
            _add(bench, "plain", llama_cpp_ms(session, len(answer), sampling))
            if amplify:
                forced = ForcedSampler(sampling, [token.id for token in answer])
                _add(bench, "amplify", _again(session, len(answer), amplify, "auto", forced))
            for engine in ENGINES:
                _time_engine(bench, session, steering, engine, n, sampling)
        if progress:
            progress(i + 1, len(prompts))
    if not bench.ms:
        raise StateError("the model ends all answers at once: nothing can be timed")
    return bench


def _time_first_token(bench: DecodeBench, session: Session, prompt: str) -> None:
    """Take the time from question to first token twice: with nothing on disk, and with the profile there."""
    with tempfile.TemporaryDirectory() as folder:
        session.streams.cache = PrefixCache(Path(folder))
        for times in (bench.cold, bench.warm):
            session.clear()
            start = perf_counter()
            list(session.ask(prompt, 1))
            times.append(1000 * (perf_counter() - start))
        session.streams.cache = None


def _add(bench: DecodeBench, method: str, ms: float) -> None:
    bench.ms.setdefault(method, []).append(ms)


def _again(session: Session, n: int, steering: Steering, engine: Engine, sampler: Sampler) -> float:
    """Answer the last prompt again; return the milliseconds a token."""
    list(session.regenerate(n, steering=steering, engine=engine, sampler=sampler))
    return session.turns[-1].timings.token_ms


def llama_cpp_ms(session: Session, n: int, sampling: Sampling) -> float:
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
    stream.record([0] * n)  # whatever they were, they are taken back
    stream.rewind(turn.answer)
    return ms


def _time_engine(
    bench: DecodeBench, session: Session, steering: Steering, engine: Engine, n: int, sampling: Sampling
) -> None:
    """Answer by another engine; then let the eager one make the same steps, and compare."""
    _add(bench, engine, _again(session, n, steering, engine, Sampler(sampling)))
    turn = session.turns[-1]
    if engine == "speculative":
        assert turn.counts
        bench.counts.append(turn.counts)
    tokens = [t.id for t in turn.tokens]
    sampler = ForcedSampler(sampling, tokens)
    _again(session, len(tokens), steering, "eager", sampler)
    bench.compared[engine] += len(tokens)
    bench.margins.setdefault(engine, []).extend(sampler.margins)
