"""Which map steers a person's chats: the one that is given, their own, or the one that is baked into the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dps_local.engine.model import Model
from dps_local.maps import map_file
from dps_local.maps.baking import load_map
from dps_local.maps.cluster_map import ClusterMap
from dps_local.maps.head_map import HeadMap
from dps_local.scoring.cached_map import CachedMap
from dps_local.scoring.learned_map import LearnedMap
from dps_local.system.progress import Notice


def choose_map(
    model: Model,
    own: CachedMap | None,
    given: Path | None = None,
    *,
    begin: Callable[[CachedMap], HeadMap | None],
    notice: Notice,
) -> HeadMap | ClusterMap | None:
    """Return the given map, or else the person's own, or one that is baked into the model.

    A person's own map replaces a cluster map once it is calibrated and helps: it has more evidence. own: of a person
    with history, None for anyone else. begin: makes the map that a person begins with where they learned none.
    """
    chosen = load_map(given) if given else baked_map(model)
    learned = LearnedMap(own).load(notice) if own and not given else None
    if isinstance(chosen, ClusterMap):
        head_map = learned or (own.load() if own else None)
        if head_map and head_map.calibration and head_map.calibration.helps:
            notice("your own head map is used: it has more evidence than the clusters'")
            return head_map
        notice("the cluster map is used: your own " + ("does not help yet" if head_map else "is not scored"))
        return chosen
    return learned or begin(own) if own and not given else chosen


def baked_map(model: Model) -> HeadMap | ClusterMap | None:
    """Return the map that a model's file carries, None where there is none."""
    return load_map(model.path) if map_file.kind_of(model.path) else None
