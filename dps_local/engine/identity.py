"""`Identity`: which model this is, for all that is kept of one: maps, scores, states, results."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Identity:
    """SHA-256 digests of what a model's numbers and prompts depend on.

    fingerprint: of the tensors, in however many files they are. metadata: of hyperparameters and tokenizer. template:
    of the chat templates. A map that is older than the last two has None there.
    """

    fingerprint: str
    metadata: str | None = None
    template: str | None = None

    @property
    def digest(self) -> str:
        """One digest of all of it."""
        return hashlib.sha256(f"{self.fingerprint} {self.metadata} {self.template}".encode()).hexdigest()
