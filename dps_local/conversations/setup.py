"""`Setup`: what the answers of a chat depend on beside its words."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Self

from dps_local.chat.session import Session
from dps_local.engine import native
from dps_local.prompting import prompt
from dps_local.prompting.prompt import Prompter


@dataclass(frozen=True)
class Setup:
    """A conversation whose setup is the same happens again bit for bit on a CPU; else its text is read again.

    model: its name. fingerprint: of its weights, metadata and templates. head_map: of the scales and the scope that the
    map gives, '' where nothing steers. profile: of what prompts show of it. version: of prompts and the library.
    person: the profile's file, '' without one. options: of the command line that chose all this, by name.
    """

    model: str
    fingerprint: str
    head_map: str
    mode: str
    profile: str
    n_ctx: int
    version: str
    person: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, session: Session, prompter: Prompter | None, options: dict[str, Any] | None = None) -> Self:
        steering, heads = session.steering, ""
        if steering and steering.mode != "cad":
            heads = hashlib.sha256(steering.scales.tobytes() + steering.scope.encode()).hexdigest()
        shown = [prompter.profile.digest(), prompter.budget] if prompter else []
        path = prompter.profile.path if prompter else None
        return cls(
            session.model.name,
            session.model.identity.digest,
            heads,
            steering.mode if steering else "",
            hashlib.sha256(json.dumps([*shown, session.prompts.prefix]).encode()).hexdigest(),
            session.full.context.n_ctx,
            f"{prompt.VERSION} {native.PATCH_VERSION} {session.full.context.native.version}",
            str(path) if path else "",
            options or {},
        )

    def changes(self, now: Setup) -> list[str]:
        """Return what is another now, in words."""
        what = {
            "model": "fingerprint",
            "head map": "head_map",
            "mode": "mode",
            "profile": "profile",
            "context size": "n_ctx",
            "version of dps-local": "version",
        }
        return [words for words, name in what.items() if getattr(self, name) != getattr(now, name)]
