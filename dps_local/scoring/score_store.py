"""`ScoreStore`: what was measured of one text, kept so that a run can be taken up, and only new texts are scored."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dps_local.scoring.head_effects import Effects
from dps_local.system.files import atomic_write
from dps_local.system.sealed_file import load_sealed, save_sealed

FORMAT = 2
_NAME = re.compile(r"[0-9a-f]{32}\.f64")


class Measured:
    """What is known of a text: its NLL with all heads, the null control, the effects of the heads evaluated so far.

    effects: F64 [n_heads, 3], NaN where a head is not evaluated. null: largest effect of an intervention that changes
    nothing.
    """

    def __init__(self, n_heads: int) -> None:
        self.nll, self.null = math.nan, 0.0
        self.effects = np.full((n_heads, 3), np.nan)

    def missing(self, heads: Sequence[int]) -> bool:
        """Whether some of `heads` (numbers) are not evaluated yet."""
        return bool(np.isnan(self.effects[heads]).any())

    def effects_of(self, heads: Sequence[int]) -> Effects:
        """Return the effects of `heads`, with NaN for all others, evaluated or not."""
        effects = np.full_like(self.effects, np.nan)
        effects[heads] = self.effects[heads]
        return effects


class ScoreStore:
    """A folder with one small file for each text, under a hash of all that its numbers depend on.

    A file is the SHA-256 of its numbers, then these as F64 [n_heads + 1, 3]: NLL, null control and 0, then the effects.
    Files are replaced whole, so runs at the same time do not disturb each other, and the text itself is not in them.
    """

    def __init__(self, folder: Path, n_heads: int, *depends_on: Any) -> None:
        self.folder, self.n_heads, self.depends_on = folder, n_heads, [FORMAT, *depends_on]

    def path(self, text: Any) -> Path:
        key = json.dumps([*self.depends_on, text])
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.f64"

    def load(self, text: Any) -> Measured:
        """Return what is known of a text: nothing, where its file is missing or damaged."""
        measured = Measured(self.n_heads)
        numbers = load_sealed(self.path(text))
        if numbers is None or len(numbers) != 8 * 3 * (self.n_heads + 1):
            return measured
        rows = np.frombuffer(numbers, np.float64).reshape(-1, 3).copy()
        measured.nll, measured.null, measured.effects = float(rows[0, 0]), float(rows[0, 1]), rows[1:]
        return measured

    def save(self, text: Any, measured: Measured) -> None:
        save_sealed(self.path(text), np.vstack([[measured.nll, measured.null, 0.0], measured.effects]).tobytes())

    def plan_path(self, name: Any) -> Path:
        return self.path(["plan", name]).with_suffix(".json")

    def plan(self, name: Any, texts: Sequence[Any]) -> Plan:
        """Keep that `texts` are what is scored for `name` from now on, and forget what is stored of its former ones."""
        plan = self.plan_path(name)
        wanted = {self.path(text).name for text in texts}
        try:
            before = {file for file in json.loads(plan.read_text()) if _NAME.fullmatch(file)}  # of no other files
        except (OSError, ValueError, TypeError, RecursionError):
            before = set()
        known = sum((self.folder / file).exists() for file in wanted)
        if before != wanted:
            with atomic_write(plan) as stream:
                stream.write(json.dumps(sorted(wanted)).encode())
            for file in before - wanted:
                (self.folder / file).unlink(missing_ok=True)
        return Plan(known, len(wanted), changed=bool(before) and before != wanted)


@dataclass(frozen=True)
class Plan:
    """known: how many of `texts` texts are stored, if only in part. changed: whether others were planned before."""

    known: int
    texts: int
    changed: bool

    def __str__(self) -> str:
        if self.changed and not self.known:
            return "the profile has changed since it was last scored: scoring starts afresh"
        if self.changed:
            return f"the profile has changed: {self.known} of {self.texts} texts are known, the others are scored now"
        return f"taking up an earlier run: {self.known} of {self.texts} texts are known" if self.known else ""
