"""`Steering`: how heads steer an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dps_local.engine.model import HeadScales, Model, Scope, head_mask
from dps_local.errors import DpsError
from dps_local.maps.head_map import HeadMap
from dps_local.scoring.calibration import amplified
from dps_local.steering.mixing import Gamma

SteeringMode = Literal["contrast", "amplify", "cad"]


@dataclass(frozen=True)
class Steering:
    """How heads steer: scales F32 [n_layer, n_head_max], γ, the mode and the scope.

    mode "contrast": a second stream has its heads scaled (0 = muted), and the answer comes from f + γ·(f - m) under
    the plausibility mask β. "amplify": there is one stream, and its heads are scaled by 1 + γ·(scale - 1). "cad": the
    second stream has its heads as they are, and reads the questions alone, without the profile (context-aware
    decoding, arXiv 2305.14739).

    scope "generated": the prompt is read with all heads as they are, so only the last prompt token and the answer
    are scaled. "all": the prompt is scaled, too; a contrast reads it twice.
    """

    scales: HeadScales
    gamma: Gamma
    beta: float = 0.1
    scope: Scope = "generated"
    mode: SteeringMode = "contrast"

    def __post_init__(self) -> None:
        if self.mode == "amplify" and self.gamma.entropy:
            raise DpsError("amplification scales heads before the logits are known: γ must be a number")

    def mutes_as(self, other: Steering) -> bool:
        """Whether the muted stream of `other` holds the same values."""
        return (self.scope, self.mode) == (other.scope, other.mode) and np.array_equal(self.scales, other.scales)

    def amplified(self) -> HeadScales:
        """Return the scales of the one stream."""
        return amplified(self.scales - 1, self.gamma.value)

    @property
    def first_layer(self) -> int:
        """The lowest layer in which the streams of an answer differ."""
        if self.scope == "all" or self.mode == "cad":
            return 0
        return int(np.argmax((self.scales != 1).any(axis=1)))


def scales_of(model: Model, head_map: HeadMap, mode: SteeringMode) -> HeadScales:
    """Return the scales that a map says: of muted heads, or of heads amplified at γ = 1."""
    if mode == "contrast":
        return head_mask(model, head_map.selected)
    return amplified(head_map.weights, 1.0)
