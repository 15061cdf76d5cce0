"""`StepEvidence`: what is expected of scaling a person's heads, and on what that rests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dps_local.maps.fields import COUNT, NUMBER, NUMBERS, TEXT

NO_KIND = "none of them"
HELPFUL = 0.9  # probability of help from which on steering is on


@dataclass(frozen=True)
class StepEvidence:
    """kinds, shares: of writing that others' texts tell of, by commas, and the probability of each.

    gain: that is expected, in nats a token, with its standard deviation and the probability that it is above 0.
    texts, tokens: of the person's own that had a part in it.
    """

    kinds: str = field(metadata=TEXT)
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
        return of_no_kind(self.shares)

    def sentence(self, *, forced: bool = False) -> str:
        """Say in one line what steering is expected to be worth; forced: it is not off all the same."""
        kinds = self.kinds.split(", ")
        if self.no_kind:
            known = " and ".join(kinds[:-1])
            text = f"what you wrote is unlike the writing that is known for this model ({known})"
            more = "--gamma steers all the same" if forced else "it stays off until scoring measures it on your texts"
            return f"{text}, so nothing says yet whether steering helps; {more}"
        others = [
            f"{kind} ({share:.0%})" for kind, share in zip(kinds[:-1], self.shares, strict=False) if share >= 0.05
        ]
        own = f"{self.texts} texts of yours ({self.tokens} tokens)" if self.texts else ""
        rests = " and ".join([*([f"other people's {', '.join(others)}"] if others else []), *([own] if own else [])])
        gain = f"{self.gain:+.3f} ± {self.deviation:.3f}".replace("-", "−")
        text = f"steering is expected to be worth {gain} nats a token on your writing, by {rests}"
        if self.helps:
            return text
        off = "--gamma steers all the same" if forced else "it stays off"
        return f"{text}; it helps with {self.probability:.0%}, and {HELPFUL:.0%} are needed: {off}"


def of_no_kind(shares: Sequence[float]) -> bool:
    """Return whether a text is more likely of none of the kinds; shares: of each kind and, last, of none."""
    return bool(shares) and shares[-1] > 0.5
