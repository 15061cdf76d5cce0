"""`Assistant`: a model, a profile and a head map, put together for chat; scores the profile on its first use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dps_local.chat.session import Session
from dps_local.engine.embedding import PROFILE_TOKENS, Embedder, Vector
from dps_local.engine.model import Head, HeadScales, Model, Scope, head_mask
from dps_local.engine.prefix_cache import PrefixCache
from dps_local.engine.sampler import Sampling
from dps_local.errors import DpsError, HeadMapError
from dps_local.maps import map_file
from dps_local.maps.baking import load_map
from dps_local.maps.cluster_map import TEMPERATURE, ClusterMap, Routing
from dps_local.maps.head_map import HeadMap
from dps_local.maps.map_file import FORMAT
from dps_local.prompting.chat_template import ChatTemplate
from dps_local.prompting.profile import Profile
from dps_local.prompting.prompt import Prompter
from dps_local.scoring.ablation import Notice, Progress, ScoringOptions
from dps_local.scoring.clusters import embed, score_clusters
from dps_local.scoring.scoring import score
from dps_local.steering.decoding import Engine
from dps_local.steering.mixing import Gamma
from dps_local.steering.steering import Steering, SteeringMode, scales_of
from dps_local.system.files import cache_folder


@dataclass(frozen=True)
class Settings:
    """What the command line says about a chat; gamma and mode None take the head map's."""

    n_ctx: int = 4096
    n_threads: int | None = None
    profile_tokens: int | None = None  # None: a quarter of the context
    gamma: Gamma | None = None
    mode: SteeringMode | None = None
    beta: float = 0.1
    routing: Routing = "soft"
    routing_temp: float = TEMPERATURE
    embedding_model: Path | None = None  # None: the chat model embeds profiles
    engine: Engine = "auto"
    prefix_cache: bool = True
    sampling: Sampling = field(default_factory=Sampling)
    scoring: ScoringOptions = field(default_factory=ScoringOptions)


class Assistant:
    """Builds prompts, head maps and sessions for one model and profile."""

    def __init__(self, model: Model, profile: Profile | None, settings: Settings, notice: Notice) -> None:
        self.model, self.profile, self.settings, self.notice = model, profile, settings, notice
        self.template = ChatTemplate(model)
        self.n_ctx = min(settings.n_ctx, model.n_ctx_train) if model.n_ctx_train else settings.n_ctx
        if self.n_ctx < settings.n_ctx:
            notice(f"the context is {self.n_ctx} tokens: {model.name} was trained for no more")
        self.prompter = self._prompter(profile) if profile else None

    def _prompter(self, profile: Profile) -> Prompter:
        budget = self.settings.profile_tokens or self.n_ctx // 4
        return Prompter(self.model, self.template, profile, budget, self.n_ctx)

    def system(self) -> str:
        """Return the profile as a system message; says so when not all of it is shown."""
        if self.prompter is None or self.profile is None:
            return ""
        text, shown = self.prompter.system()
        if shown < len(self.profile.history):
            self.notice(
                f"the profile is longer than its {self.prompter.budget} tokens: the model sees the newest {shown} of "
                f"{len(self.profile.history)} history items, and those that go with a question (--profile-tokens shows "
                "more)"
            )
        return text

    def _recall(self, question: str, known: Container[int]) -> tuple[str, list[int]]:
        assert self.prompter
        return self.prompter.request(question, known=known)

    def cache_file(self) -> Path:
        """Return where the head map of this model, profile and these scoring options is cached."""
        assert self.profile
        assert self.prompter
        key = [
            FORMAT,
            self.model.identity.digest,
            self.profile.digest(),
            self.settings.scoring.key(),
            self.prompter.budget,
            self.n_ctx,
        ]
        return cache_folder("maps") / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]}.dps.gguf"

    def cached_map(self) -> HeadMap | None:
        """Return the cached head map, None when there is none or it is damaged."""
        try:
            return HeadMap.load(self.cache_file())
        except HeadMapError:
            return None

    def scored_map(self, progress: Progress | None = None) -> HeadMap:
        """Return the head map of the profile, scored now and cached unless that was done before."""
        head_map = self.cached_map() if self.settings.scoring.resume else None
        if head_map is None:
            assert self.prompter
            head_map = score(self.model, self.prompter, self.settings.scoring, progress, self.notice)
            head_map.save(self.cache_file())
        if head_map.unscored_layers:
            layers = ", ".join(map(str, head_map.unscored_layers))
            self.notice(f"{self.model.name}: no attention heads that can be muted in layers {layers}")
        return head_map

    def clustered_map(
        self, profiles: Sequence[Profile], wanted: int | Literal["auto"], power: float, progress: Progress | None = None
    ) -> ClusterMap:
        """Return the cluster map of many profiles."""
        embedder = self._embedder()
        try:
            return score_clusters(
                self.model,
                [self._prompter(profile) for profile in profiles],
                wanted,
                self.settings.scoring,
                embedder,
                power=power,
                progress=progress,
                notice=self.notice,
            )
        finally:
            embedder.close()

    def _embedder(self, n_ctx: int = PROFILE_TOKENS) -> Embedder:
        model = Model(self.settings.embedding_model) if self.settings.embedding_model else self.model
        return Embedder(model, n_ctx, self.settings.n_threads)

    def baked_map(self) -> HeadMap | ClusterMap | None:
        """Return the map in the model file itself, None when there is none."""
        if not map_file.kind_of(self.model.path):
            return None
        return load_map(self.model.path)

    def map(self, given: Path | None, score: Callable[[], HeadMap]) -> HeadMap | ClusterMap | None:
        """Return the map to steer by: one that is given, the profile's own, or one that is baked into the model.

        "cad" steers by no heads, and needs none.

        A cluster map stands back where the profile's own map is there and has enough evidence. score: called when
        the profile's own map is to be made first.
        """
        if self.settings.mode == "cad":
            return None
        history = bool(self.profile and self.profile.history)
        found = load_map(given) if given else self.baked_map()
        if isinstance(found, ClusterMap):
            own = self.cached_map() if history else None
            if own and own.calibration and own.calibration.helps:
                self.notice("your own head map is used: it has more evidence than the clusters'")
                return own
            self.notice("the cluster map is used: your own " + ("does not help yet" if own else "is not scored"))
            return found
        return score() if history and not given else found

    def steering(self, head_map: HeadMap | ClusterMap | None) -> Steering | None:
        """Return how a map steers, None when it does not."""
        if self.settings.mode == "cad":
            if self.profile is None:
                raise DpsError("--mode cad contrasts answers with and without a profile: give a --profile")
            return self._steering(head_mask(self.model, []), Gamma(), "generated", "cad")
        if head_map is None:
            return None
        if news := head_map.check(self.model.name, self.model.identity):
            self.notice(news)
        if isinstance(head_map, ClusterMap):
            return self._routed(head_map)
        mode = self.settings.mode or head_map.mode
        scales = scales_of(self.model, head_map, mode)
        if head_map.calibration:
            self.notice(head_map.calibration.sentence(forced=self._forced(scales)))
        gamma = Gamma(head_map.gamma if mode == head_map.mode else 0.0)
        return self._steering(scales, gamma, head_map.scope, mode)

    def _steering(
        self, scales: HeadScales, gamma: Gamma, scope: Scope, mode: SteeringMode = "contrast"
    ) -> Steering | None:
        """Return steering with the γ that was asked for, or that of a map; None where no head is scaled."""
        if (scales == 1).all() and mode != "cad":
            self.notice("no head qualifies: steering stays off")
            return None
        if self.settings.mode and gamma.off and self.settings.gamma is None:
            self.notice(f"there is no measured γ for {mode}: steering stays off until --gamma says how strong it is")
        return Steering(scales, self.settings.gamma or gamma, self.settings.beta, scope, mode)

    def _forced(self, scales: HeadScales) -> bool:
        """Whether these scales steer because a strength was asked for, whatever calibration says."""
        return bool(self.settings.gamma and not self.settings.gamma.off and (scales != 1).any())

    def _routed(self, cluster_map: ClusterMap) -> Steering | None:
        """Return the steering of the clusters that the profile belongs to."""
        if self.prompter is None:
            raise HeadMapError("a cluster map needs to know who writes: give a --profile")
        vector = self._vector(cluster_map, self.prompter)
        shares = cluster_map.route(vector, self.settings.routing, self.settings.routing_temp)
        best = int(shares.argmax())
        self.notice(f"cluster {best + 1} of {len(shares)} ({shares[best]:.0%})")
        scales = cluster_map.scales(shares)
        if cluster_map.calibration:
            forced = self._forced(scales)
            self.notice(cluster_map.calibration.sentence("what users like you wrote", forced=forced))
        return self._steering(scales, Gamma(cluster_map.gamma), cluster_map.scope)

    def _vector(self, cluster_map: ClusterMap, prompter: Prompter) -> Vector:
        embedder = self._embedder(cluster_map.embedder_tokens)
        try:
            made_with, found = cluster_map.embedder_metadata, embedder.model.identity
            if found.fingerprint != cluster_map.embedder or made_with not in (None, found.metadata):
                raise HeadMapError(
                    "the cluster map was made with another embedding model: give it by --embedding-model"
                )
            return embed(embedder, prompter)
        finally:
            embedder.close()

    def session(self, head_map: HeadMap | ClusterMap | None) -> Session:
        """Return a new chat, steered by `head_map`."""
        cache = PrefixCache(cache_folder("prefixes")) if self.settings.prefix_cache else None
        if cache:
            cache.tidy()
        return Session(
            self.model,
            self.template,
            system=self.system(),
            recall=self._recall if self.prompter else None,
            steering=self.steering(head_map),
            engine=self.settings.engine,
            cache=cache,
            sampling=self.settings.sampling,
            n_ctx=self.n_ctx,
            n_threads=self.settings.n_threads,
        )


def describe(heads: Sequence[Head], most: int = 5) -> str:
    """Return how many heads there are, and the first of them, e.g. 2 heads (L3H1 L7H0)."""
    names = " ".join(f"L{layer}H{head}" for layer, head in heads[:most])
    return f"{len(heads)} head{'s' * (len(heads) != 1)} ({names}{' …' * (len(heads) > most)})"
