"""`Person`: a profile that the server answers for, with what steers its answers."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any

import numpy as np

from dps_local.assistant import Settings
from dps_local.maps.cluster_map import ClusterMap
from dps_local.maps.head_map import HeadMap
from dps_local.prompting.prompt import Prompter
from dps_local.scoring.cached_map import CachedMap
from dps_local.scoring.first_map import first_map
from dps_local.scoring.map_choice import choose_map
from dps_local.system.progress import Notice


@dataclass
class Person:
    """own: the map of their own words, None where there are none. heads: None where nothing steers."""

    prompter: Prompter
    own: CachedMap | None
    heads: HeadMap | ClusterMap | None

    @classmethod
    def load(cls, prompter: Prompter, own: CachedMap | None, notice: Notice) -> Person:
        """Choose the heads as `dps-local generate` does, but for scoring them, which takes minutes."""

        def begin(own: CachedMap) -> HeadMap | None:
            return own.load() or first_map(own.prompter, own.options, notice=notice)

        return cls(prompter, own, choose_map(prompter.model, own, begin=begin, notice=notice))

    def scored(self) -> bool:
        """Whether heads can steer, or there are no words to score; finds a map that was scored meanwhile."""
        if self.heads is None and self.own:
            self.heads = self.own.load()
        return self.heads is not None or self.own is None

    @property
    def head_map(self) -> HeadMap | None:
        """The map that shows how much each head matters; clusters have none, and others' texts tell none."""
        heads = self.heads
        return heads if isinstance(heads, HeadMap) and np.isfinite(heads.ranked_scores).any() else None

    def as_json(self) -> dict[str, Any]:
        """Return the mode, γ, and what calibration found, or what is expected before anything was held out."""
        heads = self.heads
        if heads is None:
            known = {"mode": None, "gamma": 0.0, "calibration": None, "expected": None, "scored": self.own is None}
            return known | {"head_map": False}
        found, step = heads.calibration, heads.step if isinstance(heads, HeadMap) else None
        names = ("gain", "low", "high", "n", "probability")
        calibration = {name: getattr(found, name) for name in names} if found else None
        expected = {"gain": step.gain, "deviation": step.deviation, "probability": step.probability} if step else None
        return {
            "mode": heads.mode if isinstance(heads, HeadMap) else "contrast",
            "gamma": heads.gamma,
            "calibration": calibration,
            "expected": expected,
            "scored": True,
            "head_map": self.head_map is not None,
        }


def scoring_command(profile: str, model: str | None, n_ctx: int = Settings.n_ctx) -> str:
    """Return the command that scores a profile, given as on the command line; model: None for the default one."""
    chosen = ["-m", model] if model else []
    context = ["-c", str(n_ctx)] if n_ctx != Settings.n_ctx else []
    return shlex.join(["dps-local", "score", *chosen, "-p", profile, *context])
