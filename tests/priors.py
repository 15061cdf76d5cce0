"""A prior that is typed by hand, and whether two are the same."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from dps_local.maps.fisher import Fisher
from dps_local.maps.population import Population
from dps_local.maps.prior import Prior
from dps_local.maps.quadratic_error import QuadraticError


def row(*numbers: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array(numbers, np.float32)


POPULATION = Population(
    mu=row(0.5, -0.25, 0.125),
    fisher=Fisher(row(1, 0, 0.5), np.array([[1, 2, 0], [0, 1, -1]], np.float32), 0.0625),
    dispersion=1.5,
    spread=0.03,
    directions=np.array([[1, 0, 0], [0, 0.5, 0.25]], np.float32),
    lambdas=row(0.25, 0.125),
)
PRIOR = Prior(
    model="Tiny",
    architecture="llama",
    fingerprint="0123456789abcdef" * 4,
    scope="generated",
    writing="mail",
    source="Letters of nobody, 1926",
    licence="CC0-1.0",
    people=12,
    texts=340,
    tokens=9000,
    nll=3.5,
    n_heads=(2, 0, 1),
    population=POPULATION,
    error=QuadraticError(row(0.25, 0.5), row(-0.125, -0.25), row(0.0625, 0.5)),
)


def assert_same(one: Any, other: Any) -> None:
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, np.ndarray):
            assert (a.dtype, a.shape) == (b.dtype, b.shape), field.name
            np.testing.assert_array_equal(a, b)
        elif isinstance(a, Population | Fisher | QuadraticError):
            assert_same(a, b)
        else:
            assert a == b, field.name
