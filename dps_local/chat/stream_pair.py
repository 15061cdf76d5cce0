"""`StreamPair`: the full stream of a chat and the muted one that steering needs, kept in step."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from dps_local.engine.context import Context
from dps_local.engine.model import HeadScales
from dps_local.engine.prefix_cache import LEAST, PrefixCache
from dps_local.engine.stream import Stream, in_batches
from dps_local.steering.steering import Steering


class StreamPair:
    """Two streams that are fed by the same calls, so that on the CPU equal heads give equal bits.

    The muted one is made when steering first needs it, in a context of its own or, once they are joined, in the full
    one's. new_context: makes a context of so many sequences, and whether its batches shall have the bits of single
    tokens. prefix: tokens that all chats with this system message begin with. cancel: ends reading at the next call
    when it is set. joined: from the beginning.
    """

    def __init__(
        self,
        new_context: Callable[[int, bool], Context],
        prefix: Callable[[], list[int]],
        cache: PrefixCache | None,
        cancel: threading.Event,
        *,
        joined: bool = False,
    ) -> None:
        self.full = Stream(new_context(2 if joined else 1, joined))
        self.muted = Stream(self.full.context, 1) if joined else None
        self.cache = cache
        self._new_context, self._prefix, self._cancel = new_context, prefix, cancel
        self._muted_as: Steering | None = None  # what the muted stream was read with
        self._prompt_scales: HeadScales | None = None  # what the full stream's prompts are read with
        self._unread: list[list[int]] | None = None  # its calls, while they are still to be read with these scales

    def close(self) -> None:
        for stream in filter(None, (self.full, self.muted)):
            stream.context.close()

    @property
    def joined(self) -> bool:
        """Whether both streams are sequences of one context."""
        return self.muted is not None and self.muted.context is self.full.context

    def arrange(self, *, joined: bool) -> None:
        """Let both streams be sequences of one context, so that a call can have tokens of both, or let none be."""
        if self.joined == joined or (self.muted is None and not joined):
            return
        before, full = (self.full, self.muted), self._new_context(2 if joined else 1, joined)
        self.full, self.muted = Stream(full), Stream(full, 1) if joined else Stream(self._new_context(1, True))
        for stream, old in zip((self.full, self.muted), before, strict=True):
            if old:
                stream.copy_from(old)
                stream.scale(old.scales)
        for old in filter(None, before):
            old.context.close()

    def clear(self) -> None:
        self.full.clear()
        if self.muted:
            self.muted.clear()
        self._unread = None

    def rewind(self, n: int) -> None:
        """Go back, in both, to where only the first n tokens had been read."""
        self.full.rewind(n)
        if self.muted:
            self.muted.rewind(n)

    def drop(self, start: int, end: int) -> None:
        """Forget the tokens from `start` to `end`; a muted stream that is not in step forgets all."""
        in_step = self.muted and self.muted.n == self.full.n
        self.full.drop(start, min(end, self.full.n))
        if self.muted and in_step:
            self.muted.drop(start, min(end, self.muted.n))
        elif self.muted:
            self.muted.clear()

    def read_again(self) -> None:
        """Let all that the full stream has read be read again, before anything else is."""
        self._unread = self.full.calls

    def catch_up(self, cancel: threading.Event | None = None) -> bool:
        """Read again what is to be read with other scales; False when `cancel` was set on the way."""
        if self._unread is not None:
            self.full.scale(self._prompt_scales)
            self.full.clear()
            if not self.full.replay(self._unread, cancel):
                return False
            self._unread = None
        return True

    def read(self, tokens: list[int], start: int, steering: Steering | None) -> bool:
        """Let the full stream read a prompt that begins at `start`, but for its last token; False when cancelled."""
        own = steering.own_scales if steering and steering.mode == "amplify" else None
        contrasted = own is None and steering and steering.scope == "all"
        self._scale_prompts(own if steering and steering.scope == "all" else None)
        if contrasted and steering and self.full.shifted and not self._in_step(steering):
            self.read_again()  # the muted stream cannot see again what has left, so none does
        if not self.catch_up(self._cancel) or not self._read_prefix(self.full, tokens):
            return False
        if not self.full.replay(in_batches(tokens[self.full.n - start : -1]), self._cancel):
            return False
        if own is not None:
            self.full.scale(own)
        return True

    def sync(self, steering: Steering) -> Stream:
        """Bring the muted stream to where the full one is, as this steering reads prompts."""
        muted = self._muted()
        if steering.scope == "generated":
            muted.copy_from(self.full)
        elif not self._in_step(steering):
            muted.clear()  # what it holds was read with other heads
        self._muted_as = steering
        muted.scale(steering.scales)
        if self._read_prefix(muted, self.full.tokens()):
            muted.replay(self.full.calls_after(muted.n), self._cancel)
        return muted

    def read_alone(self, tokens: list[int], steering: Steering) -> Stream:
        """Let the muted stream read these tokens only, with all heads as they are (context-aware decoding)."""
        muted, calls = self._muted(), in_batches(tokens)
        alone = self._muted_as and self._muted_as.mode == "cad" and not muted.shifted
        if alone and muted.calls[: len(calls)] == calls:  # another answer to the same
            muted.rewind(len(tokens))
        else:
            muted.clear()
            muted.scale(None)
            muted.replay(calls, self._cancel)
        self._muted_as = steering
        return muted

    def _muted(self) -> Stream:
        if self.muted is None:
            self.muted = Stream(self._new_context(1, True))
        return self.muted

    def _in_step(self, steering: Steering) -> bool:
        """Whether the muted stream of 'all' scope may go on from what it holds."""
        as_before = self.muted and self._muted_as and self._muted_as.mutes_as(steering)
        return bool(as_before and self.muted and self.muted.shifted == self.full.shifted)

    def _scale_prompts(self, scales: HeadScales | None) -> None:
        """Let the full stream read prompts with these scales; what it read with others is to be read again."""
        if not _same(scales, self._prompt_scales):
            self.read_again()
        self._prompt_scales = scales
        self.full.scale(scales)

    def _read_prefix(self, stream: Stream, tokens: list[int]) -> bool:
        """Let an empty stream begin with what every chat with this system message begins with, if that is cached."""
        if self.cache is None or stream.n:
            return True
        prefix = self._prefix()
        if not (LEAST <= len(prefix) < len(tokens) and tokens[: len(prefix)] == prefix):
            return True
        return stream.read(prefix, self.cache, self._cancel)


def _same(a: HeadScales | None, b: HeadScales | None) -> bool:
    return a is b or (a is not None and b is not None and np.array_equal(a, b))
