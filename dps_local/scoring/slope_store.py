"""`SlopeStore`: the slopes of one text, kept so that a run can be taken up, and only new texts are differentiated."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dps_local.scoring.forked_sequences import ScoredText
from dps_local.scoring.slopes import Slopes
from dps_local.system.sealed_file import load_sealed, save_sealed

FORMAT = 1


class SlopeStore:
    """A folder with one small sealed file for each text, under a hash of all that its numbers depend on.

    It holds F32 [n_samples + 2, n_heads]: the NLL (and zeros), the slopes, and those of the samples; not the text.
    """

    def __init__(self, folder: Path, n_heads: int, n_samples: int, *depends_on: Any) -> None:
        self.folder, self.n_heads, self.n_samples = folder, n_heads, n_samples
        self.depends_on = [FORMAT, n_samples, *depends_on]

    def path(self, text: ScoredText) -> Path:
        key = json.dumps([*self.depends_on, text.prompt, text.target])
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.f32"

    def load(self, text: ScoredText) -> Slopes | None:
        """Return the slopes of one text; None where its file is missing or damaged."""
        numbers = load_sealed(self.path(text))
        if numbers is None or len(numbers) != 4 * self.n_heads * (self.n_samples + 2):
            return None
        rows = np.frombuffer(numbers, np.float32).reshape(-1, self.n_heads).copy()
        tokens, nll = np.array([len(text.target)], np.int64), rows[:1, 0].astype(np.float64)
        return Slopes(rows[1:2], tokens, nll, rows[None, 2:])

    def save(self, texts: Sequence[ScoredText], slopes: Slopes) -> None:
        for i, text in enumerate(texts):
            nll = np.zeros(self.n_heads, np.float32)
            nll[0] = slopes.nll[i]
            rows = np.vstack([nll, slopes.slopes[i], slopes.samples[i]])
            save_sealed(self.path(text), rows.astype(np.float32).tobytes())
