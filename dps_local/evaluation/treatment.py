"""`Treatment`: what a condition means for one user: the prompt that is shown, and how the answer is steered."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dps_local.engine.context import LayerVectors
from dps_local.engine.model import Head, HeadScales, Model, head_mask
from dps_local.engine.sampler import Sampler, Sampling
from dps_local.errors import SettingsError
from dps_local.evaluation.condition import STEP_METHODS, Condition, Method
from dps_local.evaluation.head_map_store import HeadMapStore
from dps_local.evaluation.ngram_cache import CacheSampler, NgramCache
from dps_local.maps.cluster_map import Routing
from dps_local.maps.selection import Ranking
from dps_local.steering.mixing import Gamma, Logits
from dps_local.steering.steering import Steering, amplified

PromptKind = int | Literal["profile", "question"]  # at most so many profile items; as many as fit; the question alone


@dataclass(frozen=True, eq=False)
class Treatment:
    """prompt_kind: what of the profile the prompt shows. steering: None for the plain model.

    vectors: added to what layers put out, of the answer's tokens. cache: added to the logits of the plain model.
    """

    prompt_kind: PromptKind = "profile"
    steering: Steering | None = None
    vectors: LayerVectors | None = None
    cache: NgramCache | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """What two treatments that are the same have in common."""
        s, vectors, cache = self.steering, self.vectors, self.cache
        return (
            self.prompt_kind,
            s and (s.scales.tobytes(), s.gamma, s.beta, s.scope, s.mode),
            None if vectors is None else vectors.tobytes(),
            cache and (cache.own, cache.strength),
        )

    @property
    def cad(self) -> bool:
        """Whether its own stream reads the question alone."""
        return self.steering is not None and self.steering.mode == "cad"

    def own_scales(self, model: Model) -> HeadScales:
        """Return the head scales of its own stream."""
        if self.steering is None:
            return head_mask(model, [])
        return self.steering.own_scales

    def sampler(self, sampling: Sampling) -> Sampler:
        """Return what draws an answer's tokens."""
        return CacheSampler(sampling, self.cache) if self.cache else Sampler(sampling)

    def mix(self, full: Logits, own: Logits) -> Logits:
        """Return the logits of a token, where its own stream gave `own`; without the plausibility mask."""
        return self.steering.mix(full, own) if self.steering else full


UNSTEERED = Treatment()


def prompt_kind(condition: Condition) -> PromptKind:
    """Return what of the profile a condition's prompt shows."""
    if condition.method == "none":
        return "question"
    return "profile" if condition.items is None else condition.items


def treatment_of(condition: Condition, user: str, head_maps: HeadMapStore, model: Model) -> Treatment:
    """Return what a condition means for a user; heads are scored now if that was not done before."""
    if condition.method in ("none", "profile"):
        return Treatment(prompt_kind(condition))
    if condition.method == "style-vector":
        vectors = head_maps.style_vector(user)
        return UNSTEERED if vectors is None else Treatment(vectors=_number(condition) * vectors)
    if condition.method == "cache":
        return Treatment(cache=NgramCache(*head_maps.ngrams(user), model.n_vocab, _number(condition)))
    steering = _steering(condition, user, head_maps, model)
    return UNSTEERED if steering.off else Treatment(steering=steering)


def _steering(condition: Condition, user: str, head_maps: HeadMapStore, model: Model) -> Steering:
    gamma, beta, scope = _strength(condition), condition.beta or 0.0, head_maps.options.scope
    if condition.method == "calibrated":  # as chat would steer for this user
        return head_maps.head_map(user, head_maps.options.ranking).steering(model)
    if condition.method == "cad":
        return Steering(head_mask(model, []), gamma, beta, mode="cad")
    if condition.method in AMPLIFICATIONS:
        weights = AMPLIFICATIONS[condition.method](condition, user, head_maps, model)
        return Steering(amplified(weights), gamma, scope=scope, mode="amplify")
    if condition.method == "prior-contrast":
        return Steering(_backwards(condition, user, head_maps, model), Gamma(1.0), beta, scope)
    return Steering(CONTRASTS[condition.method](condition, user, head_maps, model), gamma, beta, scope)


def _strength(condition: Condition) -> Gamma:
    return condition.gamma or Gamma()


def _number(condition: Condition) -> float:
    if _strength(condition).entropy:
        raise SettingsError(f"the strength of {condition.method} must be a number")
    return _strength(condition).value


# from what a condition does for a user to numbers F32 [n_layer, n_head_max]
ForHeads = Callable[[Condition, str, HeadMapStore, Model], HeadScales]


def _gain_weights(_: Condition, user: str, head_maps: HeadMapStore, __: Model) -> HeadScales:
    return head_maps.head_map(user, head_maps.options.ranking).weights


def _random(condition: Condition, user: str, _: HeadMapStore, model: Model) -> HeadScales:
    return head_mask(model, random_heads(model, condition.heads or 0, condition.seed or 0, user))


def _top_heads(ranking: Ranking) -> ForHeads:
    return lambda condition, user, head_maps, model: head_mask(
        model, head_maps.head_map(user, ranking).top_heads(condition.heads or 0)
    )


def _clusters(routing: Routing) -> ForHeads:
    def scales(_: Condition, user: str, head_maps: HeadMapStore, __: Model) -> HeadScales:
        cluster_map = head_maps.cluster_map(user)
        return cluster_map.scales(cluster_map.route(head_maps.embedding(user), routing))

    return scales


def _step(condition: Condition, user: str, head_maps: HeadMapStore, model: Model) -> HeadScales:
    assert condition.method in STEP_METHODS
    return head_maps.steps.weights(condition.method, user, model, condition.heads)


def _backwards(condition: Condition, user: str, head_maps: HeadMapStore, model: Model) -> HeadScales:
    """Return scales 1 - γ·w: mixed as 2·full - own, they lead as far as 1 + γ·w does, to first order."""
    return amplified(-_step(condition, user, head_maps, model), _number(condition))


# weights w: heads are scaled by 1 + γ·w in the one stream
AMPLIFICATIONS: dict[Method, ForHeads] = {
    "amplify": _gain_weights,
    "amplify-positive": lambda *arguments: np.maximum(_gain_weights(*arguments), 0),
    "prior": _step,
    "prior-own": _step,
    "own": _step,
    "another": _step,
}
# scales of the second stream
CONTRASTS: dict[Method, ForHeads] = {
    "random": _random,
    "pcs": _top_heads("pcs"),
    "gain": _top_heads("gain"),
    "contrast": _top_heads("contrast"),
    "cluster-hard": _clusters("hard"),
    "cluster-soft": _clusters("soft"),
}


def random_heads(model: Model, k: int, seed: int, user: str) -> list[Head]:
    """Return k heads, others for each seed and user."""
    drawn = hashlib.sha256(f"{seed}:{user}".encode()).digest()
    chosen = np.random.default_rng(list(drawn)).permutation(len(model.heads()))[:k]
    return [model.heads()[i] for i in chosen]
