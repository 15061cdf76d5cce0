"""`Assistant`: a model, a profile and a head map, put together for chat; scores the profile on its first use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from dps_local.errors import HeadMapError
from dps_local.files import cache_folder
from dps_local.head_map import FORMAT, HeadMap
from dps_local.mixing import Gamma
from dps_local.model import Model, head_mask
from dps_local.profile import Profile
from dps_local.prompt import Prompter
from dps_local.sampler import Sampling
from dps_local.scoring import Progress, ScoringOptions, score
from dps_local.session import Session, Steering
from dps_local.template import ChatTemplate

Notice = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """What the command line says about a chat; gamma None takes the head map's."""

    n_ctx: int = 4096
    n_threads: int | None = None
    profile_tokens: int | None = None  # None: a quarter of the context
    gamma: Gamma | None = None
    beta: float = 0.1
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
        budget = settings.profile_tokens or self.n_ctx // 4
        self.prompter = Prompter(model, self.template, profile, budget) if profile else None

    def system(self) -> str:
        """Return the profile as a system message; says so when not all of it is shown."""
        if self.prompter is None or self.profile is None:
            return ""
        text, shown = self.prompter.system()
        if shown < len(self.profile.history):
            self.notice(
                f"the profile is longer than its {self.prompter.budget} tokens: the newest {shown} of "
                f"{len(self.profile.history)} history items are shown to the model (--profile-tokens shows more)"
            )
        return text

    def cache_file(self) -> Path:
        """Return where the head map of this model, profile and these scoring options is cached."""
        assert self.profile
        assert self.prompter
        options = asdict(replace(self.settings.scoring, parallel=None, n_threads=None))
        key = [FORMAT, self.model.fingerprint, self.profile.digest(), options, self.prompter.budget]
        return cache_folder("maps") / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]}.dps.gguf"

    def cached_map(self) -> HeadMap | None:
        """Return the cached head map, None when there is none or it is damaged."""
        try:
            return HeadMap.load(self.cache_file())
        except HeadMapError:
            return None

    def scored_map(self, progress: Progress | None = None) -> HeadMap:
        """Return the head map of the profile, scored now and cached unless that was done before."""
        head_map = self.cached_map()
        if head_map is None:
            assert self.prompter
            head_map = score(self.model, self.prompter, self.settings.scoring, progress)
            head_map.save(self.cache_file())
        if head_map.unscored_layers:
            layers = ", ".join(map(str, head_map.unscored_layers))
            self.notice(f"{self.model.name}: no attention heads that can be muted in layers {layers}")
        return head_map

    def baked_map(self) -> HeadMap | None:
        """Return the head map in the model file itself, None when there is none."""
        try:
            head_map = HeadMap.load(self.model.path)
        except HeadMapError:
            return None
        head_map.check(self.model.name, self.model.fingerprint)
        return head_map

    def steering(self, head_map: HeadMap | None) -> Steering | None:
        if head_map is None:
            return None
        head_map.check(self.model.name, self.model.fingerprint)
        if not head_map.selected:
            self.notice("no head of this map helps the user's text: steering stays off")
            return None
        gamma = self.settings.gamma or Gamma(head_map.gamma)
        return Steering(head_mask(self.model, head_map.selected), gamma, self.settings.beta, head_map.scope)

    def session(self, head_map: HeadMap | None) -> Session:
        """Return a new chat, steered by `head_map`."""
        return Session(
            self.model,
            self.template,
            system=self.system(),
            steering=self.steering(head_map),
            sampling=self.settings.sampling,
            n_ctx=self.n_ctx,
            n_threads=self.settings.n_threads,
        )


def describe(heads: Sequence[tuple[int, int]]) -> str:
    """Return heads as text, e.g. L3H1 L7H0."""
    return " ".join(f"L{layer}H{head}" for layer, head in heads)
