"""Models that stay open from one test to the next."""

from __future__ import annotations

import functools
from pathlib import Path

from dps_local.engine.model import Model


@functools.cache
def shared(path: Path) -> Model:
    """Return a model for tests that only make contexts over it."""
    return Model(path)
