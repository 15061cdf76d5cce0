"""`Way`: what an arm means for one user: the prompt that is shown, and how the answer is steered."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dps_local.engine.model import Head, HeadScales, Model, head_mask
from dps_local.evaluation.arms import CLUSTERED, Arm
from dps_local.evaluation.heads import Heads
from dps_local.maps.cluster_map import Routing
from dps_local.maps.head_map import HeadMap
from dps_local.maps.overlap import thorough
from dps_local.scoring.calibration import amplified
from dps_local.scoring.statistics import bound_below
from dps_local.steering.mixing import Gamma, Logits, mix
from dps_local.steering.steering import Steering, scales_of

Shown = int | Literal["profile", "question"]  # at most so many profile items; as many as fit; the question alone


@dataclass(frozen=True, eq=False)
class Way:
    """shown: of the profile. steering: None for the plain model."""

    shown: Shown = "profile"
    steering: Steering | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """What two ways that are the same have in common."""
        s = self.steering
        return (self.shown, s and (s.scales.tobytes(), s.gamma, s.beta, s.scope, s.mode))

    @property
    def cad(self) -> bool:
        """Whether its own stream reads the question alone."""
        return self.steering is not None and self.steering.mode == "cad"

    def own_scales(self, model: Model) -> HeadScales:
        """Return the head scales of its own stream."""
        if self.steering is None:
            return head_mask(model, [])
        return self.steering.amplified() if self.steering.mode == "amplify" else self.steering.scales

    def mix(self, full: Logits, own: Logits) -> Logits:
        """Return the logits of a token, where its own stream gave `own`; without the plausibility mask."""
        if self.steering is None:
            return full
        return own if self.steering.mode == "amplify" else mix(full, own, self.steering.gamma(full), beta=0.0)


PLAIN = Way()


def way_of(arm: Arm, user: str, heads: Heads, model: Model) -> Way:
    """Return what an arm means for a user; heads are scored now if that was not done before."""
    if arm.method == "none":
        return Way("question")
    if arm.method == "profile":
        return Way("profile" if arm.items is None else arm.items)
    steering = _calibrated(user, heads, model) if arm.method == "calibrated" else _steering(arm, user, heads, model)
    way = Way(steering=steering)
    idle = steering.gamma.off or ((steering.scales == 1).all() and not way.cad)
    return PLAIN if idle else way


def _calibrated(user: str, heads: Heads, model: Model) -> Steering:
    """Return how chat would steer for this user."""
    head_map = heads.map(user, heads.options.ranking)
    scales = scales_of(model, head_map, head_map.mode)
    return Steering(scales, Gamma(head_map.gamma), scope=head_map.scope, mode=head_map.mode)


def _steering(arm: Arm, user: str, heads: Heads, model: Model) -> Steering:
    gamma, beta, scope = arm.gamma or Gamma(), arm.beta or 0.0, heads.options.scope
    if arm.method in ("amplify", "amplify-positive"):
        weights = heads.map(user, heads.options.ranking).weights
        weights = weights if arm.method == "amplify" else np.maximum(weights, 0)
        return Steering(amplified(weights, 1.0), gamma, scope=scope, mode="amplify")
    if arm.method == "cad":
        return Steering(head_mask(model, []), gamma, beta, mode="cad")
    return Steering(_muted(arm, user, heads, model), gamma, beta, scope)


def _muted(arm: Arm, user: str, heads: Heads, model: Model) -> HeadScales:
    if arm.method in CLUSTERED:
        cluster_map = heads.cluster_map(user)
        routing: Routing = "hard" if arm.method == "cluster-hard" else "soft"
        return cluster_map.scales(cluster_map.route(heads.vector(user), routing))
    k = arm.heads or 0
    if arm.method == "random":
        return head_mask(model, random_heads(model, k, arm.seed or 0, user))
    ranking = next(name for name in ("pcs", "gain", "contrast") if name == arm.method)
    return head_mask(model, top_heads(heads.map(user, ranking), k))


def top_heads(head_map: HeadMap, k: int) -> list[Head]:
    """Return the k heads with the highest lower bounds of what the map is ranked by, none with a mean below zero."""
    mean = thorough(head_map)
    bound = bound_below(mean, getattr(head_map, f"{head_map.ranking}_stderr"), np.nan_to_num(head_map.counts))
    bound = np.where(np.nan_to_num(mean) > 0, bound, -np.inf)
    order = np.argsort(-bound, axis=None, kind="stable")[:k]
    heads = [(int(i) // head_map.n_head, int(i) % head_map.n_head) for i in order]
    return [head for head in heads if bound[head] > -np.inf]


def random_heads(model: Model, k: int, seed: int, user: str) -> list[Head]:
    """Return k heads, others for each seed and user."""
    drawn = hashlib.sha256(f"{seed}:{user}".encode()).digest()
    chosen = np.random.default_rng(list(drawn)).permutation(len(model.heads()))[:k]
    return [model.heads()[i] for i in chosen]
