"""`Session`: a chat over two streams of one model, the second with the chosen heads muted."""

from __future__ import annotations

import codecs
import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Container, Generator, Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from dps_local.chat.turn import Timings, Token, Turn
from dps_local.engine.context import Context
from dps_local.engine.control_tokens import prompt_tokens
from dps_local.engine.model import HeadScales, Model
from dps_local.engine.prefix_cache import LEAST, PrefixCache
from dps_local.engine.sampler import Sampler, Sampling
from dps_local.engine.stream import Stream, common, in_batches
from dps_local.errors import ContextFullError
from dps_local.prompting.chat_template import ChatTemplate
from dps_local.steering.contrast import WINDOW, Contrast
from dps_local.steering.decoding import Answer, Engine, Steps, plain_steps
from dps_local.steering.steering import Steering

ROOM = 8  # an answer shall have this part of what the system message leaves of the context, before turns leave
Recall = Callable[[str, Container[int]], tuple[str, Sequence[int]]]


class Session:
    """A multi-turn chat; `ask` yields the tokens of an answer as they are sampled.

    The muted context is made when steering first needs it. An answer that is broken off stays in the chat as far
    as it went, and the next turn goes on from there. When the context is full, the oldest turns leave it: the system
    message stays, and so do the values of the turns behind them, which have seen them (llama.cpp's context shift).

    recall: returns a question together with what is remembered about it, and the numbers of these items; it is given
    the numbers of those that are in the context. probs: tokens come with their probabilities, which take passes over
    the vocabulary.
    """

    def __init__(
        self,
        model: Model,
        template: ChatTemplate,
        *,
        system: str = "",
        recall: Recall | None = None,
        steering: Steering | None = None,
        sampling: Sampling | None = None,
        engine: Engine = "auto",
        probs: bool = False,
        cache: PrefixCache | None = None,
        n_ctx: int = 4096,
        n_threads: int | None = None,
    ) -> None:
        self.model, self.template, self.system, self.recall = model, template, system, recall
        self.steering, self.engine, self.probs, self.cache = steering, engine, probs, cache
        self.sampler = Sampler(sampling or Sampling())
        self._n_ctx, self._n_threads = n_ctx, n_threads
        self.full = Stream(self.context())
        self._muted: Stream | None = None
        self._synced: Steering | None = None  # what the muted stream was read with
        self._prompt_scales: HeadScales | None = None  # what the full stream's prompts are read with
        self._unread: list[list[int]] | None = None  # its calls, while they are still to be read with these scales
        self.turns: list[Turn] = []  # that are in the context
        self.past: list[tuple[str, str]] = []  # questions and answers of those that were
        self.cancel = threading.Event()  # set it (from a signal handler, say) to end the answer at the next step

    def context(self, late: bool = False) -> Context:
        """Return a new context; late: for up to WINDOW steps in one call, with the bits of single ones on the CPU."""
        return Context(
            self.model,
            self._n_ctx,
            n_outputs=WINDOW if late else 1,
            n_threads=self._n_threads,
            tokens_alone=late,
        )

    def close(self) -> None:
        self.full.context.close()
        if self._muted:
            self._muted.context.close()

    def clear(self) -> None:
        """Forget all turns."""
        self.full.clear()
        if self._muted:
            self._muted.clear()
        self.turns, self.past, self._unread = [], [], None

    def ask(self, user: str, n_predict: int = -1) -> Iterator[Token]:
        """Answer `user` with at most n_predict tokens (-1: until the model ends or one turn fills the context).

        Setting `cancel` ends the answer, and the turn stays as far as it went; while the prompt is read, it takes the
        question back. Raises ContextFullError, with the chat as it was, when the question alone does not fit.
        """
        self.cancel.clear()
        if not self._catch_up(self.cancel):
            return
        undecoded = self._undecoded() if self.turns else []
        text, recalled = self.recall(user, self._recalled()) if self.recall else (user, ())
        tokens = self._prompt(self.system, text, len(self.turns))
        begin = self._opening(len(self.turns)) if self.turns else self._prefix
        opening = len(undecoded) + common(tokens, begin)
        turn = Turn(user, self.full.n, undecoded + tokens, opening, recalled)
        yield from self._answer(turn, n_predict)

    def _recalled(self) -> set[int]:
        return {i for turn in self.turns for i in turn.recalled}

    def _prompt(self, system: str, user: str, turns: int) -> list[int]:
        """Return the tokens from the end of the last answer, after so many turns, up to where the next one starts."""
        if not turns:
            return self.model.with_bos(prompt_tokens(self.model, self.template.first, system, user))
        return prompt_tokens(self.model, lambda *texts: self.template.next(texts[0], turns, texts[1]), system, user)

    def _opening(self, turns: int) -> list[int]:
        """Return the tokens that the prompt begins with, whatever is asked."""
        first, *others = (self._prompt(self.system, user, turns) for user in ("A", "on", "3", "¿"))
        return first[: min(common(first, other) for other in others)]

    @cached_property
    def _prefix(self) -> list[int]:
        """Tokens that the prompts of all first turns begin with."""
        return self._opening(0)

    def regenerate(self, n_predict: int = -1) -> Iterator[Token]:
        """Answer the last question again; it is not read again."""
        self.cancel.clear()
        if not self._catch_up(self.cancel):
            return
        last = self.turns.pop()
        self._rewind(last.answer)
        yield from self._answer(Turn(last.user, last.start, last.pending, last.opening, last.recalled), n_predict)

    def undo(self) -> Turn:
        """Take the last turn back, and return it."""
        self._catch_up()
        turn = self.turns.pop()
        self._rewind(turn.start)
        return turn

    def _rewind(self, n: int) -> None:
        self.full.rewind(n)
        if self._muted:
            self._muted.rewind(n)

    def _undecoded(self) -> list[int]:
        """Tokens of the last answer that are not in the KV cache: it ended before they were fed."""
        turn = self.turns[-1]
        return [turn.pending[-1], *turn.ids][self.full.n - turn.answer :]

    def _answer(self, turn: Turn, n_predict: int) -> Iterator[Token]:
        self._make_room(turn, n_predict)
        started = time.perf_counter()
        steering = self.steering if self.steering and not self.steering.gamma.off else None
        try:
            muted = self._read(turn, steering)
        except BaseException:
            self._take_back(turn)
            raise
        if self.cancel.is_set():
            self._take_back(turn)
            return
        turn.timings = Timings(len(turn.pending), 1000 * (time.perf_counter() - started))
        self.turns.append(turn)
        self.sampler.recount([*self.full.tokens(), turn.pending[-1]])
        try:
            steps = self._steps(turn, muted, steering, n_predict)
            for token in itertools.islice(self._held(steps, turn), n_predict if n_predict >= 0 else None):
                turn.tokens.append(token)
                turn.timings.predicted_n = len(turn.tokens)
                turn.timings.predicted_ms = 1000 * (time.perf_counter() - started) - turn.timings.prompt_ms
                yield token
            if len(turn.tokens) == n_predict and turn.stop == "interrupted":
                turn.stop = "length"
        finally:
            steps.close()
            self.full.scale(None)
            if self.turns and self.turns[-1] is turn:  # else a later question or /clear came first
                # steps whose token was not given out (a stop text, an interruption) are taken back
                self._rewind(turn.answer + min(turn.steps, len(turn.tokens) + (turn.tail is None)))

    def _make_room(self, turn: Turn, n_predict: int) -> None:
        """Let the oldest turns leave the context where an answer is likely not to fit in."""
        n_ctx, keep = self.full.context.n_ctx, (self.turns or [turn])[0].question
        if keep + (question := len(turn.pending) - turn.opening) >= n_ctx:
            what, remedy = "the question needs more than", ""
            if keep > question:
                what, remedy = "the profile leaves the question too little of", ", or make its about shorter"
            raise ContextFullError(f"{what} the context of {n_ctx} tokens: --ctx-size makes it larger{remedy}")
        used, room = turn.answer + 1, (n_ctx - keep) // ROOM
        if used + max(1, min(n_predict, room) if n_predict >= 0 else room) > n_ctx:
            self._forget(turn, [*self.turns, turn], used)

    def _forget(self, turn: Turn, turns: list[Turn], used: int) -> bool:
        """Let turns leave, the oldest first, until half of what the system message leaves is free; False if none can.

        turns: those in the context, the last of which stays; used: the tokens that all of them need.
        """
        keep, half = turns[0].question, (self.full.context.n_ctx + turns[0].question) // 2
        gone = next((k for k, t in enumerate(turns) if k and used - (t.question - keep) <= half), len(turns) - 1)
        if not gone:
            return False
        first, end = turns[gone], turns[gone].question
        in_step = self._muted and self._muted.n == self.full.n
        self.full.drop(keep, min(end, self.full.n))
        if self._muted and in_step:
            self._muted.drop(keep, min(end, self._muted.n))
        elif self._muted:
            self._muted.clear()
        for t in turns[gone:]:
            t.start -= end - keep
        first.pending = self.full.tokens()[:keep] + first.pending[first.opening :]
        first.start, first.opening = 0, keep
        self.past += [(t.user, t.text) for t in turns[:gone]]
        self.turns = self.turns[gone:]
        turn.left += gone
        return True

    def _take_back(self, turn: Turn) -> None:
        self.full.scale(None)
        self._rewind(turn.start)

    def _read(self, turn: Turn, steering: Steering | None) -> Stream | None:
        """Read the prompt but for its last token in both streams, until it is cancelled; return the muted one."""
        own = steering.amplified() if steering and steering.mode == "amplify" else None
        self._scale_prompts(own if steering and steering.scope == "all" else None)
        if own is None and steering and steering.scope == "all" and self.full.shifted and not self._in_step(steering):
            self._unread = self.full.calls  # the muted stream cannot see again what has left, so none does
        if not self._catch_up(self.cancel) or not self._read_prefix(self.full, turn.pending):
            return None
        unread = turn.pending[self.full.n - turn.start : -1]
        if not self.full.replay(in_batches(unread), self.cancel):
            return None
        if own is not None:
            self.full.scale(own)
        elif steering:
            return self._sync(steering, turn)
        return None

    def _read_prefix(self, stream: Stream, tokens: list[int]) -> bool:
        """Let an empty stream begin with what every chat with this system message begins with, if that is cached."""
        if self.cache is None or stream.n:
            return True
        n = len(self._prefix)
        if not (LEAST <= n < len(tokens) and tokens[:n] == self._prefix):
            return True
        return stream.read(self._prefix, self.cache, self.cancel)

    def _scale_prompts(self, scales: HeadScales | None) -> None:
        """Let the full stream read prompts with these scales; what it read with others is to be read again."""
        if not _same(scales, self._prompt_scales):
            self._unread = self.full.calls
        self._prompt_scales = scales
        self.full.scale(scales)

    def _catch_up(self, cancel: threading.Event | None = None) -> bool:
        """Read again what is to be read with other scales; False when `cancel` was set on the way."""
        if self._unread is not None:
            self.full.scale(self._prompt_scales)
            self.full.clear()
            if not self.full.replay(self._unread, cancel):
                return False
            self._unread = None
        return True

    def _sync(self, steering: Steering, turn: Turn) -> Stream:
        """Bring the muted stream to where the full stream is, before the last token of a turn's prompt."""
        if self._muted is None:
            self._muted = Stream(self.context(late=True))
        muted = self._muted
        if steering.mode == "cad":
            self._synced = steering
            self._read_alone([*self.turns, turn], [])
            return muted
        if steering.scope == "generated":
            muted.become(self.full)
        elif not self._in_step(steering):
            muted.clear()  # what it holds was read with other heads
        self._synced = steering
        muted.scale(steering.scales)
        if self._read_prefix(muted, self.full.tokens()):
            muted.replay(self.full.calls_after(muted.n), self.cancel)
        return muted

    def _read_alone(self, turns: list[Turn], answer: list[int]) -> None:
        """Let the muted stream read turns without system message and recalled items.

        answer: what the last of them has of its answer; where it has nothing, its prompt lacks the last token.
        """
        assert self._muted
        tokens = list[int]()
        for i, turn in enumerate(turns):
            tokens += self._prompt("", turn.user, i)
            tokens += turn.ids if turn is not turns[-1] else answer
        self._muted.clear()
        self._muted.scale(None)
        self._muted.replay(in_batches(tokens if answer else tokens[:-1]), self.cancel)

    def _in_step(self, steering: Steering) -> bool:
        """Whether the muted stream of 'all' scope may go on from what it holds."""
        synced = self._muted and self._synced and self._synced.mutes_as(steering)
        return bool(synced and self._muted and self._muted.shifted == self.full.shifted)

    def _steps(
        self, turn: Turn, muted: Stream | None, steering: Steering | None, n: int
    ) -> Generator[Token, None, None]:
        """Yield one token after the other, until an end-of-generation token or a full context."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        with contextlib.closing(self._decided(turn, muted, steering, n)) as steps:
            for step in steps:
                turn.steps += 1
                if self.model.is_eog(step.id):
                    turn.stop = "eog"
                    return
                text = decoder.decode(self.model.piece(step.id))
                yield Token(**vars(step), text=text)
        if not self.cancel.is_set():
            turn.stop = "context"

    def _decided(self, turn: Turn, muted: Stream | None, steering: Steering | None, n: int) -> Steps:
        token = turn.pending[-1]

        def room() -> bool:
            if not self._forget(turn, self.turns, self.full.n):
                return False
            if steering and steering.mode == "cad":
                self._read_alone(self.turns, self.full.tokens()[turn.answer + 1 :])
            return True

        if muted is None or steering is None:
            plain = steering is None
            return plain_steps(self.full, self.sampler, token, self.cancel, plain=plain, probs=self.probs, room=room)
        contrast = Contrast(self.full, muted, steering, eager=self.engine == "eager", probs=self.probs)
        turn.counts = contrast.counts
        return Answer(contrast, self.sampler, self.cancel, room=room).steps(token, n)

    def _held(self, tokens: Iterator[Token], turn: Turn) -> Iterator[Token]:
        """Hold tokens back while they may be the beginning of a stop text, and drop it and what follows."""
        held: list[Token] = []
        for token in tokens:
            held.append(token)
            text = "".join(t.text for t in held)
            ends = [text.index(s) for s in self.template.stop if s in text]
            if ends:
                turn.stop = "stop"
                yield from self._cut(held, min(ends), turn)
                return
            if not any(_overlap(text, s) for s in self.template.stop):
                yield from held
                held = []
        yield from held

    def _cut(self, tokens: list[Token], length: int, turn: Turn) -> Iterator[Token]:
        """Yield the tokens of the first `length` characters; what is left of a token that is cut goes on as `tail`."""
        for token in tokens:
            if length <= 0:
                return
            if length < len(token.text):
                token = replace(token, text=token.text[:length])
                turn.tail = self.model.tokenize(token.text, special=False)
            yield token
            length -= len(token.text)


def _overlap(text: str, stop: str) -> bool:
    """Whether `text` ends with a beginning of `stop`."""
    return any(text.endswith(stop[:n]) for n in range(1, len(stop) + 1))


def _same(a: HeadScales | None, b: HeadScales | None) -> bool:
    return a is b or (a is not None and b is not None and np.array_equal(a, b))
