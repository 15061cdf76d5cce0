"""`Turn`: a question and its answer, and where they stand in the streams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from dps_local.steering.contrast import DecodingCounts
from dps_local.steering.decoding import Step

StopReason = Literal["eog", "stop", "length", "context", "interrupted"]


@dataclass(frozen=True)
class Token(Step):
    """A step of an answer, with its text."""

    text: str


@dataclass
class Timings:
    """As llama.cpp's server reports them; ttft_ms is the time to the first token, prompt included."""

    prompt_n: int = 0
    prompt_ms: float = 0.0
    predicted_n: int = 0
    predicted_ms: float = 0.0

    @property
    def token_ms(self) -> float:
        return self.predicted_ms / max(self.predicted_n, 1)

    @property
    def ttft_ms(self) -> float:
        return self.prompt_ms + self.token_ms


@dataclass(eq=False)
class Turn:
    user: str
    start: int  # tokens in the full stream before this turn
    pending: list[int]  # tokens that were not in the KV cache yet when the turn began
    opening: int  # how many of them stand before the question itself
    n_predict: int = -1  # tokens that were asked for; -1: any number
    recalled: Sequence[int] = ()  # items that came with the question, and leave with it
    tokens: list[Token] = field(default_factory=list)
    steps: int = 0  # of the answer, given out or not: each reads the token before
    tail: list[int] | None = None  # what a stop text left of the last token, when it began inside it
    stop: StopReason = "interrupted"
    gamma: str = "0"  # that steered the answer
    timings: Timings = field(default_factory=Timings)
    counts: DecodingCounts | None = None  # of a contrast
    left: int = 0  # earlier turns that left the context, to make room for this one

    @property
    def question(self) -> int:
        """Tokens in the full stream before the question itself."""
        return self.start + self.opening

    @property
    def answer(self) -> int:
        """Tokens in the full stream before the answer."""
        return self.start + len(self.pending) - 1

    @property
    def n_decoded(self) -> int:
        """Tokens that were decoded for the answer: the last one of the prompt, those of the text, the end token.

        A step whose token was not given out (of a stop text, or after an interruption) does not count.
        """
        return min(self.steps, len(self.tokens) + (self.tail is None))

    @property
    def ids(self) -> list[int]:
        """Tokens of the answer, as the text has them."""
        ids = [t.id for t in self.tokens]
        return ids if self.tail is None else [*ids[:-1], *self.tail]

    @property
    def text(self) -> str:
        return "".join(t.text for t in self.tokens)
