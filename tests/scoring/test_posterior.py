"""A person's step: what others tell and own text tells, against least squares, closed forms and people made up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from people import F, exact, population, texts, written

from dps_local.errors import DataError
from dps_local.maps.fisher import Fisher
from dps_local.scoring.intervals import probability_above_0
from dps_local.scoring.people import RIDGES, dispersion_of, fisher_of, population_of
from dps_local.scoring.posterior import own_alone, posterior
from dps_local.scoring.slopes import Slopes, joined

Array = NDArray[np.float64]
OWN = texts([[3.0, 1.0, -2.0], [1.0, 0.0, 4.0]], [7, 5])


# --- one kind


def test_a_posterior_is_that_of_the_issue() -> None:
    """δ = (N·F + Λ)⁻¹(N·g + Λ·prior), written out."""
    others = population()
    precision = 1.5 * np.linalg.inv(others.covariance)
    g = np.array([4.0, 1.0, 2.0]) / 12
    matrix = others.fisher.matrix
    expected = np.linalg.solve(12 * matrix + precision, 12 * g + precision @ others.step)
    found = posterior(others, OWN)
    assert found.step == pytest.approx(expected, abs=1e-6)
    assert found.covariance == pytest.approx(1.5 * np.linalg.inv(12 * matrix + precision), abs=1e-6)


def test_a_posterior_is_least_squares_with_the_prior_as_more_rows() -> None:
    others = population()
    root, of_prior = np.linalg.cholesky(F * 12 / 1.5).T, np.linalg.cholesky(np.linalg.inv(others.covariance)).T
    own_best = np.linalg.solve(F, np.array([4.0, 1.0, 2.0]) / 12)
    rows, targets = np.vstack([root, of_prior]), np.concatenate([root @ own_best, of_prior @ others.step])
    expected = np.linalg.lstsq(rows, targets, rcond=None)[0]
    assert posterior(others, OWN).step == pytest.approx(expected, abs=1e-5)


def test_without_own_text_the_posterior_is_the_prior() -> None:
    others = population()
    for own in (None, texts(np.zeros((0, 3)))):
        found = posterior(others, own)
        assert (found.step == others.step).all()
        assert (found.covariance == others.covariance).all()


def test_a_step_of_the_prior_is_the_newton_step_of_the_mean_slopes() -> None:
    assert F @ population().step == pytest.approx([0.5, -0.25, 0.125], rel=0.05)


@pytest.mark.parametrize("n", [1e7])
def test_with_much_own_text_nothing_of_the_prior_is_left(n: float) -> None:
    own = texts([[0.3 * n, 0.1 * n, -0.2 * n]], [int(n)])
    found = posterior(population(), own)
    assert found.step == pytest.approx(np.linalg.solve(F, [0.3, 0.1, -0.2]), abs=1e-3)
    assert np.abs(found.covariance).max() < 1e-5


def test_little_own_text_hardly_moves_the_prior() -> None:
    others = population(spread=1e-6, lambdas=np.zeros(2, np.float32))
    assert posterior(others, OWN).step == pytest.approx(others.step, abs=1e-4)


def test_people_who_do_not_differ_are_the_prior() -> None:
    others = population(spread=0.0, lambdas=np.zeros(2, np.float32))
    assert posterior(others, OWN).step == pytest.approx(others.step)


def test_own_text_moves_the_step_only_where_people_differ() -> None:
    others = population(spread=0.0)
    moved = posterior(others, OWN).step - others.step
    assert np.linalg.lstsq(others.directions.T, moved, rcond=None)[1] == pytest.approx(0, abs=1e-12)
    assert np.abs(moved).max() > 0.1


@given(st.lists(st.floats(-2, 2), min_size=3, max_size=3))
def test_no_step_is_expected_to_gain_more_than_the_posteriors(other: list[float]) -> None:
    found = posterior(population(), OWN)
    assert found.gain(np.array(other))[0] <= found.gain(found.step)[0] + 1e-9


def test_the_gain_and_its_probability_are_those_of_drawn_people() -> None:
    found = posterior(population(), OWN)
    delta = 1.9 * found.step
    best = np.random.default_rng(0).multivariate_normal(found.step, found.covariance, 200_000)
    gains = best @ F @ delta - delta @ F @ delta / 2
    mean, deviation = found.gain(delta)
    assert mean == pytest.approx(gains.mean(), abs=0.02 * gains.std())
    assert deviation == pytest.approx(gains.std(), rel=0.02)
    assert 0.1 < probability_above_0(mean, deviation) < 0.9
    assert probability_above_0(mean, deviation) == pytest.approx((gains > 0).mean(), abs=0.01)
    assert probability_above_0(*found.gain(np.zeros(3))) == 0


# --- own text alone


def test_own_text_alone_is_the_newton_step_shrunk_by_its_noise() -> None:
    own = written(np.random.default_rng(1), np.array([0.4, -0.3, 0.5]), F, 300, 20)
    fisher = fisher_of([own.one(i) for i in range(300)])
    matrix, ridged, g, n = fisher.matrix, fisher.ridged, own.slopes.sum(axis=0) / 6000, 6000
    traced = np.trace(np.linalg.solve(ridged, matrix))
    scatter = own.slopes - 20 * g
    dispersion = np.trace(np.linalg.solve(ridged, scatter.T @ scatter)) / 20 / 299 / traced
    spread = (g @ np.linalg.solve(ridged, g) - dispersion * traced / n) / 3
    expected = np.linalg.solve(ridged, g) / (1 + dispersion / n / spread)
    assert own_alone(own).step == pytest.approx(expected, rel=1e-4)
    assert own_alone(own).step == pytest.approx([0.4, -0.3, 0.5], abs=0.2)  # the ridge makes it shorter


def test_own_text_that_is_all_noise_steers_by_nothing() -> None:
    own = written(np.random.default_rng(3), np.zeros(3), F, 40, 20)
    balanced = replace(own, slopes=own.slopes - own.slopes.mean(axis=0))
    assert np.abs(own_alone(balanced).step).max() < 1e-6


# --- what people make


def people(rng: np.random.Generator, n: int, spread: float, dispersion: float = 1.0, n_texts: int = 20) -> list[Slopes]:
    mean = np.linalg.solve(F, [0.5, -0.25, 0.125])
    steps = rng.multivariate_normal(mean, spread * np.linalg.inv(F), n)
    return [written(rng, step, F, n_texts, 30, dispersion) for step in steps]


def test_a_population_is_the_one_that_people_were_drawn_from() -> None:
    found = population_of(people(np.random.default_rng(0), 400, 0.09, 1.7))
    assert found.mu == pytest.approx([0.5, -0.25, 0.125], abs=0.06)
    assert found.fisher.matrix == pytest.approx(F, abs=0.06)
    assert found.dispersion == pytest.approx(1.7, rel=0.05)
    assert found.covariance == pytest.approx(0.09 * np.linalg.inv(F), abs=0.05)


def test_texts_of_people_who_do_not_differ_show_no_spread() -> None:
    found = population_of(people(np.random.default_rng(1), 60, 0.0))
    assert found.covariance == pytest.approx(0 * F, abs=3e-3)


def test_few_people_are_taken_to_differ_alike_in_every_direction() -> None:
    """Of 3 people in 40 dimensions, at most 3 of 43 parts of what they differ by are taken for their directions."""
    rng = np.random.default_rng(2)
    many = np.eye(40)
    found = population_of([written(rng, 0.1 * rng.standard_normal(40), many, 50, 30) for _ in range(3)], exact(many))
    trace = 40 * found.spread + float(found.lambdas[1:].sum())
    assert found.spread * 40 == pytest.approx(trace * 40 / 43, rel=1e-5)
    assert len(found.lambdas) == 3


def test_directions_have_length_1_and_stand_at_right_angles_where_f_is_the_unit() -> None:
    found = population_of(people(np.random.default_rng(3), 12, 0.2))
    directions = found.directions[1:].astype(np.float64)
    gram = directions @ found.fisher.ridged @ directions.T
    assert gram[:3, :3] == pytest.approx(np.eye(3), abs=1e-4)
    along = found.directions[0] / np.linalg.norm(found.directions[0])
    assert along == pytest.approx(found.step / np.linalg.norm(found.step), abs=1e-5)


def test_a_mean_step_promises_what_a_new_person_gains() -> None:
    """Eight heads, 6 people at a time: the promise of the unshrunk mean is twice as far off."""
    rng, n = np.random.default_rng(4), 8
    truth, promised, unshrunk, got = np.eye(n), [], [], []
    for _ in range(300):
        steps = 0.25 * np.ones(n) / np.sqrt(n) + 0.15 * rng.standard_normal((7, n))
        known = [written(rng, step, truth, 10, 40) for step in steps[:6]]
        found = population_of(known, exact(truth))
        delta = found.step
        promised.append(posterior(found).gain(delta)[0])
        mean = np.mean([person.mean for person in known], axis=0)
        unshrunk.append(mean @ mean / 2)
        got.append(delta @ steps[6] - delta @ delta / 2)
    assert np.mean(promised) == pytest.approx(np.mean(got), abs=0.006)
    assert np.mean(unshrunk) > np.mean(got) + 0.01


def test_a_ridge_and_a_scale_are_those_that_hold_for_people_held_out() -> None:
    """Thirty heads, F from 48 texts: without people held out it is far too small along its own steps."""
    rng, n = np.random.default_rng(6), 30
    turned = np.linalg.qr(rng.standard_normal((n, n)))[0]
    truth = turned @ np.diag(np.geomspace(1, 0.001, n)) @ turned.T
    mean = 0.3 * rng.standard_normal(n)
    ratios, plain = [], []
    for _ in range(12):
        some = [written(rng, mean, truth, 2, 30) for _ in range(12)]
        found, mu = fisher_of(some), np.mean([person.mean for person in some], axis=0)
        step = found.inverse @ mu
        ratios.append(step @ truth @ step / found.length(step) ** 2)
        unscaled = Fisher.from_scores(*joined(some).scores, 0.01)
        step = unscaled.inverse @ mu
        plain.append(step @ truth @ step / unscaled.length(step) ** 2)
    assert np.mean(ratios) == pytest.approx(1, abs=0.15)
    assert np.mean(plain) > 1.5


def test_a_person_has_no_part_in_the_step_that_is_tried_on_them() -> None:
    """Two people of opposite slopes: what either one's step gains the other is negative, so all ridges are alike."""
    one = people(np.random.default_rng(7), 1, 0.0)[0]
    found = fisher_of([one, replace(one, slopes=-one.slopes)])
    mean_of_diagonal = float(np.trace(found.matrix)) / 3
    assert found.ridge / mean_of_diagonal == pytest.approx(RIDGES[-1], rel=1e-4)


def test_people_without_text_do_not_count() -> None:
    some = people(np.random.default_rng(5), 4, 0.1)
    nobody = texts(np.zeros((0, 3)))
    nobody = replace(nobody, samples=np.empty((0, 2, 3), np.float32))
    assert (population_of([*some, nobody]).mu == population_of(some).mu).all()
    with pytest.raises(DataError, match=r"^a prior needs texts of 3 people or more, and there are 2: give more files$"):
        population_of([*some[:2], nobody])


def test_a_dispersion_is_1_where_nobody_has_two_texts() -> None:
    assert dispersion_of([texts([[1.0, 2.0, 3.0]])], exact(F)) == 1


def test_a_dispersion_is_the_scatter_of_texts_by_that_of_the_model() -> None:
    """Two texts of a token that lie 2 apart, where F says 1: a variance of 2."""
    fisher = Fisher(np.ones(1, np.float32), np.zeros((1, 1), np.float32), 1e-9)
    assert dispersion_of([texts([[1.0], [3.0]])], fisher) == pytest.approx(2)
