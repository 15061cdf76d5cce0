"""`Steering`: how heads steer an answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dps_local.calibration import Mode, amplified
from dps_local.errors import DpsError
from dps_local.mixing import Gamma
from dps_local.model import HeadScales, Scope


@dataclass(frozen=True)
class Steering:
    """How heads steer: scales F32 [n_layer, n_head_max], γ, the mode and the scope.

    mode "contrast": a second stream has its heads scaled (0 = muted), and the answer comes from f + γ·(f - m) under
    the plausibility mask β. "amplify": there is one stream, and its heads are scaled by 1 + γ·(scale - 1).

    scope "generated": the prompt is read with all heads as they are, so only the last prompt token and the answer
    are scaled. "all": the prompt is scaled, too; a contrast reads it twice.
    """

    scales: HeadScales
    gamma: Gamma
    beta: float = 0.1
    scope: Scope = "generated"
    mode: Mode = "contrast"

    def __post_init__(self) -> None:
        if self.mode == "amplify" and self.gamma.entropy:
            raise DpsError("amplification scales heads before the logits are known: γ must be a number")

    def mutes_as(self, other: Steering) -> bool:
        """Whether the muted stream of `other` holds the same values."""
        return self.scope == other.scope and np.array_equal(self.scales, other.scales)

    def amplified(self) -> HeadScales:
        """Return the scales of the one stream."""
        return amplified(self.scales - 1, self.gamma.value)

    @property
    def first_layer(self) -> int:
        """The lowest layer with a scaled head: below it both streams of an answer in 'generated' scope are the same."""
        return int(np.argmax((self.scales != 1).any(axis=1)))
