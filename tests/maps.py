"""Head maps that nobody measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from dps_local.head_map import SCORES, HeadMap
from dps_local.model import Model


def hand_made_map(model: Model, **changes: Any) -> HeadMap:
    pcs = np.linspace(-0.25, 0.25, model.n_layer * model.n_head_max, dtype=np.float32)
    pcs = pcs.reshape(model.n_layer, model.n_head_max)
    others: dict[str, Any] = {
        name: np.full_like(pcs, i) for i, name in enumerate(SCORES) if name not in ("pcs", "pcs_stderr")
    }
    made = HeadMap(
        model=model.name,
        architecture=model.architecture,
        fingerprint=model.fingerprint,
        scope="generated",
        ranking="gain",
        probe=0.0,
        seed=0,
        examples=3,
        tokens=96,
        evaluations=216,
        nll=2.5,
        pcs=pcs,
        pcs_stderr=np.full_like(pcs, 0.125),
        **others,
        null_control=0.0,
        selected=((model.n_layer - 1, model.n_head_max - 1), (0, 0)),
        mode="contrast",
        gamma=0.5,
    )
    return replace(made, **changes)
