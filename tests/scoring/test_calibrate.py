"""What steering is worth: chosen on some items, measured on others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny import TinyModel

from dps_local.engine.context import Context, Run
from dps_local.engine.model import Model, head_mask
from dps_local.maps.calibration import NO_STEERING, Calibration, Candidate
from dps_local.scoring.calibrate import TEMPERATURES, by_user, calibrate, candidates
from dps_local.scoring.forked_sequences import ScoredText
from dps_local.scoring.held_out_losses import HeldOutLosses
from dps_local.scoring.intervals import simultaneous_t

TRIED = [NO_STEERING, Candidate("contrast", 1, 0.5), Candidate("amplify", None, 0.1)]
Array = NDArray[np.float64]


def table(plain: Array, *others: Array) -> Array:
    """Losses [n_items, n_candidates, n_temperatures] that do not depend on the temperature, 1.0 a shade better."""
    losses = np.stack([plain, *others], axis=1)[:, :, None] + 1e-6 * np.arange(len(TEMPERATURES))
    return np.asarray(losses)


def test_candidates_are_plain_contrasts_and_amplifications() -> None:
    assert candidates(11)[0] == NO_STEERING
    assert {c.heads for c in candidates(11)[1:] if c.mode == "contrast"} == {11}
    assert {c.mode for c in candidates(11)[1:]} == {"contrast", "amplify"}
    assert candidates(0)[0] == NO_STEERING
    assert {c.mode for c in candidates(0)[1:]} == {"amplify"}


def test_a_help_that_is_there_is_found_with_its_size() -> None:
    plain = np.linspace(3, 5, 12)
    gains = 0.2 + np.array([0.02, -0.02, 0.01, -0.01, 0, 0, 0.02, -0.02, 0.01, -0.01, 0, 0])
    calibration = calibrate(table(plain, plain - gains, plain + 0.1), TRIED)
    assert calibration.best == TRIED[1]
    assert calibration.helps
    assert calibration.gain == pytest.approx(0.2)
    below, above = simultaneous_t(np.stack([gains, np.full(12, -0.1)], axis=1))
    stderr = gains.std(ddof=1) / math.sqrt(12)
    assert calibration.high - calibration.gain == pytest.approx(above * stderr)
    assert calibration.gain - calibration.low == pytest.approx(below * stderr)
    assert calibration.n == 12
    assert calibration.more_messages is None
    bounds = f"[+{0.2 - below * stderr:.3f}, +{0.2 + above * stderr:.3f}]"
    assert str(calibration) == f"steering is worth +0.200 {bounds} nats a token on your writing"


def test_a_sure_small_gain_is_preferred_to_an_unsure_large_one() -> None:
    plain = np.full(12, 4.0)
    sure = 0.1 + 0.01 * np.array([1, -1] * 6)
    unsure = 0.2 + 0.4 * np.array([1, -1] * 6)
    calibration = calibrate(table(plain, plain - unsure, plain - sure), TRIED)
    assert calibration.best == TRIED[2]
    assert calibration.helps


def test_where_nothing_helps_it_stays_off() -> None:
    plain = np.array([3.0, 4.0, 5.0, 3.5])
    worse = np.array([0.1, 0.12, 0.1, 0.08])
    calibration = calibrate(table(plain, plain + worse, plain + 2 * worse), TRIED)
    assert calibration.best == TRIED[1]
    assert calibration.gain == pytest.approx(-0.1)
    assert not calibration.helps
    assert calibration.more_messages is None
    assert str(calibration).startswith("steering does not help on your writing (−0.100 [−0.")
    assert str(calibration).endswith(" nats a token); it stays off")


def test_a_few_items_prove_nothing() -> None:
    plain = np.full(4, 4.0)
    calibration = calibrate(table(plain, plain - np.array([0.3, 0.31, 0.29, 0.3])), TRIED[:2])
    assert not calibration.helps


def test_noise_is_seldom_taken_for_help() -> None:
    """The interval is two-sided, so that 2.5 % are to be expected."""
    rng = np.random.default_rng(0)
    helped = 0
    for _ in range(400):
        plain = rng.normal(4, 1, 10)
        others = [plain + rng.normal(0, 0.05, 10) for _ in range(20)]
        tried = [NO_STEERING, *(Candidate("contrast", i + 1, 0.5) for i in range(20))]
        helped += calibrate(table(plain, *others), tried).helps
    assert helped <= 0.05 * 400


def test_the_temperature_of_each_side_is_its_own() -> None:
    """Steering that only smooths is worth nothing against the plain model at its own best temperature."""
    n, t = 6, len(TEMPERATURES)
    plain = np.tile(3.8 + 0.1 * np.abs(np.arange(t) - 2), (n, 1))
    smooth = np.tile(3.8 + 0.1 * np.arange(t), (n, 1))
    calibration = calibrate(np.stack([plain, smooth], axis=1), TRIED[:2])
    assert calibration.gain == pytest.approx(0)
    assert calibration.plain_temperature == TEMPERATURES[2]
    assert not calibration.helps


def test_more_messages_are_promised_where_a_small_gain_needs_them() -> None:
    plain = np.full(8, 4.0)
    gains = np.array([0.2, -0.1, 0.15, -0.05, 0.1, 0.06, 0.2, -0.05])
    calibration = calibrate(table(plain, plain - gains, plain + 1), TRIED, messages_per_item=2.0)
    assert not calibration.helps
    assert calibration.gain == pytest.approx(gains.mean())
    assert calibration.more_messages is not None
    # with that many items, an interval that shrinks with their root lies above 0
    n = 8 + calibration.more_messages / 2
    assert calibration.gain == pytest.approx((calibration.gain - calibration.low) * math.sqrt(8 / n), rel=0.02)
    assert str(calibration).endswith(f"yet; it stays off; about {calibration.more_messages} more messages may tell")


def test_a_user_counts_once_however_many_items_there_are() -> None:
    losses = np.arange(5.0)[:, None, None] * np.ones((5, 2, len(TEMPERATURES)))
    means = by_user(losses, ["ada", "bob", "ada", "ada", "cyd"])
    assert means[:, 0, 0].tolist() == [pytest.approx(5 / 3), 1.0, 4.0]
    assert means.shape == (3, 2, len(TEMPERATURES))


def test_a_loss_is_written_with_a_minus_sign() -> None:
    calibration = Calibration(-0.004, -0.03, 0.022, 12, TRIED[1], 1.1, 1.1)
    assert (
        str(calibration)
        == "steering does not help on your writing (−0.004 [−0.030, +0.022] nats a token); it stays off"
    )
    assert calibration.sentence("hers").startswith("steering does not help on hers")


# --- on a model


@pytest.fixture
def model(tiny_model: TinyModel) -> Iterator[Model]:
    loaded = Model(tiny_model("gemma3"))
    yield loaded
    loaded.close()


@pytest.mark.parametrize("scope", ["generated", "all"])
def test_held_out_losses_are_what_separate_contexts_say(scope: Literal["generated", "all"], model: Model) -> None:
    text = ScoredText(list(b"Write to Sam about the shed."), list(b"No rush, love."))
    weights = np.random.default_rng(0).uniform(-1, 1, (model.n_layer, model.n_head_max)).astype(np.float32)
    tried = candidates(3)
    chosen = [(0, 1), (2, 0), (1, 1)]
    steerings = [candidate.steering(model, chosen, weights, scope) for candidate in tried]
    held_out = HeldOutLosses(model, [text], scope, n_threads=1)
    losses = held_out.of(text, steerings)
    assert np.array_equal(held_out.of(text, steerings), losses)
    held_out.close()

    def logits(scale: NDArray[np.float32] | None) -> Array:
        context = Context(model, 256, n_outputs=32, n_threads=1, flash_attn=False)
        context.set_head_scales(0, scale if scope == "all" else None)
        context.decode([Run(0, 0, text.prompt[:-1])])
        context.set_head_scales(0, scale)
        tokens = [text.prompt[-1], *text.target[:-1]]
        rows = context.decode([Run(0, len(text.prompt) - 1, tokens, len(tokens))]).astype(np.float64)
        context.close()
        return rows

    def nll(rows: Array, temperature: float) -> float:
        rows = rows / temperature
        return float((np.log(np.exp(rows).sum(axis=1)) - rows[np.arange(len(rows)), text.target]).mean())

    full = logits(None)
    for i, candidate in enumerate(tried):
        if candidate.mode == "contrast":
            mixed = full + candidate.gamma * (full - logits(head_mask(model, chosen[: candidate.heads])))
        else:
            mixed = logits((1 + candidate.gamma * weights).astype(np.float32))
        expected = [nll(mixed, t) for t in TEMPERATURES]
        assert losses[i] == pytest.approx(expected, abs=2e-4), candidate
    assert losses[0, 0] != pytest.approx(losses[-1, 0], abs=1e-3)


def test_what_steers_by_nothing_takes_no_stream_of_its_own(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its losses are those of a stream whose heads are scaled by 1, bit for bit; and three others fit into one call."""
    text = ScoredText(list(b"Write to Sam about the shed."), list(b"No rush, love."))
    weights = np.random.default_rng(0).uniform(-1, 1, (model.n_layer, model.n_head_max)).astype(np.float32)
    steerings = [candidate.steering(model, [], weights, "generated") for candidate in candidates(0)]
    calls, decode = list[int](), Context.decode

    def counted(context: Context, runs: Sequence[Run]) -> NDArray[np.float32]:
        calls.append(sum(run.n_logits for run in runs))
        return decode(context, runs)

    held_out = HeldOutLosses(model, [text], n_threads=1)
    monkeypatch.setattr(Context, "decode", counted)
    losses = held_out.by_token(text, steerings)
    assert [n for n in calls if n] == [4 * len(text.target)]
    assert np.array_equal(held_out.by_token(text, steerings[:1])[0], losses[0])
    ones = np.ones_like(weights)
    with monkeypatch.context() as patched:
        patched.setattr(HeldOutLosses, "_decode", lambda self, text, _: _one_scale(self, text, ones))
        assert np.array_equal(held_out.by_token(text, steerings[1:2])[0], losses[0])
    held_out.close()


def _one_scale(held_out: HeldOutLosses, text: ScoredText, scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the logits of the plain model and of a stream with this scale."""
    held_out.sequences.read(text)
    with held_out.sequences.context.head_scales({2: scale}):
        rows = held_out.sequences.context.decode(held_out.sequences.runs(text, 4))
    return rows.reshape(4, len(text.target), -1)


def test_what_is_known_is_added_to_what_was_measured_each_by_its_precision() -> None:
    plain = np.linspace(3, 5, 12)
    gains = 0.1 + 0.05 * np.array([1, -1] * 6)
    losses = table(plain, plain + 0.3, plain - gains)
    alone = calibrate(losses, TRIED)
    below, _ = simultaneous_t(np.stack([np.full(12, -0.3), gains], axis=1))
    error = below * gains.std(ddof=1) / math.sqrt(12) / 1.96
    known = calibrate(losses, TRIED, expected=[None, (-0.2, 0.1)])
    mean = (0.1 / error**2 - 0.2 / 0.1**2) / (1 / error**2 + 1 / 0.1**2)
    deviation = (1 / error**2 + 1 / 0.1**2) ** -0.5
    assert known.probability == pytest.approx(0.5 + 0.5 * math.erf(mean / deviation / math.sqrt(2)))
    assert (known.gain, known.low, known.high) == (alone.gain, alone.low, alone.high)


def test_few_items_leave_the_decision_to_what_is_known() -> None:
    plain = np.linspace(3, 5, 3)
    losses = table(plain, plain + 0.1, plain + 0.1 * np.array([1, 0, -1]))
    assert not calibrate(losses, TRIED).helps
    known = calibrate(losses, TRIED, expected=[None, (0.1, 0.02)])
    assert known.best == TRIED[2]
    assert known.helps
    assert known.probability == pytest.approx(1, abs=1e-3)
    assert not calibrate(losses, TRIED, expected=[None, (0.02, 0.1)]).helps


def test_a_promise_does_not_overrule_a_loss_that_was_measured() -> None:
    plain = np.linspace(3, 5, 12)
    losses = table(plain, plain + 0.3, plain + 0.013 + 0.05 * np.array([1, -1] * 6))
    promised = calibrate(losses, TRIED, expected=[None, (0.05, 0.01)])
    assert promised.best == TRIED[2]
    assert promised.gain == pytest.approx(-0.013)
    assert promised.probability is not None
    assert promised.probability < 0.5
    assert not promised.helps
