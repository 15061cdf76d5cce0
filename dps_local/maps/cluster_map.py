"""`ClusterMap`: head weights of groups of users, and which of them a new user belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dps_local.engine.gguf_file import GGUFFile
from dps_local.engine.model import Head, HeadScales, Scope
from dps_local.maps.calibration import Calibration, Mode
from dps_local.maps.fields import (
    COUNT,
    COUNTS,
    NUMBER,
    TEXT,
    array,
    fields_as_json,
    grid_shape,
    one_of,
    optional,
    record,
)
from dps_local.maps.model_map import ModelMap
from dps_local.maps.scored_heads import Scores
from dps_local.maps.selection import Ranking, top_heads
from dps_local.steering.mixing import Gamma
from dps_local.steering.steering import Steering

Routing = Literal["hard", "soft"]
TEMPERATURE = 0.1  # of soft routing, in units of distance between vectors of length 1
USERS_A_CLUSTER = 100
RESTARTS = 10
GRIDS = ("pcs", "pcs_stderr", "gain", "gain_stderr", "weights")
ARRAYS = ("center", "centroids", *GRIDS)
Vectors = NDArray[np.float32]  # [n, n_embd], of length 1
Grids = NDArray[np.float32]  # [n_clusters, n_layer, n_head_max], NaN where there is no head


def _n_clusters(file: GGUFFile) -> int:
    return len(file.get("dps.users"))


def _centroids_shape(file: GGUFFile) -> tuple[int, int]:
    return _n_clusters(file), len(file.get("dps.center"))


CLUSTER_GRIDS = array(lambda file: (_n_clusters(file), *grid_shape(file)))


@dataclass(frozen=True, eq=False, kw_only=True)
class ClusterMap(ModelMap):
    """Scores and weights of clusters of users on one model.

    centroids: of the users' vectors, after `center`, the mean of all, is taken off. weights: in [0, 1] of the heads
    that matter in a cluster, the best has 1. pcs, gain: nats per token, over the cluster's examples.
    embedder, embedder_metadata: which model embeds profiles, as in Identity; embedder_tokens: how much it reads of one.
    """

    kind = "clusters"

    ranking: Ranking = field(metadata=one_of(get_args(Ranking)))
    embedder: str = field(metadata=TEXT)
    embedder_metadata: str | None = field(default=None, metadata=optional(TEXT))
    embedder_tokens: int = field(metadata=COUNT)
    seed: int = field(metadata=COUNT)
    users: tuple[int, ...] = field(metadata=COUNTS)
    examples: tuple[int, ...] = field(metadata=COUNTS)
    evaluations: int = field(metadata=COUNT)
    center: NDArray[np.float32] = field(metadata=array(lambda _: (-1,)))
    centroids: Vectors = field(metadata=array(_centroids_shape))
    pcs: Grids = field(metadata=CLUSTER_GRIDS)
    pcs_stderr: Grids = field(metadata=CLUSTER_GRIDS)
    gain: Grids = field(metadata=CLUSTER_GRIDS)
    gain_stderr: Grids = field(metadata=CLUSTER_GRIDS)
    weights: Grids = field(metadata=CLUSTER_GRIDS)
    null_control: float = field(metadata=NUMBER)
    gamma: float = field(metadata=NUMBER)
    calibration: Calibration | None = field(default=None, metadata=record(Calibration, present="n"))

    @property
    def n_layer(self) -> int:
        return int(self.pcs.shape[1])

    @property
    def n_head(self) -> int:
        return int(self.pcs.shape[2])

    def route(
        self, vector: Vectors, routing: Routing = "soft", temperature: float = TEMPERATURE
    ) -> NDArray[np.float64]:
        """Return the share of each cluster in a user with this vector, [n_clusters], 1 in all.

        "hard": the nearest centroid alone. "soft": softmax of -distance / temperature.
        """
        distance = np.linalg.norm(self.centroids - _centred(vector[None], self.center), axis=1).astype(np.float64)
        if routing == "hard":
            return np.asarray(np.arange(len(distance)) == distance.argmin(), np.float64)
        shares = np.exp((distance.min() - distance) / temperature)
        return np.asarray(shares / shares.sum())

    def scales(self, shares: NDArray[np.float64]) -> HeadScales:
        """Return the head scales of a muted stream, F32 [n_layer, n_head_max]: 1 - Σ p·w, in [0, 1]."""
        return mixed_scales(self.weights, shares)

    def steering(self, shares: NDArray[np.float64]) -> Steering:
        """Return how the map steers a user with these shares: by a contrast, at the γ that was measured."""
        return Steering(self.scales(shares), Gamma(self.gamma), scope=self.scope)

    def as_json(self) -> dict[str, Any]:
        """Return what a person asks of the map; null where a layer has fewer heads."""
        fields = fields_as_json(self)
        return {
            **{name: fields[name] for name in ("model", "fingerprint", "metadata", "template", "scope", "ranking")},
            **{name: fields[name] for name in ("evaluations", "null_control", "gamma", "calibration")},
            "n_layer": self.n_layer,
            "n_head": self.n_head,
            "mode": "contrast",
            "clusters": [
                {name: fields[name][i] for name in ("users", "examples", *GRIDS)}
                | {"selected": [list(head) for head in self.selected(i)]}
                for i in range(len(self.users))
            ],
        }

    def clusters(self) -> dict[str, Cluster]:
        """Return each cluster, to be drawn and compared, by a name that says how many users it has."""
        return {f"cluster {i + 1} ({n} users)": Cluster(self, i) for i, n in enumerate(self.users)}

    def selected(self, cluster: int) -> tuple[Head, ...]:
        """Return the heads with a weight in a cluster, best first."""
        weights = self.weights[cluster]
        return tuple(divmod(place, self.n_head) for place in top_heads(weights, weights.size, above=0))


@dataclass(frozen=True, eq=False)
class Cluster:
    """One cluster of a map, as `ScoredHeads`: what is not measured of clusters is NaN or None."""

    map: ClusterMap
    number: int

    @property
    def model(self) -> str:
        return self.map.model

    @property
    def architecture(self) -> str:
        return self.map.architecture

    @property
    def fingerprint(self) -> str:
        return self.map.fingerprint

    @property
    def scope(self) -> Scope:
        return self.map.scope

    @property
    def ablation_scale(self) -> None:
        return None

    @property
    def examples(self) -> int:
        return self.map.examples[self.number]

    @property
    def evaluations(self) -> int:
        """Of all clusters together."""
        return self.map.evaluations

    @property
    def ranking(self) -> Ranking:
        return "gain" if self.map.ranking == "gain" else "pcs"  # clusters keep no contrast

    @property
    def ranked_scores(self) -> Scores:
        return self.scores(self.ranking)[0]

    @property
    def fully_evaluated_scores(self) -> Scores:
        """The ranked scores: which heads were dropped on the way is not kept of clusters."""
        return self.ranked_scores

    @property
    def counts(self) -> Scores:
        return np.where(np.isfinite(self.map.pcs[self.number]), np.float32(self.examples), np.float32(np.nan))

    @property
    def null_control(self) -> float:
        return self.map.null_control

    @property
    def selected(self) -> tuple[Head, ...]:
        return self.map.selected(self.number)

    @property
    def mode(self) -> Mode:
        return "contrast"

    @property
    def gamma(self) -> float:
        return self.map.gamma

    @property
    def reliability(self) -> None:
        return None

    @property
    def calibration(self) -> Calibration | None:
        return self.map.calibration

    def scores(self, name: str) -> tuple[Scores, Scores]:
        """Return the scores of a name and their standard errors: NaN for "contrast" and "pairwise"."""
        if name not in GRIDS:
            nothing = np.full_like(self.map.pcs[self.number], np.nan)
            return nothing, nothing
        return getattr(self.map, name)[self.number], getattr(self.map, f"{name}_stderr")[self.number]

    def as_json(self) -> dict[str, Any]:
        """Return the cluster with the keys of a head map, as far as clusters have them."""
        whole = self.map.as_json()
        own: dict[str, Any] = whole.pop("clusters")[self.number]
        return whole | own | {"architecture": self.architecture, "ranking": self.ranking}


def mixed_scales(weights: Grids, shares: NDArray[np.float64]) -> HeadScales:
    """Return clip(1 - Σ_k p_k·w_k, 0, 1), with 1 where there is no head."""
    return np.asarray(np.clip(1 - np.tensordot(shares, np.nan_to_num(weights), 1), 0, 1), np.float32)


def cluster_weights(scores: NDArray[np.float64], chosen: Sequence[int], power: float = 1.0) -> NDArray[np.float64]:
    """Return a cluster's weight of each head: of the chosen ones, their score by the best one's, to a power; else 0."""
    weights = np.zeros(len(scores))
    kept = list(chosen)
    weights[kept] = np.maximum(scores[kept], 0)
    best = weights.max(initial=0.0)
    return np.asarray((weights / best) ** power if best else weights)


def n_clusters(wanted: int | Literal["auto"], users: int) -> int:
    """Return how many clusters to make: "auto" is about one per 100 users, and at least one."""
    return max(1, round(users / USERS_A_CLUSTER)) if wanted == "auto" else min(wanted, users)


def group(vectors: Vectors, n: int, seed: int) -> tuple[NDArray[np.float32], Vectors, list[int]]:
    """Return the mean of all vectors, the centroids [n, n_embd] and the cluster of each: the best of a few k-means.

    There are fewer clusters where users do not differ enough for n.
    """
    center = vectors.mean(axis=0)
    x = _centred(vectors, center).astype(np.float64)
    n = min(n, len(np.unique(x, axis=0)))
    rng = np.random.default_rng(seed)
    tries = [grouping for _ in range(RESTARTS) if (grouping := _k_means(x, n, rng))]
    if not tries:
        return group(vectors, n - 1, seed)
    _, centroids, labels = min(tries, key=lambda grouping: grouping[0])
    return center, centroids.astype(np.float32), labels.tolist()


def _k_means(
    x: NDArray[np.float64], n: int, rng: np.random.Generator
) -> tuple[float, NDArray[np.float64], NDArray[np.int32]] | None:
    """Return the squared distances in all, the centroids and the labels; None when a cluster ran empty."""
    from scipy.cluster.vq import ClusterError, kmeans2  # slow to load, and seldom needed

    if n == 1:
        centroids, labels = x.mean(axis=0)[None], np.zeros(len(x), np.int32)
    else:
        try:
            centroids, labels = kmeans2(x, n, minit="++", missing="raise", rng=rng)
        except ClusterError:
            return None
    return float(((x - centroids[labels]) ** 2).sum()), centroids, labels


def _centred(vectors: Vectors, center: NDArray[np.float32]) -> Vectors:
    """Return vectors of length 1 that point from the center: mean-pooled states share one large direction."""
    moved = vectors - center
    return np.asarray(moved / np.maximum(np.linalg.norm(moved, axis=-1, keepdims=True), 1e-12))
