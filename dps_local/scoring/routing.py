"""Which clusters of a cluster map a profile belongs to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dps_local.engine.embedding import PROFILE_TOKENS, Embedder, Vector
from dps_local.engine.model import Model
from dps_local.errors import HeadMapError, Remedy
from dps_local.maps.cluster_map import TEMPERATURE, ClusterMap, Routing
from dps_local.prompting.prompt import Prompter
from dps_local.scoring.clusters import embed
from dps_local.system.files import StrPath


def make_embedder(
    model: Model,
    embedding_model: StrPath | None = None,
    n_ctx: int = PROFILE_TOKENS,
    n_threads: int | None = None,
) -> Embedder:
    """Return what embeds profiles: the chat model, unless there is a model for embeddings."""
    return Embedder(Model(embedding_model) if embedding_model else model, n_ctx, n_threads)


def route(
    cluster_map: ClusterMap,
    prompter: Prompter,
    routing: Routing = "soft",
    temperature: float = TEMPERATURE,
    *,
    embedding_model: StrPath | None = None,
    n_threads: int | None = None,
) -> NDArray[np.float64]:
    """Return the share of each cluster in a profile, [n_clusters], 1 in all.

    Raises HeadMapError unless the map was made with this embedding model.
    """
    embedder = make_embedder(prompter.model, embedding_model, cluster_map.embedder_tokens, n_threads)
    try:
        return cluster_map.route(_vector(cluster_map, prompter, embedder), routing, temperature)
    finally:
        embedder.close()


def _vector(cluster_map: ClusterMap, prompter: Prompter, embedder: Embedder) -> Vector:
    expected, identity = cluster_map.embedder_metadata, embedder.model.identity
    if identity.fingerprint != cluster_map.embedder or expected not in (None, identity.metadata):
        raise HeadMapError("the cluster map was made with another embedding model", Remedy.GIVE_EMBEDDING_MODEL)
    return embed(embedder, prompter)
