from __future__ import annotations

import math

import numpy as np
import pytest

from dps_local.maps.quadratic_error import QuadraticError


def error(gammas: list[float], means: list[float], deviations: list[float]) -> QuadraticError:
    return QuadraticError(*(np.array(part, np.float32) for part in (gammas, means, deviations)))


def test_between_lengths_it_is_on_a_straight_line_from_nothing() -> None:
    found = error([0.25, 0.5], [-0.125, -0.5], [0.0625, 0.25])
    assert found.longest == 0.5
    assert found.at(0.0) == (0, 0)
    assert found.at(0.125) == pytest.approx((-0.0625, 0.03125))
    assert found.at(0.25) == pytest.approx((-0.125, 0.0625))
    assert found.at(0.375) == pytest.approx((-0.3125, 0.15625))
    assert found.at(0.5) == pytest.approx((-0.5, 0.25))


@pytest.mark.parametrize(
    ("gammas", "means", "deviations"),
    [
        ([], [], []),
        ([0.2, 0.2], [0, 0], [0, 0]),
        ([0.0, 0.2], [0, 0], [0, 0]),
        ([0.2], [0, 0], [0]),
        ([0.2], [math.nan], [0]),
    ],
    ids=str,
)
def test_numbers_that_do_not_go_together_are_refused(
    gammas: list[float], means: list[float], deviations: list[float]
) -> None:
    with pytest.raises(ValueError, match=r"^(parts are of other sizes|a number is not finite|lengths do not rise)$"):
        error(gammas, means, deviations)
