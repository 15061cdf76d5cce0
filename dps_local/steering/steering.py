"""`Steering`: how heads steer an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dps_local.engine.model import Head, HeadScales, Scope
from dps_local.errors import SettingsError
from dps_local.steering.mixing import Gamma, Logits, mix

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
            raise SettingsError("amplification scales heads before the logits are known: γ must be a number")

    @property
    def heads(self) -> list[Head]:
        """The heads that are scaled, layer by layer."""
        return [(int(layer), int(head)) for layer, head in np.argwhere(self.scales != 1)]

    @property
    def off(self) -> bool:
        """Whether it steers by nothing: γ is 0, or there is no head to scale, in a mode that scales heads."""
        return self.gamma.off or (self.mode != "cad" and not (self.scales != 1).any())

    @property
    def contrasts(self) -> bool:
        """Whether an answer comes from two streams."""
        return self.mode != "amplify" and not self.gamma.off

    @property
    def own_scales(self) -> HeadScales:
        """Scales F32 [n_layer, n_head_max] of the stream that steering decodes itself, beside the full model's.

        "contrast": those of the second stream. "amplify": those of the one stream. "cad": 1.
        """
        return amplified(self.scales - 1, self.gamma.value) if self.mode == "amplify" else self.scales

    def mix(self, full: Logits, own: Logits, gamma: float | None = None) -> Logits:
        """Return the steered logits of a token, without the plausibility mask.

        full: those of the full model; own: those of the stream with `own_scales` (of "cad", without the profile).
        gamma: of this step, for logits of a part of the vocabulary; None takes it from all of them.
        """
        if self.mode == "amplify":
            return own
        return mix(full, own, self.gamma(full) if gamma is None else gamma, beta=0.0)

    def mutes_as(self, other: Steering) -> bool:
        """Whether the muted stream of `other` holds the same values."""
        return (self.scope, self.mode) == (other.scope, other.mode) and np.array_equal(self.scales, other.scales)

    @property
    def first_layer(self) -> int:
        """The lowest layer in which the streams of an answer differ."""
        if self.scope == "all" or self.mode == "cad":
            return 0
        return int(np.argmax((self.scales != 1).any(axis=1)))


def amplified(weights: HeadScales, gamma: float = 1.0) -> HeadScales:
    """Return scales 1 + γ·w; 1 where a weight is NaN, as there is no head. Those of γ = 1 are a `Steering`'s."""
    return np.asarray(np.nan_to_num(1 + gamma * weights, nan=1.0), np.float32)
