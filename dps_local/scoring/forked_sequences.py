"""`ForkedSequences`: sequences that go on from one prompt, each with its own head scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dps_local.engine.context import N_UBATCH, Context, Run
from dps_local.engine.model import Model, Scope
from dps_local.engine.stream import Stream, in_batches

KERNEL_ROWS = 4  # ggml's kernels take rows by four, and a remainder in another way, which rounds differently
MAX_TARGET = N_UBATCH // KERNEL_ROWS  # tokens


@dataclass(frozen=True)
class ScoredText:
    """What is scored: the tokens of a prompt, and of what the user wrote after it."""

    prompt: list[int]
    target: list[int]


def longest(texts: Sequence[ScoredText]) -> tuple[int, int]:
    """Return the most tokens of a text, and of a target."""
    return max(len(t.prompt) + len(t.target) for t in texts), max(len(t.target) for t in texts)


class ForkedSequences:
    """Sequence 0 keeps what a text's sequences share; sequences 1 to n are forked from it.

    That is the prompt but for its last token in 'generated' scope, and nothing in 'all' scope, where the prompt goes
    through every one of them. length, target: of the longest text, in tokens.
    """

    def __init__(
        self, model: Model, length: int, target: int, n: int, scope: Scope, n_threads: int | None = None
    ) -> None:
        self.scope, self.n = scope, n
        self.context = Context(
            model,
            length,
            n_seq=n + 1,
            n_outputs=n * target,
            n_threads=n_threads,
            flash_attn=False,  # ggml's tiled CPU kernel needs 64 queries a sequence, and targets are shorter
        )
        self.prefix = Stream(self.context)

    def close(self) -> None:
        self.context.close()

    def read(self, text: ScoredText) -> None:
        """Put what is shared of a text into all sequences, unless it is there already."""
        shared = in_batches(text.prompt[:-1]) if self.scope == "generated" else []
        if self.prefix.calls != shared:
            self.prefix.clear()
            self.prefix.replay(shared)
            for seq in range(1, self.n + 1):
                self.context.copy(0, seq)

    def runs(self, text: ScoredText, n: int) -> list[Run]:
        """Bring the first n forks to where the target begins, and return what is to be decoded from there.

        Head scales must be set: in 'all' scope, the prompt is decoded here.
        """
        seqs, last = range(1, n + 1), len(text.prompt) - 1
        start = last if self.scope == "generated" else 0
        for seq in seqs:
            if not self.context.truncate(seq, start):
                self.context.copy(0, seq)  # a recurrent state cannot be cut back
        step = max(1, N_UBATCH // n)  # equal parts that fill a batch
        for i in range(start, last, step):
            self.context.decode([Run(seq, i, text.prompt[i : min(i + step, last)]) for seq in seqs])
        tokens = [text.prompt[last], *text.target[:-1]]
        return [Run(seq, last, tokens, len(tokens)) for seq in seqs]
