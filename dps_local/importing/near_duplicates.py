"""Near-duplicates among many texts: MinHash finds those that may be alike, Jaccard's index of their words decides."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

ALIKE = 0.7  # of the runs of words that two texts have, so many are in both
RUN = 3  # words
BANDS, ROWS = 12, 2  # two texts of ALIKE share a band with probability 1 - (1 - 0.7²)¹² > 0.999
_PRIME = (1 << 31) - 1
_A, _B = np.random.default_rng(0).integers(1, _PRIME, (2, BANDS * ROWS, 1), dtype=np.int64)
Runs = NDArray[np.int32]  # hashes of a text's runs of words, each once, in less memory than a set


def near_duplicates(texts: Iterable[str]) -> set[int]:
    """Return the indices of texts that are nearly a text before them."""
    bands: dict[int, list[int]] = {}
    kept: dict[int, Runs] = {}
    found = set()
    for i, text in enumerate(texts):
        runs = _runs(text)
        keys = _keys(runs)
        candidates = {other for key in keys for other in bands.get(key, ())}
        if any(_jaccard(runs, kept[other]) >= ALIKE for other in candidates):
            found.add(i)
            continue
        kept[i] = runs
        for key in keys:
            bands.setdefault(key, []).append(i)
    return found


def _runs(text: str) -> Runs:
    words = re.findall(r"\w+", text.casefold()) or [text]
    run = min(RUN, len(words))
    runs = {" ".join(words[i : i + run]) for i in range(len(words) - run + 1)}
    return np.unique(np.array([zlib.crc32(r.encode(errors="replace")) % _PRIME for r in runs], np.int32))


def _jaccard(one: Runs, other: Runs) -> float:
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / (len(one) + len(other) - both)


def _keys(runs: Runs) -> list[int]:
    least = ((_A * runs.astype(np.int64) + _B) % _PRIME).min(axis=1).reshape(BANDS, ROWS)
    return [hash((band, *pair)) for band, pair in enumerate(least.tolist())]
