from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from opened import shared
from tiny import TinyModel

from dps_local.chat.session import Session
from dps_local.engine.context import Context, Run
from dps_local.engine.model import head_mask
from dps_local.engine.sampler import Sampler, Sampling
from dps_local.errors import NativeError, Remedy
from dps_local.steering.mixing import Gamma
from dps_local.steering.steering import Steering

GREEDY = Sampling(temp=0)
PLAIN = Sampling(temp=1, top_k=0, top_p=1, min_p=0, seed=1)  # nothing but the draw


def row(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def probabilities(*values: float) -> NDArray[np.float32]:
    return np.log(row(*values))


def draws(sampling: Sampling, logits: NDArray[np.float32], n: int) -> list[int]:
    sampler = Sampler(sampling)
    return [sampler.sample(logits) for _ in range(n)]


def expect_frequencies(sampling: Sampling, logits: NDArray[np.float32], expected: list[float], n: int = 3000) -> None:
    """Pearson's χ² of n draws; 25 is far out for up to four degrees of freedom (p < 0.0001)."""
    counts = Counter(draws(sampling, logits, n))
    assert set(counts) <= {i for i, p in enumerate(expected) if p > 0}
    assert sum((counts[i] - n * p) ** 2 / (n * p) for i, p in enumerate(expected) if p > 0) < 25


# greedy


@settings(deadline=None)
@given(hnp.arrays(np.float32, st.integers(1, 300), elements=st.floats(-80, 80, width=32), unique=True))
def test_greedy_picks_the_maximum(logits: NDArray[np.float32]) -> None:
    assert Sampler(GREEDY).sample(logits) == int(logits.argmax())


def test_greedy_draws_the_first_of_equal_logits() -> None:
    assert draws(GREEDY, row(1, 4, 4, 0), 3) == [1, 1, 1]


def test_a_temperature_below_zero_is_greedy_too() -> None:
    assert draws(Sampling(temp=-1), row(0, 2, 1), 20) == [1] * 20


def test_top_k_one_is_greedy_at_any_temperature() -> None:
    random = np.random.default_rng(5)
    sampler = Sampler(Sampling(temp=5, top_k=1, seed=3))
    for _ in range(50):
        logits = random.normal(0, 1, 100).astype(np.float32)
        assert sampler.sample(logits) == int(logits.argmax())


def test_sampling_leaves_the_logits_as_they_are() -> None:
    logits = row(3, -np.inf, 1, 2)
    Sampler(Sampling(temp=0.5, repeat_penalty=2, seed=1)).sample(logits)
    assert logits.tolist() == [3, -np.inf, 1, 2]


# tokens that are ruled out


def test_tokens_at_minus_infinity_are_never_drawn() -> None:
    logits = np.full(50, -np.inf, np.float32)
    logits[[7, 31, 49]] = 0
    assert set(draws(PLAIN, logits, 300)) == {7, 31, 49}


def test_the_only_token_left_is_drawn_whatever_the_settings() -> None:
    logits = np.full(50, -np.inf, np.float32)
    logits[13] = -60
    for sampling in (GREEDY, PLAIN, Sampling(), Sampling(temp=100, repeat_penalty=10, frequency_penalty=5)):
        assert draws(sampling, logits, 5) == [13] * 5


# the draw


def test_equal_seeds_give_equal_draws() -> None:
    logits = np.zeros(1000, np.float32)
    sampling = Sampling(temp=1, top_k=0, top_p=1, min_p=0, seed=42)
    assert draws(sampling, logits, 30) == draws(sampling, logits, 30)


def test_other_seeds_give_other_draws() -> None:
    logits = np.zeros(1000, np.float32)
    seen = {tuple(draws(Sampling(temp=1, top_k=0, top_p=1, min_p=0, seed=seed), logits, 10)) for seed in range(20)}
    assert len(seen) == 20


def test_the_default_seed_is_drawn_anew_each_time() -> None:
    logits = np.zeros(1000, np.float32)
    sampling = Sampling(temp=1, top_k=0, top_p=1, min_p=0)
    assert draws(sampling, logits, 20) != draws(sampling, logits, 20)


def test_a_negative_seed_is_taken_as_llama_cpp_takes_it() -> None:
    logits = np.zeros(1000, np.float32)
    by_seed = [draws(Sampling(temp=1, top_k=0, top_p=1, min_p=0, seed=s), logits, 10) for s in (-2, 0xFFFFFFFE)]
    assert by_seed[0] == by_seed[1]


def test_tokens_are_drawn_as_often_as_their_probability_says() -> None:
    expect_frequencies(PLAIN, probabilities(0.5, 0.3, 0.2), [0.5, 0.3, 0.2])


def test_a_temperature_of_one_half_squares_the_probabilities() -> None:
    # 0.25 : 0.09 : 0.04, together 0.38
    sampling = Sampling(temp=0.5, top_k=0, top_p=1, min_p=0, seed=2)
    expect_frequencies(sampling, probabilities(0.5, 0.3, 0.2), [25 / 38, 9 / 38, 4 / 38])


def test_a_high_temperature_evens_the_probabilities_out() -> None:
    sampling = Sampling(temp=1000, top_k=0, top_p=1, min_p=0, seed=2)
    expect_frequencies(sampling, probabilities(0.7, 0.2, 0.1), [1 / 3, 1 / 3, 1 / 3])


def test_top_k_keeps_the_k_best() -> None:
    sampling = Sampling(temp=1, top_k=2, top_p=1, min_p=0, seed=2)
    expect_frequencies(sampling, probabilities(0.2, 0.5, 0.3), [0, 5 / 8, 3 / 8])


def test_top_p_keeps_the_smallest_set_that_reaches_p() -> None:
    sampling = Sampling(temp=1, top_k=0, top_p=0.6, min_p=0, seed=2)
    expect_frequencies(sampling, probabilities(0.5, 0.3, 0.2), [5 / 8, 3 / 8, 0])


def test_min_p_keeps_what_is_not_far_below_the_best() -> None:
    sampling = Sampling(temp=1, top_k=0, top_p=1, min_p=0.5, seed=2)
    expect_frequencies(sampling, probabilities(0.5, 0.3, 0.2), [5 / 8, 3 / 8, 0])


# penalties


def test_a_repeated_token_is_divided_by_the_repeat_penalty() -> None:
    sampler = Sampler(Sampling(temp=0, repeat_penalty=2))
    assert [sampler.sample(row(3, 2, 1.8)) for _ in range(3)] == [0, 1, 2]  # then 1.5, 1, 0.9
    assert sampler.sample(row(3, 2, 1.8)) == 0


def test_tokens_of_the_prompt_count_for_the_penalties() -> None:
    logits = row(3, 2, 1)
    sampler = Sampler(Sampling(temp=0, repeat_penalty=2))
    sampler.accept([0])
    assert sampler.sample(logits) == 1


def test_without_penalties_the_prompt_does_not_matter() -> None:
    sampler = Sampler(GREEDY)
    sampler.accept([0, 0, 0])
    assert sampler.sample(row(3, 2, 1)) == 0


def test_only_the_last_tokens_count_for_the_penalties() -> None:
    sampler = Sampler(Sampling(temp=0, repeat_penalty=2, repeat_last_n=2))
    sampler.accept([0, 2, 2])
    assert sampler.sample(row(3, 2, 1)) == 0


def test_the_frequency_penalty_grows_with_each_repetition_the_presence_penalty_does_not() -> None:
    logits = row(3, 2.5)
    by_frequency = Sampler(Sampling(temp=0, frequency_penalty=0.2))
    assert [by_frequency.sample(logits) for _ in range(4)] == [0, 0, 0, 1]  # 3, 2.8, 2.6, 2.4
    by_presence = Sampler(Sampling(temp=0, presence_penalty=0.4))
    assert [by_presence.sample(logits) for _ in range(4)] == [0, 0, 0, 0]  # 3, 2.6, 2.6, 2.6


def test_penalties_and_ruled_out_tokens_go_together() -> None:
    sampler = Sampler(Sampling(temp=0, repeat_penalty=10))
    sampler.accept([2])
    assert sampler.sample(row(-np.inf, -np.inf, 5, -9, -np.inf)) == 2


def test_penalties_apply_to_random_draws_too() -> None:
    sampling = Sampling(temp=1, top_k=0, top_p=1, min_p=0, presence_penalty=100, seed=4)
    assert sorted(draws(sampling, row(1, 1, 1, 1, 1), 5)) == [0, 1, 2, 3, 4]


def test_logits_that_are_all_ruled_out_do_not_end_the_process() -> None:
    code = """
import numpy as np
from dps_local.errors import DpsError
from dps_local.engine.sampler import Sampler, Sampling

for sampling in (Sampling(temp=0), Sampling(seed=1)):
    try:
        Sampler(sampling).sample(np.full(9, np.nan, np.float32))
    except DpsError:
        print("refused")
"""
    environment = os.environ | {"GGML_NO_BACKTRACE": "1"}
    ended = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "refused\nrefused\n"), ended.stderr


# --- from the logits of a context, where llama.cpp has them

SAMPLINGS = [
    pytest.param(GREEDY, id="greedy"),
    pytest.param(Sampling(temp=0, repeat_penalty=1.3, frequency_penalty=0.4, presence_penalty=0.2), id="penalties"),
    pytest.param(Sampling(seed=5), id="defaults"),
    pytest.param(Sampling(temp=1.5, top_k=0, top_p=0.9, min_p=0.01, repeat_penalty=1.2, seed=7), id="hot"),
    pytest.param(Sampling(temp=2, top_k=0, top_p=1, min_p=0, seed=9), id="draw"),
]


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_token_is_drawn_where_the_logits_are_as_from_a_copy(tiny_model: TinyModel, sampling: Sampling) -> None:
    context, there, copied = Context(shared(tiny_model()), 256, n_threads=1), Sampler(sampling), Sampler(sampling)
    token, seen = 65, set[int]()
    for i in range(200):
        logits = context.decode([Run(0, i, [token], 1)])[0]
        token = copied.sample(logits.copy())
        assert there.sample_last(context, logits) == token
        seen.add(token)
    assert len(seen) > 5
    context.close()


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("kind", ["llama", "gemma3", "lfm2"])
def test_a_chat_is_the_one_that_samples_from_copies(
    open_session: Callable[..., Session], monkeypatch: pytest.MonkeyPatch, kind: str, sampling: Sampling
) -> None:
    def answers(session: Session) -> list[list[int]]:
        scales = np.full((session.model.n_layer, session.model.n_head_max), 1.5, np.float32)
        found = [list(session.ask("Where is the harbour?", 12))]
        with contextlib.closing(session.ask("And the tide?")) as broken_off:  # type: ignore[type-var]
            found.append(list(itertools.islice(broken_off, 5)))
        session.steering = Steering(scales, Gamma(0.5), mode="amplify")
        found += [list(session.ask("Who said so?", 12)), list(session.regenerate(12))]
        session.steering = Steering(head_mask(session.model, [(1, 0)]), Gamma(2.0))
        found.append(list(session.ask("Why, then?", 12)))
        session.steering = None
        found += [list(session.regenerate(12)), list(session.ask("Is that all?", 12))]
        return [[token.id for token in answer] for answer in found]

    def sample(self: Sampler, _: Context, logits: NDArray[np.float32]) -> int:
        return self.sample(logits.copy())

    there = answers(open_session(kind, sampling=sampling, n_ctx=512))
    monkeypatch.setattr(Sampler, "sample_last", sample)
    assert there == answers(open_session(kind, sampling=sampling, n_ctx=512))


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_damaged_model_draws_nothing(open_session: Callable[..., Session], sampling: Sampling) -> None:
    session = open_session(edit={(0, 1): float("nan")}, sampling=sampling, probs=False)
    with pytest.raises(NativeError, match="the model gave no number for any token") as info:
        list(session.ask("Where is the harbour?", 5))
    assert info.value.remedy is Remedy.WEAKER_GAMMA


@pytest.mark.parametrize("logits", [row(1, np.nan, 2), row(-np.inf, -np.inf), row(np.nan, np.nan)])
def test_what_is_no_number_is_refused_before_llama_cpp_sorts_it(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch, logits: NDArray[np.float32]
) -> None:
    context, sampler = Context(shared(tiny_model()), 256, n_threads=1), Sampler(Sampling())
    monkeypatch.setattr(sampler, "llama", None)
    with pytest.raises(NativeError, match="the model gave no number for any token") as info:
        sampler.sample_last(context, logits)
    assert info.value.remedy is Remedy.WEAKER_GAMMA
    context.close()
