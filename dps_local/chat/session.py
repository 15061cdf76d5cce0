"""`Session`: a chat over two streams of one model, the second with the chosen heads muted."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from typing import Any, Self

from dps_local.chat import eviction
from dps_local.chat.chat_prompts import ChatPrompts
from dps_local.chat.given_tokens import GivenTokens
from dps_local.chat.messages import Message, exchanges
from dps_local.chat.stop_texts import until_stop
from dps_local.chat.stream_pair import StreamPair
from dps_local.chat.token_texts import known_tokens, with_texts
from dps_local.chat.transcript import Transcript
from dps_local.chat.turn import Timings, Token, Turn
from dps_local.engine.call_times import CallTimes
from dps_local.engine.context import MAX_INVARIANT_BATCH, Context
from dps_local.engine.model import Model
from dps_local.engine.prefix_cache import PrefixCache
from dps_local.engine.sampler import Sampler, Sampling
from dps_local.engine.stream import Stream, common
from dps_local.prompting.chat_template import ChatTemplate, Exchange
from dps_local.prompting.prompt import Request
from dps_local.steering.contrast import Contrast
from dps_local.steering.decoding import Engine, Step, Steps, plain_steps
from dps_local.steering.engine_choice import fastest
from dps_local.steering.mixing import Gamma
from dps_local.steering.speculative import SpeculativeDecoder
from dps_local.steering.steering import Steering
from dps_local.steering.together import together_steps
from dps_local.system.progress import Progress

Recall = Callable[[str, Container[int]], Request]


class Default(Enum):
    """Stands for what the session was made with."""

    SESSION = "the session's own"


@dataclass(frozen=True)
class _How:
    """How an answer is made."""

    n_predict: int
    steering: Steering | None
    sampler: Sampler
    engine: Engine
    stop: Sequence[str] = ()


class Session:
    """A multi-turn chat; `ask` yields the tokens of an answer as they are sampled.

    The muted context is made when steering first needs it. An answer that is broken off stays in the chat as far
    as it went, and the next turn goes on from there. When the context is full, the oldest turns leave it: the system
    message stays, and so do the values of the turns behind them, which have seen them (llama.cpp's context shift).

    template: None takes the model's own. earlier: what the chat begins with, behind the system message, and keeps as it
    keeps that. recall: returns a question together with what is remembered about it; it is given the numbers of the
    items that are in the context. probs: tokens come with
    their probabilities, which take passes over the vocabulary. steering, sampling, engine: of every answer that `ask`
    is not told otherwise about. n_ctx: tokens of each context.
    """

    def __init__(
        self,
        model: Model,
        template: ChatTemplate | None = None,
        *,
        system: str = "",
        earlier: Sequence[Exchange] = (),
        recall: Recall | None = None,
        steering: Steering | None = None,
        sampling: Sampling | None = None,
        engine: Engine = "auto",
        probs: bool = False,
        cache: PrefixCache | None = None,
        n_ctx: int = 4096,
        n_threads: int | None = None,
    ) -> None:
        self.model, self.template, self.recall = model, template or ChatTemplate(model), recall
        self.prompts = ChatPrompts(self.template, system, earlier)
        self.steering, self.engine, self.probs = steering, engine, probs
        self.n_top = 0  # of `Step.top`, where probabilities are asked for
        self.sampler = Sampler(sampling or Sampling())
        self._n_ctx, self._n_threads = n_ctx, n_threads
        self._transcript = Transcript()
        self.cancel = threading.Event()  # set it (from a signal handler, say) to end the answer at the next step
        self.streams = StreamPair(
            lambda n_seq, batch_invariant: self.context(n_seq, batch_invariant=batch_invariant),
            lambda: self.prompts.prefix,
            cache,
            self.cancel,
            joined=steering is not None and steering.contrasts and self._engine(steering, self.sampler) == "together",
        )

    def context(self, n_seq: int = 1, *, batch_invariant: bool = False) -> Context:
        """Return a new context; batch_invariant: for up to MAX_INVARIANT_BATCH steps in one call."""
        return Context(
            self.model,
            self._n_ctx,
            n_seq=n_seq,
            n_outputs=MAX_INVARIANT_BATCH if batch_invariant else 1,
            n_threads=self._n_threads,
            batch_invariant=batch_invariant,
        )

    def close(self) -> None:
        """Free the contexts; the model stays."""
        self.streams.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def full(self) -> Stream:
        """The stream with all heads, or with amplified ones."""
        return self.streams.full

    @property
    def turns(self) -> list[Turn]:
        """The turns in the context."""
        return self._transcript.turns

    @property
    def past(self) -> list[tuple[str, str]]:
        """Questions and answers of the turns that have left the context."""
        return self._transcript.past

    def clear(self) -> None:
        """Forget all turns."""
        self.streams.clear()
        self._transcript.clear()

    def ask(
        self,
        user: str,
        n_predict: int = -1,
        *,
        steering: Steering | Default | None = Default.SESSION,
        sampler: Sampler | None = None,
        engine: Engine | None = None,
        stop: Sequence[str] = (),
    ) -> Iterator[Token]:
        """Answer `user` with at most n_predict tokens (-1: until the model ends or one turn fills the context).

        steering, sampler, engine: of this answer. stop: texts that end it, beside the template's. Setting `cancel`
        ends the answer, and the turn stays as far as it went; while the prompt is read, it takes the question back.
        Raises ContextFullError, with the chat as it was, when the question alone does not fit.
        """
        self.cancel.clear()
        if self.streams.catch_up(self.cancel):
            how = replace(self._how(n_predict, steering, sampler, engine), stop=stop)
            yield from self._answer(self._turn(user, n_predict), how)

    def regenerate(
        self,
        n_predict: int = -1,
        *,
        steering: Steering | Default | None = Default.SESSION,
        sampler: Sampler | None = None,
        engine: Engine | None = None,
    ) -> Iterator[Token]:
        """Answer the last question again, as `ask` does; it is not read again."""
        self.cancel.clear()
        if not self.streams.catch_up(self.cancel):
            return
        last = self.turns.pop()
        self.streams.rewind(last.answer)
        turn = Turn(last.user, last.start, last.pending, last.opening, n_predict, last.recalled)
        yield from self._answer(turn, self._how(n_predict, steering, sampler, engine))

    def undo(self) -> Turn:
        """Take the last turn back, and return it."""
        self.streams.catch_up()
        turn = self.turns.pop()
        self.streams.rewind(turn.start)
        return turn

    def messages(self) -> list[Message]:
        """Return the conversation so far, with all that `restore` needs; the system message is not part of it."""
        return self._transcript.messages()

    def restore(self, messages: Sequence[Message], progress: Progress | None = None) -> bool:
        """Begin again with a conversation that `messages` returned, or that another program kept.

        Where answers come with their tokens, all is computed as it was, what has left the context since included, so
        on a CPU the next greedy answer is that of the uninterrupted chat; that takes as long as the answers took.
        Answers without tokens are read with the next question. A message of role system takes the place of the
        session's own, and of the earlier exchanges. progress: called with (done, total) turns. False when `cancel` was
        set on the way: the chat is then empty. Raises MessagesError.
        """
        system, pairs = exchanges(messages)
        self.clear()
        self.cancel.clear()
        if system is not None:
            self.prompts = ChatPrompts(self.template, system)
        return self._replay_all(pairs, progress)

    def follow(self, pairs: Sequence[tuple[str, str]]) -> bool:
        """Go to where a conversation of these questions and answers ends, from the turns that it shares with this one.

        Shared turns stay as they were computed; the others are taken back, and those of `pairs` are read with the next
        question. False as in `restore`.
        """
        self.cancel.clear()
        self.keep(pairs)
        new = pairs[len(self.past) + len(self.turns) :]
        return self._replay_all(
            [(Message(role="user", content=q), Message(role="assistant", content=a)) for q, a in new]
        )

    def keep(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Take back the turns that a conversation does not share with this one."""
        n, n_past = self.shared(pairs), len(self.past)
        if n < n_past:  # what has left the context cannot be taken back one by one
            self.clear()
            return
        while len(self.turns) > n - n_past:
            self.undo()

    def shared(self, pairs: Sequence[tuple[str, str]]) -> int:
        """Return how many turns a conversation has in common with this one; a program may strip the texts."""
        own = [*self.past, *((turn.user, turn.text) for turn in self.turns)]
        return common([_stripped(pair) for pair in own], [_stripped(pair) for pair in pairs])

    def _replay_all(self, pairs: Sequence[tuple[Message, Message]], progress: Progress | None = None) -> bool:
        for done, (user, answer) in enumerate(pairs, 1):
            self._replay(user["content"], answer)
            if self.cancel.is_set():
                self.clear()
                return False
            if progress:
                progress(done, len(pairs))
        return True

    def _turn(self, user: str, n_predict: int) -> Turn:
        """Return the next turn, which has not been read yet."""
        undecoded = self._undecoded() if self.turns else []
        request = self.recall(user, self._transcript.recalled()) if self.recall else Request(user)
        tokens = self.prompts.tokens(request.text, len(self.turns), request.exchanges)
        n_opening = len(undecoded) + common(tokens, self.prompts.opening(len(self.turns)))
        return Turn(user, self.full.n, undecoded + tokens, n_opening, n_predict, request.items)

    def _undecoded(self) -> list[int]:
        """Tokens of the last answer that are not in the KV cache: it ended before they were decoded."""
        turn = self.turns[-1]
        return [turn.pending[-1], *turn.ids][self.full.n - turn.answer :]

    def _how(
        self,
        n_predict: int,
        steering: Steering | Default | None = Default.SESSION,
        sampler: Sampler | None = None,
        engine: Engine | None = None,
    ) -> _How:
        steering = self.steering if isinstance(steering, Default) else steering
        steering = None if steering is None or steering.gamma.off else steering
        sampler = sampler or self.sampler
        return _How(n_predict, steering, sampler, engine or self._engine(steering, sampler))

    def _engine(self, steering: Steering | None, sampler: Sampler) -> Engine:
        """Return the session's engine, or for "auto" the one that this machine is expected to be fastest with."""
        if self.engine != "auto" or steering is None or not steering.contrasts:
            return self.engine
        depth = 1 - self.model.layer_start(steering.first_layer) / self.model.n_layer
        return fastest(self._call_times, depth, greedy=sampler.temp <= 0)

    @cached_property
    def _call_times(self) -> CallTimes:
        return CallTimes.of(self.model, self._n_threads)

    def _answer(self, turn: Turn, how: _How) -> Iterator[Token]:
        started, n_predict = time.perf_counter(), how.n_predict
        with self._decoding(turn, how) as steps:
            if steps is None:
                return
            turn.timings = Timings(len(turn.pending), 1000 * (time.perf_counter() - started))
            tokens = until_stop(self._tokens(steps, turn), turn, (*self.template.stop, *how.stop), self._tokenize)
            for token in itertools.islice(tokens, n_predict if n_predict >= 0 else None):
                turn.tokens.append(token)
                turn.timings.predicted_n = len(turn.tokens)
                turn.timings.predicted_ms = 1000 * (time.perf_counter() - started) - turn.timings.prompt_ms
                yield token
            if len(turn.tokens) == n_predict and turn.stop == "interrupted":
                turn.stop = "length"

    def _replay(self, user: str, answer: Message) -> None:
        """Let a turn happen again, to an answer that is known."""
        text, ids = answer["content"], answer.get("tokens")
        if ids is None:
            begins = self.model.chat_template or not text or text[0].isspace()
            ids = self._tokenize(text if begins else f" {text}")
        turn, steering = self._turn(user, answer.get("n_predict", -1)), self.steering
        if steering and "gamma" in answer:
            steering = replace(steering, gamma=Gamma.parse(answer["gamma"]))
        with self._decoding(turn, self._how(turn.n_predict, steering, GivenTokens(ids))) as steps:
            if steps is None:
                return
            turn.steps = sum(1 for _ in itertools.islice(steps, answer.get("n_decoded", 0)))
            turn.tokens = known_tokens(ids, text, self.model)
            turn.stop = answer.get("stop", "interrupted")

    @contextlib.contextmanager
    def _decoding(self, turn: Turn, how: _How) -> Iterator[Steps | None]:
        """Read a turn's prompt, and yield the steps of its answer; None, with nothing changed, when it is cancelled.

        The turn then is part of the chat; steps whose tokens it has not got at the end are taken back.
        """
        turns, turn.gamma = [*self.turns, turn], str(how.steering.gamma) if how.steering else "0"
        if eviction.is_due(turns, how.n_predict, self.full.context.n_ctx):
            self._transcript.evict(turn, turns, turn.answer + 1, self.streams)
        try:
            muted = self._read(turn, how.steering, how.engine)
        except BaseException:
            self._take_back(turn)
            raise
        if self.cancel.is_set():
            self._take_back(turn)
            yield None
            return
        self.turns.append(turn)
        how.sampler.recount([*self.full.tokens(), turn.pending[-1]])
        steps = self._steps(turn, muted, how)
        try:
            yield steps
        finally:
            steps.close()
            self.full.scale(None)
            if self.turns and self.turns[-1] is turn:  # else a later question or /clear came first
                self.streams.rewind(turn.answer + turn.n_decoded)

    def _take_back(self, turn: Turn) -> None:
        self.full.scale(None)
        self.streams.rewind(turn.start)

    def _read(self, turn: Turn, steering: Steering | None, engine: Engine) -> Stream | None:
        """Read the prompt but for its last token in both streams, until it is cancelled; return the muted one."""
        if steering and steering.contrasts:
            self.streams.arrange(joined=engine == "together")
        if not self.streams.read(turn.pending, turn.start, steering) or not steering or not steering.contrasts:
            return None
        if steering.mode == "cad":
            return self.streams.read_alone(self._without_system([*self.turns, turn], [])[:-1], steering)
        return self.streams.sync(steering)

    def _without_system(self, turns: Sequence[Turn], answer: list[int]) -> list[int]:
        """Return the tokens of turns with nothing of the profile; answer: that of the last of them."""
        tokens, prompts = list[int](), ChatPrompts(self.template, "")
        for i, turn in enumerate(turns):
            tokens += prompts.tokens(turn.user, i)
            tokens += turn.ids if turn is not turns[-1] else answer
        return tokens

    def _steps(self, turn: Turn, muted: Stream | None, how: _How) -> Steps:
        token, steering = turn.pending[-1], how.steering

        def room() -> bool:
            if not self._transcript.evict(turn, self.turns, self.full.n, self.streams):
                return False
            if steering and steering.mode == "cad":
                answer = self.full.tokens()[turn.answer + 1 :]
                self.streams.read_alone(self._without_system(self.turns, answer), steering)
            return True

        if muted is None or steering is None:
            plain = steering is None
            shown: dict[str, Any] = {"plain": plain, "probs": self.probs, "n_top": self.n_top}
            return plain_steps(self.full, how.sampler, token, self.cancel, **shown, make_room=room)
        eager = how.engine == "eager"
        contrast = Contrast(self.full, muted, steering, eager=eager, probs=self.probs, n_top=self.n_top)
        turn.counts = contrast.counts
        if how.engine == "together":
            return together_steps(contrast, how.sampler, token, self.cancel, make_room=room)
        return SpeculativeDecoder(contrast, how.sampler, self.cancel, make_room=room).steps(token, how.n_predict)

    def _tokens(self, steps: Steps, turn: Turn) -> Iterator[Token]:
        """Yield one token after the other, until an end-of-generation token or a full context."""
        yield from with_texts(self._until_eog(steps, turn), self.model)
        if turn.stop != "eog" and not self.cancel.is_set():
            turn.stop = "context"

    def _until_eog(self, steps: Steps, turn: Turn) -> Iterator[Step]:
        for step in steps:
            turn.steps += 1
            if self.model.is_eog(step.id):
                turn.stop = "eog"
                return
            yield step

    def _tokenize(self, text: str) -> list[int]:
        return self.model.tokenize(text, special=False)


def _stripped(pair: tuple[str, str]) -> tuple[str, str]:
    question, answer = pair
    return question.strip(), answer.strip()
