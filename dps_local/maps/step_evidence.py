"""`StepEvidence`: what is expected of scaling a person's heads, and on what that rests."""

from __future__ import annotations

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

    def sentence(self, *, forced: bool = False) -> str:
        """Say in one line what steering is expected to be worth; forced: it is not off all the same."""
        sources = [
            f"{kind} ({share:.0%})"
            for kind, share in zip(self.kinds.split(", "), self.shares, strict=False)
            if share >= 0.05
        ]
        others = f"others' texts: {', '.join(sources)}" if sources else ""
        own = f"{self.texts} of your own ({self.tokens} tokens)" if self.texts else ""
        rests = " and ".join(part for part in (others, own) if part)
        gain = f"{self.gain:+.3f} ± {self.deviation:.3f}".replace("-", "−")
        text = f"steering is expected to be worth {gain} nats a token (helps with {self.probability:.0%}), from {rests}"
        return text if self.helps else f"{text}; " + ("--gamma steers all the same" if forced else "it stays off")
