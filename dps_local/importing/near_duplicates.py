"""Near-duplicates among many texts: MinHash finds those that may be alike, Jaccard's index of their words decides."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ALIKE = 0.7  # of the runs of words that two texts have, so many are in both
RUN = 3  # words
BANDS, ROWS = 16, 2  # two texts of ALIKE share a band with probability 1 - (1 - 0.7²)¹⁶ > 0.9999
_PRIME = (1 << 31) - 1
_RNG = np.random.default_rng(0)
_A, _B = _RNG.integers(1, _PRIME, (2, BANDS * ROWS, 1), dtype=np.int64)


def near_duplicates(texts: Sequence[str]) -> set[int]:
    """Return the indices of texts that are nearly a text before them."""
    bands: dict[tuple[int, int, int], list[int]] = {}
    kept: dict[int, frozenset[int]] = {}
    found = set()
    for i, text in enumerate(texts):
        runs = _runs(text)
        keys = _keys(runs)
        candidates = {other for key in keys for other in bands.get(key, ())}
        if any(len(runs & kept[other]) >= ALIKE * len(runs | kept[other]) for other in candidates):
            found.add(i)
            continue
        kept[i] = runs
        for key in keys:
            bands.setdefault(key, []).append(i)
    return found


def _runs(text: str) -> frozenset[int]:
    words = re.findall(r"\w+", text.casefold()) or [text]
    run = min(RUN, len(words))
    return frozenset(
        zlib.crc32(" ".join(words[i : i + run]).encode(errors="replace")) for i in range(len(words) - run + 1)
    )


def _keys(runs: frozenset[int]) -> list[tuple[int, int, int]]:
    numbers: NDArray[np.int64] = np.fromiter(runs, np.int64, len(runs)) % _PRIME
    least = ((_A * numbers + _B) % _PRIME).min(axis=1).reshape(BANDS, ROWS)
    return [(band, int(a), int(b)) for band, (a, b) in enumerate(least)]
