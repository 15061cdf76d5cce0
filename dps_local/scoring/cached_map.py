"""`CachedMap`: the head map of one profile and one model, scored once and then kept."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from dps_local.errors import HeadMapError
from dps_local.maps.head_map import HeadMap
from dps_local.maps.map_file import FORMAT
from dps_local.prompting.prompt import Prompter
from dps_local.scoring.first_map import first_map
from dps_local.scoring.options import ScoringOptions
from dps_local.scoring.scoring import score
from dps_local.system.files import cache_folder
from dps_local.system.progress import Notice, Progress


@dataclass(frozen=True)
class CachedMap:
    """Found again by all that scores depend on: the model, the profile, its prompts, the options."""

    prompter: Prompter
    options: ScoringOptions

    @classmethod
    def of(cls, prompter: Prompter, options: ScoringOptions) -> CachedMap | None:
        """Return the map of a profile; None where it has no words of the person's own, on which heads are scored."""
        return cls(prompter, options) if prompter.profile.own_items() else None

    @property
    def path(self) -> Path:
        return self.file(self.prompter.profile.digest(), "dps.gguf")

    def file(self, whose: object, suffix: str) -> Path:
        """Return where something lies that was made with this model and these options; whose: for JSON."""
        key = [
            FORMAT,
            self.prompter.model.identity.digest,
            whose,
            self.options.key(),
            self.prompter.budget,
            self.prompter.n_ctx,
        ]
        return cache_folder("maps") / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]}.{suffix}"

    def load(self) -> HeadMap | None:
        """Return the map, None when there is none or it is damaged."""
        self.prompter.profile.cached.note([self.path])
        try:
            return HeadMap.load(self.path)
        except HeadMapError:
            return None

    def load_or_begin(self, progress: Progress | None = None, notice: Notice | None = None) -> HeadMap:
        """Return the map, or else the one that a chat begins with; where that cannot be had, heads are scored now."""
        known = self._known()
        first = None if known else first_map(self.prompter, self.options, progress, notice)
        return first or self._scored(known, progress, notice)

    def load_or_score(self, progress: Progress | None = None, notice: Notice | None = None) -> HeadMap:
        """Return the map, scored now and kept unless that was done before, or is to be done anew (options.resume)."""
        return self._scored(self._known(), progress, notice)

    def _known(self) -> HeadMap | None:
        return self.load() if self.options.resume else None

    def _scored(self, head_map: HeadMap | None, progress: Progress | None, notice: Notice | None) -> HeadMap:
        if head_map is None:
            head_map = score(self.prompter.model, self.prompter, self.options, progress, notice)
            self.prompter.profile.cached.note([self.path])
            head_map.save(self.path)
        if notice and head_map.unscored_layers:
            layers = ", ".join(map(str, head_map.unscored_layers))
            notice(f"{self.prompter.model.name}: no attention heads that can be muted in layers {layers}")
        return head_map
