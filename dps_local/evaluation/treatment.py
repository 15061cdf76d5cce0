"""`Treatment`: what a condition means for one user: the prompt that is shown, and how the answer is steered."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dps_local.engine.model import Head, HeadScales, Model, head_mask
from dps_local.evaluation.condition import CLUSTER_METHODS, Condition
from dps_local.evaluation.head_map_store import HeadMapStore
from dps_local.maps.cluster_map import Routing
from dps_local.steering.mixing import Gamma, Logits
from dps_local.steering.steering import Steering, amplified

PromptKind = int | Literal["profile", "question"]  # at most so many profile items; as many as fit; the question alone


@dataclass(frozen=True, eq=False)
class Treatment:
    """prompt_kind: what of the profile the prompt shows. steering: None for the plain model."""

    prompt_kind: PromptKind = "profile"
    steering: Steering | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """What two treatments that are the same have in common."""
        s = self.steering
        return (self.prompt_kind, s and (s.scales.tobytes(), s.gamma, s.beta, s.scope, s.mode))

    @property
    def cad(self) -> bool:
        """Whether its own stream reads the question alone."""
        return self.steering is not None and self.steering.mode == "cad"

    def own_scales(self, model: Model) -> HeadScales:
        """Return the head scales of its own stream."""
        if self.steering is None:
            return head_mask(model, [])
        return self.steering.own_scales

    def mix(self, full: Logits, own: Logits) -> Logits:
        """Return the logits of a token, where its own stream gave `own`; without the plausibility mask."""
        return self.steering.mix(full, own) if self.steering else full


UNSTEERED = Treatment()


def treatment_of(condition: Condition, user: str, head_maps: HeadMapStore, model: Model) -> Treatment:
    """Return what a condition means for a user; heads are scored now if that was not done before."""
    if condition.method == "none":
        return Treatment("question")
    if condition.method == "profile":
        return Treatment("profile" if condition.items is None else condition.items)
    steering = (
        _calibrated(user, head_maps, model)
        if condition.method == "calibrated"
        else _steering(condition, user, head_maps, model)
    )
    return UNSTEERED if steering.off else Treatment(steering=steering)


def _calibrated(user: str, head_maps: HeadMapStore, model: Model) -> Steering:
    """Return how chat would steer for this user."""
    return head_maps.head_map(user, head_maps.options.ranking).steering(model)


def _steering(condition: Condition, user: str, head_maps: HeadMapStore, model: Model) -> Steering:
    gamma, beta, scope = condition.gamma or Gamma(), condition.beta or 0.0, head_maps.options.scope
    if condition.method in ("amplify", "amplify-positive"):
        weights = head_maps.head_map(user, head_maps.options.ranking).weights
        weights = weights if condition.method == "amplify" else np.maximum(weights, 0)
        return Steering(amplified(weights), gamma, scope=scope, mode="amplify")
    if condition.method == "cad":
        return Steering(head_mask(model, []), gamma, beta, mode="cad")
    return Steering(_muted(condition, user, head_maps, model), gamma, beta, scope)


def _muted(condition: Condition, user: str, head_maps: HeadMapStore, model: Model) -> HeadScales:
    if condition.method in CLUSTER_METHODS:
        cluster_map = head_maps.cluster_map(user)
        routing: Routing = "hard" if condition.method == "cluster-hard" else "soft"
        return cluster_map.scales(cluster_map.route(head_maps.embedding(user), routing))
    k = condition.heads or 0
    if condition.method == "random":
        return head_mask(model, random_heads(model, k, condition.seed or 0, user))
    ranking = next(name for name in ("pcs", "gain", "contrast") if name == condition.method)
    return head_mask(model, head_maps.head_map(user, ranking).top_heads(k))


def random_heads(model: Model, k: int, seed: int, user: str) -> list[Head]:
    """Return k heads, others for each seed and user."""
    drawn = hashlib.sha256(f"{seed}:{user}".encode()).digest()
    chosen = np.random.default_rng(list(drawn)).permutation(len(model.heads()))[:k]
    return [model.heads()[i] for i in chosen]
