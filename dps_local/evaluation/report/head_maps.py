"""What the head maps of a task say together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from dps_local.drawing.text import counted, percent
from dps_local.maps.head_map import HeadMap
from dps_local.maps.overlap import sparsity
from dps_local.scoring.statistics import mean_stderr


def mean_map(maps: Mapping[str, HeadMap]) -> HeadMap:
    """Return a map of the mean PCS of maps, with its standard error over them."""
    first = next(iter(maps.values()))
    mean, stderr, _ = mean_stderr(np.array([m.pcs.ravel() for m in maps.values()], np.float64))
    pcs, error = (x.reshape(first.pcs.shape).astype(np.float32) for x in (mean, stderr))
    return replace(first, ranking="pcs", pcs=pcs, pcs_stderr=error, selected=())


def sparseness(maps: Mapping[str, HeadMap]) -> str:
    """Say how few heads hold the positive PCS; nothing where no map has any."""
    sparsities = [sparse for head_map in maps.values() if (sparse := sparsity(head_map.pcs))]
    if not sparsities:
        return ""
    share, gini = np.mean([s.share for s in sparsities]), np.mean([s.gini for s in sparsities])
    of = f"means of {len(sparsities)} maps" if len(sparsities) > 1 else "one map"
    return (
        f"The best {sparsities[0].k} of {counted(sparsities[0].heads, 'head')} hold {percent(float(share))} of all "
        f"positive PCS; Gini coefficient {gini:.2f} ({of})."
    )
