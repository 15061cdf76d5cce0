"""`ClusterMap`: head weights of groups of users, and which of them a new user belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import gguf
import numpy as np
from numpy.typing import NDArray

from dps_local.engine.identity import Identity
from dps_local.engine.model import Head, HeadScales, Scope
from dps_local.maps import map_file
from dps_local.maps.head_map import SCORES, HeadMap, fill_calibration, nulls, read_calibration
from dps_local.scoring.calibration import Calibration
from dps_local.scoring.statistics import Ranking

Routing = Literal["hard", "soft"]
TEMPERATURE = 0.1  # of soft routing, in units of distance between vectors of length 1
USERS_A_CLUSTER = 100
RESTARTS = 10
GRIDS = ("pcs", "pcs_stderr", "gain", "gain_stderr", "weights")
ARRAYS = ("center", "centroids", *GRIDS)
Vectors = NDArray[np.float32]  # [n, n_embd], of length 1
Grids = NDArray[np.float32]  # [n_clusters, n_layer, n_head_max], NaN where there is no head


@dataclass(frozen=True, eq=False)
class ClusterMap:
    """Scores and weights of clusters of users on one model.

    centroids: of the users' vectors, after `center`, the mean of all, is taken off. weights: in [0, 1] of the heads
    that matter in a cluster, the best has 1. pcs, gain: nats per token, over the cluster's examples.
    embedder, embedder_metadata: which model embeds profiles, as in Identity; embedder_tokens: how much it reads of one.
    """

    model: str
    architecture: str
    fingerprint: str
    embedder: str
    embedder_tokens: int
    scope: Scope
    ranking: Ranking
    seed: int
    users: tuple[int, ...]
    examples: tuple[int, ...]
    evaluations: int
    center: NDArray[np.float32]
    centroids: Vectors
    pcs: Grids
    pcs_stderr: Grids
    gain: Grids
    gain_stderr: Grids
    weights: Grids
    null_control: float
    gamma: float
    calibration: Calibration | None = None
    metadata: str | None = None  # with `template`, as in Identity
    template: str | None = None
    embedder_metadata: str | None = None

    @property
    def identity(self) -> Identity:
        return Identity(self.fingerprint, self.metadata, self.template)

    @property
    def n_layer(self) -> int:
        return int(self.pcs.shape[1])

    @property
    def n_head(self) -> int:
        return int(self.pcs.shape[2])

    def check(self, model_name: str, identity: Identity) -> str:
        """Raise HeadMapError unless this map was made for that model; return what to say of its chat template."""
        return map_file.check(self.model, self.identity, model_name, identity)

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

    def save(self, path: Path) -> None:
        """Write a .dps.gguf, readable by its owner only, whole or not at all."""
        map_file.save(path, self.architecture, "clusters", self._fill)

    def _fill(self, writer: gguf.GGUFWriter) -> None:
        map_file.fill_identity(writer, self.identity)
        for name in ("model", "embedder", "scope", "ranking"):
            writer.add_string(f"dps.{name}", getattr(self, name))
        if self.embedder_metadata:
            writer.add_string("dps.embedder_metadata", self.embedder_metadata)
        for name in ("embedder_tokens", "seed", "evaluations", "n_layer", "n_head"):
            writer.add_uint32(f"dps.{name}", getattr(self, name))
        for name in ("users", "examples"):
            writer.add_array(f"dps.{name}", list(getattr(self, name)))
        for name in ARRAYS:
            writer.add_array(f"dps.{name}", getattr(self, name).ravel().tolist())
        writer.add_float64("dps.null_control", self.null_control)
        writer.add_float64("dps.gamma", self.gamma)
        if self.calibration:
            fill_calibration(writer, self.calibration)

    @classmethod
    def load(cls, path: Path) -> ClusterMap:
        """Read a .dps.gguf or a model that a cluster map was baked into; raises HeadMapError."""
        with map_file.opened(path, "clusters") as file:
            users = tuple(int(n) for n in file.get("dps.users"))
            shape = (len(users), int(file.get("dps.n_layer")), int(file.get("dps.n_head")))
            arrays: dict[str, Any] = {name: np.asarray(file.get(f"dps.{name}"), np.float32) for name in ARRAYS}
            arrays |= {name: arrays[name].reshape(shape) for name in GRIDS}
            arrays["centroids"] = arrays["centroids"].reshape(len(users), len(arrays["center"]))
            return cls(
                model=file.text("dps.model"),
                architecture=file.text("general.architecture"),
                **asdict(map_file.read_identity(file)),
                embedder=file.text("dps.embedder"),
                embedder_metadata=file.get("dps.embedder_metadata"),
                embedder_tokens=int(file.get("dps.embedder_tokens")),
                scope=file.one_of("dps.scope", get_args(Scope)),
                ranking=file.one_of("dps.ranking", get_args(Ranking)),
                seed=int(file.get("dps.seed")),
                users=users,
                examples=tuple(int(n) for n in file.get("dps.examples")),
                evaluations=int(file.get("dps.evaluations")),
                **arrays,
                null_control=file.number("dps.null_control"),
                gamma=file.number("dps.gamma"),
                calibration=read_calibration(file),
            )

    def as_json(self) -> dict[str, Any]:
        """Return what a person asks of the map; null where a layer has fewer heads."""
        return {
            "model": self.model,
            **asdict(self.identity),
            "n_layer": self.n_layer,
            "n_head": self.n_head,
            "scope": self.scope,
            "ranking": self.ranking,
            "evaluations": self.evaluations,
            "null_control": self.null_control,
            "mode": "contrast",
            "gamma": self.gamma,
            "calibration": asdict(self.calibration) if self.calibration else None,
            "clusters": [
                {
                    "users": self.users[i],
                    "examples": self.examples[i],
                    **{name: nulls(getattr(self, name)[i]) for name in GRIDS},
                    "selected": [list(head) for head in self.selected(i)],
                }
                for i in range(len(self.users))
            ],
        }

    def head_maps(self) -> dict[str, HeadMap]:
        """Return each cluster as a map of its own, to be drawn and compared; by a name that says how many users."""
        return {f"cluster {i + 1} ({n} users)": self._head_map(i) for i, n in enumerate(self.users)}

    def _head_map(self, cluster: int) -> HeadMap:
        pcs = self.pcs[cluster]
        scores = {name: np.full_like(pcs, np.nan) for name in SCORES}
        scores |= {name: getattr(self, name)[cluster] for name in GRIDS}
        scores["counts"] = np.where(np.isfinite(pcs), np.float32(self.examples[cluster]), np.float32(np.nan))
        return HeadMap(
            model=self.model,
            architecture=self.architecture,
            **asdict(self.identity),
            scope=self.scope,
            ranking="gain" if self.ranking == "gain" else "pcs",
            probe=0.0,
            seed=self.seed,
            examples=self.examples[cluster],
            tokens=0,
            evaluations=self.evaluations,
            nll=0.0,
            **scores,
            null_control=self.null_control,
            selected=self.selected(cluster),
            mode="contrast",
            gamma=self.gamma,
            calibration=self.calibration,
        )

    def selected(self, cluster: int) -> tuple[Head, ...]:
        """Return the heads with a weight in a cluster, best first."""
        weights = np.nan_to_num(self.weights[cluster])
        order = np.argsort(-weights, axis=None, kind="stable")[: int((weights > 0).sum())]
        return tuple((int(i) // self.n_head, int(i) % self.n_head) for i in order)


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
    tries = [found for _ in range(RESTARTS) if (found := _k_means(x, n, rng))]
    if not tries:
        return group(vectors, n - 1, seed)
    _, centroids, labels = min(tries, key=lambda found: found[0])
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
