"""`StepEvidence`: what is expected of scaling a person's heads, and on what that rests."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import NormalDist

from dps_local.maps.fields import COUNT, NUMBER, NUMBERS, TEXTS

NO_KIND = "something else"
HELPFUL = 0.9  # probability of help from which on steering is on
BOUND = NormalDist().inv_cdf(HELPFUL)  # standard deviations, of a one-sided bound that holds with HELPFUL


@dataclass(frozen=True)
class StepEvidence:
    """kinds, shares: of writing that others' texts tell of, and the probability of each; the last is NO_KIND.

    gain: that is expected, in nats a token, with its standard deviation and the probability that it is above 0.
    texts, tokens: of the person's own that had a part in it.
    """

    kinds: tuple[str, ...] = field(metadata=TEXTS)
    shares: tuple[float, ...] = field(metadata=NUMBERS)
    gain: float = field(metadata=NUMBER)
    deviation: float = field(metadata=NUMBER)
    probability: float = field(metadata=NUMBER)
    texts: int = field(metadata=COUNT)
    tokens: int = field(metadata=COUNT)

    @property
    def helps(self) -> bool:
        return self.probability >= HELPFUL

    @property
    def no_kind(self) -> bool:
        """Whether the person's text is more likely of none of the kinds that others' texts tell of."""
        return bool(self.shares) and self.shares[-1] > 0.5

    def sentence(self, *, forced: bool = False) -> str:
        """Say in one line what steering is expected to be worth; forced: it is not off all the same."""
        gain = f"{self.gain:+.3f} ± {self.deviation:.3f}".replace("-", "−")
        text = f"steering is expected to be worth {gain} nats a token on your writing, by {self._rests_on()}"
        if self.helps:
            return text
        off = "--gamma steers all the same" if forced else "it stays off"
        return f"{text}; it helps with {self.probability:.0%}, and {HELPFUL:.0%} are needed: {off}"

    def _rests_on(self) -> str:
        own = f"{self.texts} texts of yours ({self.tokens} tokens)" if self.texts else ""
        if self.no_kind:
            return f"{own}, which are unlike other people's {' and '.join(self.kinds[:-1])}"
        kinds = zip(self.kinds[:-1], self.shares, strict=False)
        others = ", ".join(f"{kind} ({share:.0%})" for kind, share in kinds if share >= 0.05)
        return " and ".join([*([f"other people's {others}"] if others else []), *([own] if own else [])])
