"""`Stream`: one sequence of a context, and the exact calls that filled it."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dps_local.engine.context import N_UBATCH, Context, Logits, Run
from dps_local.engine.model import HeadScales
from dps_local.engine.prefix_cache import PrefixCache


class Stream:
    """A sequence that remembers its calls, and the head scales of each.

    Two streams that were fed by the same calls are bit-identical on the CPU, so calls are what is kept in step.
    seq: its sequence of the context.
    """

    def __init__(self, context: Context, seq: int = 0) -> None:
        self.context, self.seq = context, seq
        self.calls: list[list[int]] = []
        self.n = 0
        self._interrupted = False  # whether a call was made that was not recorded
        self.shifted = False  # whether it saw tokens that are gone: its calls would not give its values again
        self.scales: HeadScales | None = None
        self._scaled: list[HeadScales | None] = []  # of each call

    def scale(self, scales: HeadScales | None) -> None:
        """Scale the head outputs of the tokens that are decoded from now on; None leaves them as they are."""
        self.context.set_head_scales(self.seq, scales)
        self.scales = scales

    def decode(self, tokens: list[int], n_logits: int = 0, rows: NDArray[np.integer] | None = None) -> Logits:
        """Append tokens in one call; return logits F32 [n_logits, n_vocab] of the last ones, or [n_logits, n_rows]."""
        run = self.run(tokens, n_logits)
        logits = self.context.decode([run]) if rows is None else self.context.decode_rows([run], rows)
        self.record(tokens)
        return logits

    def run(self, tokens: list[int], n_logits: int = 0) -> Run:
        """Return the run that appends tokens, to be recorded when its call has been made."""
        if self._interrupted:
            self.context.truncate(self.seq, self.n)  # what that call may have left
        self._interrupted = True
        return Run(self.seq, self.n, tokens, n_logits)

    def record(self, tokens: list[int]) -> None:
        """Append tokens that the context has read in one call by itself."""
        self.calls.append(tokens)
        self._scaled.append(self.scales)
        self.n += len(tokens)
        self._interrupted = False

    def replay(self, calls: list[list[int]], cancel: threading.Event | None = None) -> bool:
        """Make `calls` one after the other; False when `cancel` was set on the way."""
        try:
            for tokens in calls:
                # what computes one token ends soon anyway, and asks as often as for many
                with self.context.ended_by(cancel if len(tokens) > 1 else None):
                    self.decode(tokens)
                if cancel and cancel.is_set():
                    return False
        except InterruptedError:
            return False
        return True

    def read(self, tokens: list[int], cache: PrefixCache, cancel: threading.Event | None = None) -> bool:
        """Fill an empty stream with the beginning of a prompt, from the cache if it is there; False as in `replay`."""
        calls = in_batches(tokens)
        if cache.load(self.context, tokens, self.scales, self.seq):
            self.calls, self._scaled, self.n = calls, [self.scales] * len(calls), len(tokens)
        elif self.replay(calls, cancel):
            cache.save(self.context, tokens, self.scales, self.seq)
        else:
            return False
        return True

    def tokens(self) -> list[int]:
        """Return all tokens that were read."""
        return [token for call in self.calls for token in call]

    def calls_after(self, n: int) -> list[list[int]]:
        """Return the calls that came after the first n tokens; the first of them may be the end of a call."""
        after, end = list[list[int]](), 0
        for tokens in self.calls:
            end += len(tokens)
            if end > n:
                after.append(tokens[max(0, len(tokens) - (end - n)) :])
        return after

    def rewind(self, n: int) -> None:
        """Go back to where only the first n tokens had been read; nothing happens where there are no more."""
        self.drop(n, self.n)

    def drop(self, start: int, end: int) -> None:
        """Forget the tokens from `start` to `end`; those behind them move up."""
        if start >= end:
            return
        kept, at = list[tuple[list[int], HeadScales | None]](), 0
        for tokens, scales in zip(self.calls, self._scaled, strict=True):
            left = tokens[: max(0, start - at)] + tokens[max(0, end - at) :]
            at += len(tokens)
            if left:
                kept.append((left, scales))
        context, seq = self.context, self.seq
        if context.truncate(seq, start) if end == self.n else context.shift(start, end, seq):
            self.calls, self._scaled = [tokens for tokens, _ in kept], [scales for _, scales in kept]
            self.shifted |= end < self.n
            self.n -= end - start
            return
        self.clear()  # a recurrent state cannot be cut: read it again
        now = self.scales
        for tokens, scales in kept:
            self.scale(scales)
            self.decode(tokens)
        self.scale(now)

    def clear(self) -> None:
        self.context.truncate(self.seq, 0)
        self.calls, self._scaled, self.n, self.shifted = [], [], 0, False

    def copy_from(self, other: Stream) -> None:
        """Make this an exact copy of a stream over the same context, or one of the same settings."""
        self.clear()
        if self.context is other.context:
            self.context.copy(other.seq, self.seq)
        else:
            self.context.set_state(other.context.state(other.seq), self.seq)
        self.calls, self._scaled = list(other.calls), list(other._scaled)
        self.n, self.shifted = other.n, other.shifted


def in_batches(tokens: list[int], n_batch: int = N_UBATCH) -> list[list[int]]:
    """Return many tokens as calls of one batch each."""
    return [tokens[i : i + n_batch] for i in range(0, len(tokens), n_batch)]


def common(a: Sequence[object], b: Sequence[object]) -> int:
    """Return how many tokens, or turns, two sequences begin with in common."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
