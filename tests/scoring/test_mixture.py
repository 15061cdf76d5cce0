"""Which kind of writing a person's text is, against people drawn from each, and densities by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from people import F, exact, population, texts, written

from dps_local.maps.fisher import Fisher
from dps_local.maps.population import Population
from dps_local.scoring.intervals import probability_above_0
from dps_local.scoring.mixture import log_density, mixture, something_else
from dps_local.scoring.posterior import posterior

MAIL = population()
NEWS = population(mu=np.array([-0.25, 0.5, 0.5], np.float32))
OWN = texts([[3.0, 1.0, -2.0], [1.0, 0.0, 4.0]], [7, 5])


def test_a_probability_is_as_often_right() -> None:
    """9,000 people of three populations, 12 tokens of each: of those that are mail with 30 %, 30 % write mail."""
    rng, n = np.random.default_rng(0), 3000
    populations = [MAIL, NEWS, something_else([MAIL, NEWS])]
    mail = list[float]()
    for one in populations:
        steps = rng.multivariate_normal(one.step, one.covariance, n)
        noise = rng.multivariate_normal(np.zeros(3), one.dispersion / 12 * one.fisher.matrix, n)
        for g in steps @ one.fisher.matrix + noise:
            mail.append(float(mixture([MAIL, NEWS], texts([(12 * g).tolist()], [12])).probabilities[0]))
    found, right = np.array(mail), np.arange(3 * n) < n
    for low, high in ((0.0, 0.1), (0.1, 0.3), (0.3, 0.5), (0.5, 0.7), (0.7, 1.0)):
        those = (found >= low) & (found < high)
        error = 4 * math.sqrt(0.25 / those.sum())
        assert right[those].mean() == pytest.approx(found[those].mean(), abs=error)
    assert found[:n].mean() > 2 * found[n:].mean()


def test_a_density_is_that_of_a_normal_number_by_hand() -> None:
    """F = 4, μ = 2: a step of ½, slope 1 along it; people differ by 0.09 and 24 tokens by 2/24 of F."""
    fisher = Fisher(np.full(1, 4, np.float32), np.zeros((1, 1), np.float32), 1e-9)
    kind = Population(
        np.full(1, 2, np.float32), fisher, 2.0, 0.09, np.empty((0, 1), np.float32), np.empty(0, np.float32)
    )
    own = texts([[30.0], [42.0]], [12, 12])
    slope = NormalDist(1.0, math.sqrt((0.5 * 4) ** 2 * 0.09 / 4 + 2 / 24 * 0.5 * 4 * 0.5))
    assert log_density(kind, [kind.step], own) == pytest.approx(math.log(slope.pdf(0.5 * 3)), rel=1e-4)
    nothing = NormalDist(0.0, math.sqrt(1 + (0.5 * 4) ** 2 * 0.09 / 4 + 2 / 24 * 0.5 * 4 * 0.5))
    assert log_density(something_else([kind]), [kind.step], own) == pytest.approx(math.log(nothing.pdf(1.5)), rel=1e-4)


def test_much_text_tells_kinds_apart() -> None:
    rng = np.random.default_rng(0)
    sharp = [replace(kind, spread=0.001, lambdas=np.full(2, 0.001, np.float32)) for kind in (MAIL, NEWS)]
    for i, kind in enumerate(sharp):
        own = written(rng, kind.step, F, 40, 30)
        found = mixture(sharp, own)
        assert found.probabilities[i] > 0.95
        assert found.posterior.step == pytest.approx(posterior(kind, own).step, abs=0.02)
        assert found.posterior.covariance == pytest.approx(posterior(kind, own).covariance, abs=0.02)


def test_a_kind_that_comes_twice_counts_twice_and_breaks_nothing() -> None:
    first, second, _ = mixture([MAIL, MAIL], OWN).probabilities
    assert first == pytest.approx(second)


def test_kinds_without_a_step_are_alike() -> None:
    none = replace(MAIL, mu=np.zeros(3, np.float32))
    assert mixture([none], OWN).probabilities == pytest.approx([0.5, 0.5])


def test_without_own_text_the_step_is_short() -> None:
    found = mixture([MAIL, NEWS])
    assert found.probabilities == pytest.approx([1 / 3] * 3)
    assert found.posterior.step == pytest.approx((MAIL.step + NEWS.step) / 3)
    surely = probability_above_0(*posterior(MAIL).gain(MAIL.step))
    assert probability_above_0(*found.posterior.gain(found.posterior.step)) < surely


def test_who_writes_something_else_goes_as_far_along_each_kind_as_their_text_shows() -> None:
    sharp = [replace(kind, spread=0.0, lambdas=np.zeros(2, np.float32)) for kind in (MAIL, NEWS)]
    own = written(np.random.default_rng(1), -0.75 * MAIL.step + 0.5 * NEWS.step, F, 40, 30)
    found = mixture(sharp, own)
    assert found.probabilities[-1] > 0.999
    assert found.posterior.step == pytest.approx(-0.75 * MAIL.step + 0.5 * NEWS.step, abs=0.1)


def test_a_mixture_has_the_mean_and_the_covariance_of_what_is_drawn_from_it() -> None:
    own = texts([[3.0, 3.0, 3.0]], [12])
    found = mixture([MAIL, NEWS], own)
    assert found.probabilities.min() > 0.01
    rng = np.random.default_rng(2)
    parts = [posterior(kind, own) for kind in (MAIL, NEWS, something_else([MAIL, NEWS]))]
    counts = rng.multinomial(200_000, found.probabilities)
    drawn = [rng.multivariate_normal(one.step, one.covariance, n) for one, n in zip(parts, counts, strict=True)]
    steps = np.concatenate(drawn)
    assert found.posterior.step == pytest.approx(steps.mean(axis=0), abs=0.01)
    assert found.posterior.covariance == pytest.approx(np.cov(steps.T), abs=0.01)


def test_a_mixture_of_one_kind_has_its_fisher_matrix() -> None:
    other = population(fisher=exact(2 * F))
    assert mixture([MAIL], OWN).posterior.fisher.matrix == pytest.approx(F, abs=1e-6)
    assert mixture([MAIL, other]).posterior.fisher.matrix == pytest.approx(1.5 * F, abs=1e-6)
