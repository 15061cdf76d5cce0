"""`Calibration`: what steering is worth on a user's held-out text, and the `Candidate` that was worth most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from dps_local.engine.model import Head, HeadScales, Model, Scope, head_mask
from dps_local.maps.fields import COUNT, NUMBER, inline, one_of, optional
from dps_local.maps.step_evidence import HELPFUL
from dps_local.steering.mixing import Gamma
from dps_local.steering.steering import Steering, amplified

Mode = Literal["contrast", "amplify"]


@dataclass(frozen=True)
class Candidate:
    """One way of steering: heads is K of the contrast, and None for the amplification, which scales all of them."""

    mode: Mode = field(metadata=one_of(get_args(Mode)))
    heads: int | None = field(metadata=optional(COUNT))
    gamma: float = field(metadata=NUMBER)

    def steering(self, model: Model, chosen: Sequence[Head], weights: HeadScales, scope: Scope) -> Steering:
        """Return how this candidate steers; the plausibility mask is left out.

        chosen: heads, best first. weights: F32 [n_layer, n_head_max] of the amplification, NaN where there is no head.
        """
        contrast = self.mode == "contrast"
        scales = head_mask(model, chosen[: self.heads]) if contrast else amplified(weights)
        return Steering(scales, Gamma(self.gamma), 0.0, scope, self.mode)


NO_STEERING = Candidate("contrast", 0, 0.0)


@dataclass(frozen=True)
class Calibration:
    """What steering is worth on text that chose no heads: nats per token, with a 95 % interval, over n items.

    The interval is that of `best` among all candidates that were tried, at once. more_messages: about how many more of
    them may tell, None when they are not expected to. temperature, plain_temperature: the best ones, steered and not.
    probability: that steering helps, by these items and by what others' texts tell; None where only the items count.
    end: how much likelier it makes the ends of texts, in nats; None where all were cut.
    """

    gain: float = field(metadata=NUMBER)
    low: float = field(metadata=NUMBER)
    high: float = field(metadata=NUMBER)
    n: int = field(metadata=COUNT)
    best: Candidate = field(metadata=inline(Candidate))
    temperature: float = field(metadata=NUMBER)
    plain_temperature: float = field(metadata=NUMBER)
    more_messages: int | None = field(default=None, metadata=optional(COUNT))
    probability: float | None = field(default=None, metadata=optional(NUMBER))
    end: float | None = field(default=None, metadata=optional(NUMBER))

    @property
    def helps(self) -> bool:
        return self.low > 0 if self.probability is None else self.probability >= HELPFUL

    @property
    def worth(self) -> str:
        """The gain with half its interval, in nats per token."""
        return f"{_signed(self.gain)} ± {(self.high - self.low) / 2:.3f}"

    def __str__(self) -> str:
        return self.sentence()

    def sentence(self, whose: str = "your writing", *, forced: bool = False) -> str:
        """Say in one line what steering is worth; forced: it is not off all the same."""
        gain = f"{_signed(self.gain)} [{_signed(self.low)}, {_signed(self.high)}] nats a token"
        if self.probability is not None:
            text = f"steering is worth {gain} on {whose}, and helps with {self.probability:.0%} by all that is known"
            return text if self.helps else f"{text}; " + ("--gamma steers all the same" if forced else "it stays off")
        if self.helps:
            return f"steering is worth {gain} on {whose}"
        text = f"steering does not help on {whose} ({gain})"
        off = "--gamma steers all the same" if forced else "it stays off"
        if self.more_messages is None:
            return f"{text}; {off}"
        return f"{text} yet; {off}; about {self.more_messages} more messages may tell"


def _signed(x: float) -> str:
    return f"{x:+.3f}".replace("-", "−")
