"""`Assistant`: a model that answers for one person, with their profile in the prompt and their heads steered."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator
from dataclasses import dataclass, field, replace
from typing import Self

from dps_local.chat.session import Session
from dps_local.chat.turn import Token
from dps_local.engine.model import Model, head_mask
from dps_local.engine.prefix_cache import PrefixCache
from dps_local.engine.sampler import Sampling
from dps_local.errors import HeadMapError, Remedy, SettingsError
from dps_local.maps.baking import load_map
from dps_local.maps.cluster_map import TEMPERATURE, ClusterMap, Routing
from dps_local.maps.head_map import HeadMap
from dps_local.prompting.chat_template import Exchange
from dps_local.prompting.profile import Profile
from dps_local.prompting.prompt import Prompter, Request
from dps_local.scoring.routing import route
from dps_local.steering.decoding import Engine
from dps_local.steering.mixing import Gamma
from dps_local.steering.steering import Steering, SteeringMode
from dps_local.system.files import StrPath, cache_folder
from dps_local.system.progress import Notice


@dataclass(frozen=True)
class Settings:
    """How an assistant answers. gamma, mode: None takes the head map's, which calibration measured.

    n_ctx: tokens of the context. n_threads: None for all processors. profile_tokens: None for a quarter of the
    context. beta: of the plausibility mask. routing, routing_temp: of a cluster map. embedding_model: embeds profiles
    for it; None takes the chat model. probs: tokens come with their probabilities.
    """

    n_ctx: int = 4096
    n_threads: int | None = None
    profile_tokens: int | None = None
    gamma: Gamma | None = None
    mode: SteeringMode | None = None
    beta: float = 0.1
    routing: Routing = "soft"
    routing_temp: float = TEMPERATURE
    embedding_model: StrPath | None = None
    engine: Engine = "auto"
    probs: bool = False
    prefix_cache: bool = True
    sampling: Sampling = field(default_factory=Sampling)


class Assistant:
    """Answers questions in one conversation. A context manager, that frees the contexts at the end; the model stays.

    profile: or a prompter that shows it otherwise than by default. heads: a map, or the file of one; None steers by
    nothing. notice: is told what a person should know, such as what steering is worth on their own text. Raises
    HeadMapError when the map belongs to another model.
    """

    def __init__(
        self,
        model: Model,
        profile: Profile | Prompter | None = None,
        heads: HeadMap | ClusterMap | StrPath | None = None,
        settings: Settings | None = None,
        *,
        notice: Notice = lambda _: None,
    ) -> None:
        self.model, self.settings, self.notice = model, settings or Settings(), notice
        self.heads = load_map(heads) if isinstance(heads, (str, os.PathLike)) else heads
        n_ctx, n_profile = model.trained_ctx(self.settings.n_ctx, notice), self.settings.profile_tokens
        if isinstance(profile, Profile):
            profile = Prompter.of(model, profile, n_ctx=n_ctx, profile_tokens=n_profile)
        self.prompter = profile
        self.session = Session(
            model,
            self.prompter.template if self.prompter else None,
            system=self.prompter.system if self.prompter else "",
            earlier=self._earlier(),
            recall=self._recall if self.prompter else None,
            steering=self._make_steering(),
            sampling=self.settings.sampling,
            engine=self.settings.engine,
            probs=self.settings.probs,
            cache=self._prefix_cache(),
            n_ctx=n_ctx,
            n_threads=self.settings.n_threads,
        )

    @property
    def steering(self) -> Steering | None:
        """How answers are steered; None where they are not."""
        return self.session.steering

    def ask(self, question: str, n_predict: int = -1) -> Iterator[Token]:
        """Answer a question, token by token, as `Session.ask` does."""
        return self.session.ask(question, n_predict)

    def close(self) -> None:
        self.session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prefix_cache(self) -> PrefixCache | None:
        if not self.settings.prefix_cache:
            return None
        owned = self.prompter.profile.cached if self.prompter else None
        cache = PrefixCache(cache_folder("prefixes"), owned=owned)
        cache.tidy()
        return cache

    def _earlier(self) -> list[Exchange]:
        if self.prompter is None:
            return []
        if news := self.prompter.not_shown():
            self.notice(news)
        return self.prompter.earlier()

    def _recall(self, question: str, known: Container[int]) -> Request:
        assert self.prompter
        return self.prompter.request(question, exclude=known)

    def _make_steering(self) -> Steering | None:
        """Return how the map steers, None when it does not."""
        heads = self.heads
        if self.settings.mode == "cad":
            if self.prompter is None:
                raise SettingsError("CAD contrasts answers with and without a profile", Remedy.GIVE_PROFILE)
            return self._adjusted(Steering(head_mask(self.model, []), Gamma(), mode="cad"))
        if heads is None:
            return None
        if message := heads.check(self.model.name, self.model.identity):
            self.notice(message)
        if isinstance(heads, ClusterMap):
            return self._routed(heads)
        steering = heads.steering(self.model, self.settings.mode)
        if heads.calibration:
            self.notice(heads.calibration.sentence(forced=self._forced(steering)))
        elif heads.step:
            self.notice(heads.step.sentence(forced=self._forced(steering)))
        return self._adjusted(steering)

    def _routed(self, cluster_map: ClusterMap) -> Steering | None:
        """Return the steering of the clusters that the profile belongs to."""
        if self.prompter is None:
            raise HeadMapError("a cluster map needs to know who writes", Remedy.GIVE_PROFILE)
        settings = self.settings
        shares = route(
            cluster_map,
            self.prompter,
            settings.routing,
            settings.routing_temp,
            embedding_model=settings.embedding_model,
            n_threads=settings.n_threads,
        )
        best = int(shares.argmax())
        self.notice(f"cluster {best + 1} of {len(shares)} ({shares[best]:.0%})")
        steering = cluster_map.steering(shares)
        if cluster_map.calibration:
            forced = self._forced(steering)
            self.notice(cluster_map.calibration.sentence("what users like you wrote", forced=forced))
        return self._adjusted(steering)

    def _forced(self, steering: Steering) -> bool:
        """Whether heads steer because a strength was asked for, whatever calibration says."""
        gamma = self.settings.gamma
        return bool(gamma and not gamma.off and steering.heads)

    def _adjusted(self, steering: Steering) -> Steering | None:
        """Return steering with the γ and β that were asked for; None where no head is scaled."""
        if steering.mode != "cad" and not steering.heads:
            self.notice("no head qualifies: steering stays off")
            return None
        settings = self.settings
        if settings.mode and steering.gamma.off and settings.gamma is None:
            self.notice(
                f"there is no measured γ for {settings.mode}: steering stays off until --gamma says how strong it is"
            )
        return replace(steering, gamma=settings.gamma or steering.gamma, beta=settings.beta)
