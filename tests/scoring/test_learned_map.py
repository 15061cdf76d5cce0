"""Which of two head maps is shown to be worth more."""

from __future__ import annotations

import pytest

from dps_local.maps.calibration import Calibration, Candidate
from dps_local.scoring.learned_map import no_worse


def worth(low: float, gain: float, high: float, probability: float | None = None) -> Calibration:
    return Calibration(gain, low, high, 12, Candidate("amplify", None, 0.4), 1.0, 1.0, probability=probability)


OFF, WEAK, STRONG = worth(-0.02, 0.03, 0.08), worth(0.01, 0.05, 0.09), worth(0.02, 0.04, 0.06)
LIKELY, UNLIKELY = worth(-0.03, 0.02, 0.07, 0.95), worth(0.001, 0.02, 0.07, 0.6)  # by what is known beside


@pytest.mark.parametrize(
    ("new", "before"),
    [
        *((STRONG, WEAK), (STRONG, OFF), (WEAK, OFF), (WEAK, None), (OFF, None), (None, None), (WEAK, WEAK)),
        *((LIKELY, OFF), (LIKELY, UNLIKELY), (STRONG, LIKELY)),
    ],
)
def test_help_that_is_shown_comes_first_and_then_the_lower_bound(
    new: Calibration | None, before: Calibration | None
) -> None:
    assert no_worse(new, before)
    assert no_worse(before, new) == (new is before)
