from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from dps_local.errors import DpsError
from dps_local.steering.mixing import LARGEST, Gamma, Logits, entropy, log_softmax, mix, nll, plausible, probabilities

INF = math.inf

logits = hnp.arrays(
    np.float32, st.integers(1, 40), elements=st.floats(-50, 50, width=32).map(lambda x: x + 0.0)
)  # + 0.0: no negative zero
strengths = st.floats(-5, 5)


def row(*values: float) -> Logits:
    return np.array(values, np.float32)


def softmax(values: NDArray[np.floating]) -> list[float]:
    largest = float(values.max())
    weights = [math.exp(float(v) - largest) for v in values]
    total = math.fsum(weights)
    return [w / total for w in weights]


def log_sum_exp(values: NDArray[np.floating]) -> float:
    largest = float(values.max())
    return largest + math.log(math.fsum(math.exp(float(v) - largest) for v in values))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Logits, Logits]:
    full = draw(logits)
    return full, draw(hnp.arrays(np.float32, full.shape, elements=st.floats(-50, 50, width=32)))


# mix


def test_the_contrast_of_numbers_typed_by_hand() -> None:
    mixed = mix(row(1, 2, 3), row(1, 3, 1), gamma=0.5, beta=0)
    assert mixed.tolist() == [1.0, 1.5, 4.0]


def test_gamma_one_is_twice_the_full_logits_less_the_muted_ones() -> None:
    assert mix(row(4, -2, 0.5), row(1, 2, 0.25), gamma=1, beta=0).tolist() == [7.0, -6.0, 0.75]


def test_a_negative_gamma_steers_towards_the_muted_logits() -> None:
    assert mix(row(1, 2, 3), row(1, 3, 1), gamma=-1, beta=0).tolist() == [1.0, 3.0, 1.0]


def test_mixed_logits_are_single_precision_in_an_array_of_their_own() -> None:
    full, muted = row(1, 2, 3), row(1, 3, 1)
    for beta in (0.0, 0.1):
        mixed = mix(full, muted, 0.5, beta)
        assert mixed.dtype == np.float32
        assert not np.shares_memory(mixed, full)
    assert full.tolist() == [1, 2, 3]
    assert muted.tolist() == [1, 3, 1]


@settings(deadline=None)
@given(pairs())
def test_gamma_zero_gives_the_full_logits_bit_for_bit(pair: tuple[Logits, Logits]) -> None:
    full, muted = pair
    assert mix(full, muted, gamma=0, beta=0).tobytes() == full.tobytes()


@settings(deadline=None)
@given(logits, strengths)
def test_equal_streams_give_the_full_logits_bit_for_bit(full: Logits, gamma: float) -> None:
    assert mix(full, full.copy(), gamma, beta=0).tobytes() == full.tobytes()


@settings(deadline=None)
@given(logits, strengths, st.floats(0.001, 1))
def test_equal_streams_give_the_full_logits_bit_for_bit_wherever_they_are_kept(
    full: Logits, gamma: float, beta: float
) -> None:
    mixed = mix(full, full.copy(), gamma, beta)
    kept = mixed > -np.inf
    assert kept[int(full.argmax())]
    assert mixed[kept].tobytes() == full[kept].tobytes()
    assert np.isneginf(mixed[~kept]).all()


@settings(deadline=None)
@given(pairs(), st.floats(-2, 2), st.sampled_from([0.0, 0.1, 0.5]))
def test_raw_logits_and_log_probabilities_give_the_same_distribution(
    pair: tuple[Logits, Logits], gamma: float, beta: float
) -> None:
    full, muted = pair
    raw, logprobs = mix(full, muted, gamma, beta, "logits"), mix(full, muted, gamma, beta, "logprobs")
    assert softmax(raw) == pytest.approx(softmax(logprobs), abs=2e-5)


def test_raw_logits_and_log_probabilities_agree_to_1e_5_over_a_large_vocabulary() -> None:
    random = np.random.default_rng(3)
    full, muted = (random.normal(0, 4, 262_144).astype(np.float32) for _ in range(2))
    raw, logprobs = mix(full, muted, 0.5, 0.1, "logits"), mix(full, muted, 0.5, 0.1, "logprobs")
    assert np.abs(np.array(softmax(raw)) - softmax(logprobs)).max() < 1e-5


def test_log_probabilities_ignore_a_shift_of_either_stream() -> None:
    full, muted = row(1, 2, 3), row(1, 3, 1)
    plain = mix(full, muted, 0.5, 0, "logprobs")
    assert mix(full + 8, muted - 16, 0.5, 0, "logprobs").tolist() == pytest.approx(plain.tolist(), abs=1e-6)


def test_implausible_tokens_are_ruled_out_however_much_the_contrast_lifts_them() -> None:
    mixed = mix(row(10, 9, 0), row(10, 9, -100), gamma=2, beta=0.1)
    assert mixed.tolist() == [10.0, 9.0, -INF]
    assert mix(row(10, 9, 0), row(10, 9, -100), gamma=2, beta=0).tolist() == [10.0, 9.0, 200.0]


def test_the_mask_looks_at_the_full_stream_alone() -> None:
    assert np.isneginf(mix(row(0, 5), row(50, 5), 1, 0.1)).tolist() == [True, False]


# plausible: the probabilities are 0.6, 0.25, 0.1, 0.05 (any common shift of the logits gives the same)
FOUR = row(*(math.log(p) + 3 for p in (0.6, 0.25, 0.1, 0.05)))


@pytest.mark.parametrize(
    ("beta", "kept"),
    [
        (0.0, [True, True, True, True]),
        (0.08, [True, True, True, True]),  # 0.6 · 0.08 = 0.048
        (0.1, [True, True, True, False]),  # 0.06
        (0.2, [True, True, False, False]),  # 0.12
        (0.4, [True, True, False, False]),  # 0.24
        (0.45, [True, False, False, False]),  # 0.27
        (1.0, [True, False, False, False]),
    ],
)
def test_tokens_with_at_least_beta_of_the_largest_probability_are_kept(beta: float, kept: list[bool]) -> None:
    assert plausible(FOUR, beta).tolist() == kept


def test_beta_zero_keeps_even_tokens_at_minus_infinity() -> None:
    assert plausible(row(1, -INF, 0), 0).tolist() == [True, True, True]


def test_beta_above_zero_drops_tokens_at_minus_infinity() -> None:
    assert plausible(row(1, -INF, 0), 1e-9).tolist() == [True, False, True]


def test_beta_one_keeps_every_token_that_ties_for_the_maximum() -> None:
    assert plausible(row(2, 7, 7, 6.99), 1).tolist() == [False, True, True, False]


@settings(deadline=None)
@given(logits, st.floats(0.001, 1), st.floats(0.001, 1))
def test_a_larger_beta_keeps_no_token_that_a_smaller_one_drops(full: Logits, one: float, other: float) -> None:
    strict, loose = plausible(full, max(one, other)), plausible(full, min(one, other))
    assert not (strict & ~loose).any()


# entropy


@pytest.mark.parametrize("n", [1, 2, 3, 10, 1000, 262_144])
def test_the_entropy_of_a_uniform_distribution_is_log_n(n: int) -> None:
    assert entropy(np.full(n, 2.5, np.float32)) == pytest.approx(math.log(n), abs=1e-9)


@pytest.mark.parametrize("certain", [row(0, -INF, -INF), row(-INF, 3), row(900, -900, 0), row(7)])
def test_the_entropy_of_certainty_is_zero(certain: Logits) -> None:
    assert entropy(certain) == pytest.approx(0, abs=1e-12)


def test_tokens_at_minus_infinity_add_nothing_to_the_entropy() -> None:
    assert entropy(row(1, -INF, 1, 1, 1, -INF)) == pytest.approx(math.log(4), abs=1e-12)


def test_the_entropy_of_probabilities_typed_by_hand() -> None:
    assert entropy(FOUR) == pytest.approx(
        -(0.6 * math.log(0.6) + 0.25 * math.log(0.25) + 0.1 * math.log(0.1) + 0.05 * math.log(0.05)), abs=1e-6
    )


# Gamma


def test_a_number_is_the_strength_at_every_step() -> None:
    assert Gamma(0.75)(row(1, 2)) == 0.75
    assert Gamma(0.75)(row(9, -9, 0)) == 0.75


def test_gamma_can_be_the_entropy_of_the_step() -> None:
    assert Gamma(entropy=True)(row(1, 1, 1, 1, 1)) == pytest.approx(math.log(5))


def test_normalised_entropy_is_one_where_the_model_knows_nothing_and_half_at_the_root_of_the_vocabulary() -> None:
    assert Gamma(entropy=True, normalised=True)(row(*[3] * 16)) == pytest.approx(1)
    assert Gamma(entropy=True, normalised=True)(row(*[3] * 4, *[-INF] * 12)) == pytest.approx(0.5)


def test_entropy_is_capped_only_where_it_is_larger() -> None:
    capped = Gamma(entropy=True, cap=1.2)
    assert capped(row(1, 1, 1, 1, 1)) == 1.2
    assert capped(row(1, 1)) == pytest.approx(math.log(2))


def test_the_cap_applies_after_normalising() -> None:
    assert Gamma(entropy=True, normalised=True, cap=0.25)(row(*[3] * 16)) == 0.25
    assert Gamma(entropy=True, normalised=True, cap=0.75)(row(*[3] * 4, *[-INF] * 12)) == pytest.approx(0.5)


def test_only_the_number_zero_is_off() -> None:
    assert Gamma().off
    assert Gamma(0).off
    assert Gamma.parse("-0").off
    assert not Gamma(-0.1).off
    assert not Gamma(entropy=True).off


@pytest.mark.parametrize(
    ("text", "gamma"),
    [
        ("0", Gamma(0)),
        (" 0.5 ", Gamma(0.5)),
        ("-1", Gamma(-1)),
        ("1e-3", Gamma(0.001)),
        ("entropy", Gamma(entropy=True)),
        ("entropy:normalised", Gamma(entropy=True, normalised=True)),
        ("entropy:cap=1.5", Gamma(entropy=True, cap=1.5)),
        ("entropy:normalised:cap=0.5", Gamma(entropy=True, normalised=True, cap=0.5)),
        ("entropy:cap=0.5:normalised", Gamma(entropy=True, normalised=True, cap=0.5)),
    ],
)
def test_gamma_is_read_from_text(text: str, gamma: Gamma) -> None:
    assert Gamma.parse(text) == gamma


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nan", "γ is 'nan': expected a number or entropy[:normalised][:cap=X]"),
        ("inf", "γ is 'inf': expected a number or entropy[:normalised][:cap=X]"),
        ("-inf", "γ is '-inf': expected a number"),
        ("1e999", "γ is '1e999': expected a number"),
        ("", "γ is '': expected a number"),
        ("strong", "γ is 'strong': expected a number"),
        ("1:cap=2", "γ is '1:cap=2': expected a number"),
        ("0.5:normalised", "γ is '0.5:normalised': expected a number"),
        ("entropy:cap=0", "γ option 'cap=0': expected normalised or cap=X with X above 0"),
        ("entropy:cap=-1", "γ option 'cap=-1': expected"),
        ("entropy:cap=nan", "γ option 'cap=nan': expected"),
        ("entropy:cap=", "γ option 'cap=': expected"),
        ("entropy:foo", "γ option 'foo': expected normalised or cap=X with X above 0"),
        ("entropy:", "γ option '': expected"),
        ("Entropy", "γ is 'Entropy': expected a number"),
    ],
)
def test_anything_else_is_refused_with_what_was_expected(text: str, problem: str) -> None:
    with pytest.raises(DpsError, match=re.escape(problem)):
        Gamma.parse(text)


def test_a_strength_is_written_as_one_would_type_it() -> None:
    assert [str(Gamma(value)) for value in (0, 0.5, 1.0, -2.25)] == ["0", "0.5", "1", "-2.25"]
    assert str(Gamma(entropy=True, normalised=True, cap=2.0)) == "entropy:normalised:cap=2"


@settings(deadline=None)
@given(
    st.builds(Gamma, st.floats(-LARGEST, LARGEST))
    | st.builds(
        Gamma,
        entropy=st.just(True),
        normalised=st.booleans(),
        cap=st.floats(min_value=0, exclude_min=True, allow_infinity=False) | st.just(INF),
    )
)
def test_the_text_of_a_gamma_reads_back_as_the_same_gamma(gamma: Gamma) -> None:
    assert Gamma.parse(str(gamma)) == gamma


@settings(deadline=None)
@given(
    st.text(max_size=20)
    | st.lists(st.sampled_from(["entropy", "normalised", "cap=", "nan", "inf", "1", "-", "e9", ":", "_", " "])).map(
        "".join
    )
)
def test_any_text_is_a_gamma_or_an_error(text: str) -> None:
    try:
        gamma = Gamma.parse(text)
    except DpsError:
        return
    assert math.isfinite(gamma.value)
    assert gamma.cap > 0


# log_softmax, nll, probabilities


def test_log_probabilities_of_numbers_typed_by_hand() -> None:
    # 1 + 1 + 2 = 4 parts
    assert log_softmax(row(0, 0, math.log(2))).tolist() == pytest.approx(
        [math.log(0.25), math.log(0.25), math.log(0.5)], abs=1e-7
    )


def test_log_softmax_is_double_precision_over_the_last_axis() -> None:
    result = log_softmax(np.array([[0, 0], [0, math.log(3)]], np.float32))
    assert result.dtype == np.float64
    assert np.exp(result).tolist() == [pytest.approx([0.5, 0.5]), pytest.approx([0.25, 0.75])]


def test_log_softmax_neither_overflows_nor_warns_at_extreme_logits() -> None:
    assert log_softmax(row(3e38, -3e38)).tolist()[0] == 0
    assert log_softmax(row(0, -INF)).tolist() == [0, -INF]


def test_nll_and_probability_of_numbers_typed_by_hand() -> None:
    # e^0 : e^1 : e^2 = 1 : 2.718281828 : 7.389056099, together 11.107337927
    logits = row(0, 1, 2)
    assert [nll(logits, t) for t in range(3)] == pytest.approx([2.40760596, 1.40760596, 0.40760596], abs=1e-6)
    assert probabilities(logits).tolist() == pytest.approx([0.09003057, 0.24472847, 0.66524096], abs=1e-7)


def test_a_token_at_minus_infinity_has_probability_zero_and_infinite_nll() -> None:
    assert probabilities(row(1, -INF))[1] == 0
    assert nll(row(1, -INF), 1) == INF
    assert nll(row(1, -INF), 0) == 0


@settings(deadline=None)
@given(logits, st.data())
def test_nll_is_the_negative_log_of_the_probability(full: Logits, data: st.DataObject) -> None:
    token = data.draw(st.integers(0, full.size - 1))
    p = probabilities(full)[token]
    assume(p > 1e-30)  # single precision ends at 1e-38
    assert nll(full, token) == pytest.approx(-math.log(p), rel=1e-5, abs=1e-5)


@settings(deadline=None)
@given(logits, st.data())
def test_nll_and_probability_agree_with_double_precision(full: Logits, data: st.DataObject) -> None:
    token = data.draw(st.integers(0, full.size - 1))
    expected = log_sum_exp(full) - float(full[token])
    assert nll(full, token) == pytest.approx(expected, rel=1e-6, abs=1e-5)
    assert probabilities(full)[token] == pytest.approx(math.exp(-expected), abs=1e-6)
    assert log_softmax(full)[token] == pytest.approx(-expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("spread", [0.01, 3, 12])
def test_a_vocabulary_of_262k_tokens_is_accurate_to_1e_5(spread: float) -> None:
    full = np.random.default_rng(11).normal(5, spread, 262_144).astype(np.float32)
    total = log_sum_exp(full)
    for token in (0, 1, 77_777, 262_143, int(full.argmax())):
        expected = total - float(full[token])
        assert nll(full, token) == pytest.approx(expected, abs=1e-5)
        assert probabilities(full)[token] == pytest.approx(math.exp(-expected), rel=1e-5, abs=1e-12)
        assert log_softmax(full)[token] == pytest.approx(-expected, abs=1e-9)


@pytest.mark.parametrize("text", ["1e38", "-1e38", "1000.5", "nan", "inf"])
def test_a_strength_that_is_too_large_to_compute_with_is_refused(text: str) -> None:
    with pytest.raises(DpsError, match="γ is"):
        Gamma.parse(text)
    with pytest.raises(DpsError, match="it goes from -1000 to 1000"):
        Gamma(float(text))


@pytest.mark.parametrize("gamma", [1000.0, -1000.0])
def test_the_largest_strength_gives_numbers(gamma: float) -> None:
    full, muted = (np.linspace(-a, a, 50, dtype=np.float32) for a in (200, 150))
    for space in ("logits", "logprobs"):
        assert np.isfinite(mix(full, muted, gamma, 0, space)).all()
