"""`SlopeStore`: the slopes of one text, kept so that a run can be taken up, and only new texts are differentiated."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dps_local.scoring.forked_sequences import ScoredText
from dps_local.scoring.slopes import Slopes, joined
from dps_local.system.files import atomic_write

FORMAT = 1
DIGEST = hashlib.sha256().digest_size


class SlopeStore:
    """A folder with one small file for each text, under a hash of all that its numbers depend on.

    A file is the SHA-256 of its numbers, then these as F32 [n_samples + 2, n_heads]: the NLL (and zeros), the slopes,
    and those of the samples. Files are replaced whole, and the text itself is not in them.
    """

    def __init__(self, folder: Path, n_heads: int, n_samples: int, *depends_on: Any) -> None:
        self.folder, self.n_heads, self.n_samples = folder, n_heads, n_samples
        self.depends_on = [FORMAT, n_samples, *depends_on]

    def path(self, text: ScoredText) -> Path:
        key = json.dumps([*self.depends_on, text.prompt, text.target])
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.f32"

    def load(self, text: ScoredText) -> Slopes | None:
        """Return the slopes of one text; None where its file is missing or damaged."""
        try:
            data = self.path(text).read_bytes()
        except OSError:
            return None
        digest, numbers = data[:DIGEST], data[DIGEST:]
        if hashlib.sha256(numbers).digest() != digest or len(numbers) != 4 * self.n_heads * (self.n_samples + 2):
            return None
        rows = np.frombuffer(numbers, np.float32).reshape(-1, self.n_heads).copy()
        tokens, nll = np.array([len(text.target)], np.int64), rows[:1, 0].astype(np.float64)
        return Slopes(rows[1:2], tokens, nll, rows[None, 2:])

    def save(self, texts: Sequence[ScoredText], slopes: Slopes) -> None:
        for i, text in enumerate(texts):
            nll = np.zeros(self.n_heads, np.float32)
            nll[0] = slopes.nll[i]
            numbers = np.vstack([nll, slopes.slopes[i], slopes.samples[i]]).astype(np.float32).tobytes()
            with atomic_write(self.path(text)) as stream:
                stream.write(hashlib.sha256(numbers).digest())
                stream.write(numbers)

    def load_all(self, texts: Sequence[ScoredText]) -> Slopes | None:
        """Return the slopes of texts that are all known, None otherwise."""
        known = [self.load(text) for text in texts]
        return joined([slopes for slopes in known if slopes]) if known and all(known) else None
