"""Head maps with made-up scores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from dps_local.drawing.colour import Floats
from dps_local.engine.model import Model
from dps_local.maps.calibration import Calibration, Candidate
from dps_local.maps.head_map import SCORES, HeadMap
from dps_local.maps.reliability import SplitHalfReliability

NAN = float("nan")


def scores_map(pcs: Floats, **changes: Any) -> HeadMap:
    """A map whose gain is half its PCS; contrast and pairwise are not measured."""
    pcs = pcs.astype(np.float32)
    nothing, error = np.full_like(pcs, NAN), np.where(np.isnan(pcs), NAN, 0.01).astype(np.float32)
    head_map = HeadMap(
        model="tiny",
        architecture="llama",
        fingerprint="0123abcd",
        scope="generated",
        ranking="pcs",
        ablation_scale=0.0,
        seed=0,
        examples=12,
        tokens=384,
        evaluations=96,
        nll=2.5,
        pcs=pcs,
        pcs_stderr=error,
        gain=pcs / np.float32(2),
        gain_stderr=error / np.float32(2),
        variance=error,
        contrast=nothing,
        contrast_stderr=nothing,
        pairwise=nothing,
        pairwise_stderr=nothing,
        counts=error * 0 + 12,
        weights=nothing,
        null_control=0.0,
        selected=(),
        mode="contrast",
        gamma=1.5,
        reliability=SplitHalfReliability(0.75, 0.5, 8),
        calibration=Calibration(0.05, 0.01, 0.09, 12, Candidate("contrast", 2, 1.5), 1.1, 1.2),
    )
    return replace(head_map, **changes)


def synthetic(layers: int, heads: int, chosen: int = 6) -> HeadMap:
    random = np.random.default_rng(7)
    pcs = random.standard_t(1.5, (layers, heads)) * 0.002
    best = np.argsort(-pcs, axis=None)[:chosen]
    return scores_map(pcs, selected=tuple((int(place) // heads, int(place) % heads) for place in best))


def hand_made_map(model: Model, **changes: Any) -> HeadMap:
    pcs = np.linspace(-0.25, 0.25, model.n_layer * model.n_head_max, dtype=np.float32)
    pcs = pcs.reshape(model.n_layer, model.n_head_max)
    others: dict[str, Any] = {
        name: np.full_like(pcs, i) for i, name in enumerate(SCORES) if name not in ("pcs", "pcs_stderr")
    }
    made = scores_map(
        pcs,
        model=model.name,
        architecture=model.architecture,
        fingerprint=model.fingerprint,
        ranking="gain",
        examples=3,
        pcs_stderr=np.full_like(pcs, 0.125),
        **others,
        selected=((model.n_layer - 1, model.n_head_max - 1), (0, 0)),
        gamma=0.5,
        reliability=None,
        calibration=None,
    )
    return replace(made, **changes)
