"""`Service`: the loaded model with its people, and how it answers a request. Lives in the worker's thread."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from dps_local.assistant import Assistant, Settings
from dps_local.chat.chat_prompts import ChatPrompts
from dps_local.chat.explanation import ExplainedToken, explain, steering_of
from dps_local.chat.turn import Token, Turn
from dps_local.engine.embedding import Embedder
from dps_local.engine.grammar import Grammar
from dps_local.engine.model import Model
from dps_local.engine.sampler import Sampler
from dps_local.errors import ContextFullError, RequestError, SettingsError
from dps_local.maps.cluster_map import ClusterMap
from dps_local.server.answer_request import AnswerRequest
from dps_local.server.conversations import Conversations, Key
from dps_local.server.embedding_request import Embedded, EmbeddingRequest
from dps_local.server.person import Person
from dps_local.server.plain_text import PlainText
from dps_local.server.worker import Job
from dps_local.steering.steering import Steering

MOST_CHARACTERS = 64  # of a token, on average: no text has as many


@dataclass(frozen=True)
class Finished:
    """The end of an answer. cached: tokens of its prompt that were in the context already."""

    turn: Turn
    cached: int
    steering: Steering | None
    explained: tuple[ExplainedToken, ...] | None = None


class Service:
    """people: by the names of their profiles. commands: what scores each. n_kept: conversations to keep."""

    def __init__(
        self,
        model: Model,
        people: Mapping[str, Person],
        settings: Settings,
        commands: Mapping[str, str],
        n_kept: int = 2,
    ) -> None:
        self.model, self.people, self.settings, self.commands = model, people, settings, commands
        self.n_ctx = model.trained_ctx(settings.n_ctx)
        self._conversations = Conversations(self._open, n_kept)

    def close(self) -> None:
        self._conversations.close()
        self.model.close()

    @property
    def known(self) -> dict[str, Any]:
        return {
            "n_ctx": self.n_ctx,
            "chat_template": self.model.chat_template,
            "people": {
                name: person.as_json() | {"score_command": self.commands.get(name)}
                for name, person in self.people.items()
            },
            "maps": {name: person.head_map for name, person in self.people.items()},
        }

    def answer(
        self, request: AnswerRequest, name: str | None, job: Job[Service]
    ) -> Generator[Token | Finished, None, None]:
        """Yield the tokens of an answer and then its end; nothing more once the job is cancelled.

        name: of the person. Raises RequestError.
        """
        self._check_lengths((request.system, request.question, *chain(*request.pairs)), "messages")
        assistant = self._conversations.take(key := self._key(request, name), request.pairs)
        session = assistant.session
        job.stop = session.cancel.set
        try:
            self._check(request, key, assistant)
            session.probs, session.n_top = request.logprobs, request.n_top
            session.keep(request.pairs)
            cached = session.full.n
            if job.cancelled or not session.follow(request.pairs):
                return
            sampler = Sampler(request.sampling, self._grammar(request))
            yield from session.ask(request.question, request.n_predict, sampler=sampler, stop=request.stop)
            if not job.cancelled and session.turns:
                explained = self._explained(assistant, job) if request.steering.explain else None
                yield Finished(session.turns[-1], cached, session.steering, explained)
        except ContextFullError as exc:
            raise RequestError(400, f"{exc}: shorten the messages", "messages", "context_length_exceeded") from exc
        except SettingsError as exc:
            raise RequestError(400, str(exc), "dps") from exc
        except (GeneratorExit, RequestError):
            raise
        except BaseException:
            self._conversations.drop(assistant)  # nobody knows what its contexts hold
            raise

    def embed(self, request: EmbeddingRequest, job: Job[Service]) -> Generator[Embedded, None, None]:
        """Yield the texts as vectors of length 1: the mean of the plain model's last hidden states.

        The context is made for them, and freed again. Raises RequestError.
        """
        self._check_lengths(request.texts, "input")
        lengths = [len(self.model.prompt_tokens(text, special=False)) for text in request.texts]
        if not 0 < min(lengths) <= max(lengths) <= self.n_ctx:
            problem = f"input must be texts of 1 to {self.n_ctx} tokens"
            raise RequestError(400, problem, "input", "context_length_exceeded")
        with closing(Embedder(self.model, max(lengths), self.settings.n_threads)) as embed:
            job.stop = (cancel := threading.Event()).set
            try:
                vectors = [embed(text, cancel) for text in request.texts if not job.cancelled]
            except InterruptedError:
                return
        yield Embedded(vectors, sum(lengths))

    def _check_lengths(self, texts: Iterable[str], param: str) -> None:
        """Refuse what is too long at sight: a long text takes seconds to be cut into tokens, and nothing ends that."""
        if any(len(text) > self.n_ctx * MOST_CHARACTERS for text in texts):
            problem = f"{param} is longer than the context of {self.n_ctx} tokens: shorten it"
            raise RequestError(400, problem, param, "context_length_exceeded")

    def _grammar(self, request: AnswerRequest) -> Grammar | None:
        try:
            return Grammar(self.model, request.grammar) if request.grammar else None
        except SettingsError as exc:
            raise RequestError(400, f"{exc}: change the schema", "response_format", "invalid_json_schema") from exc

    def _key(self, request: AnswerRequest, name: str | None) -> Key:
        asked = request.steering
        if asked.gamma and asked.gamma.off:
            name, asked = None, replace(asked, gamma=None, mode=None)
        elif name is None and (asked.gamma or asked.mode):
            raise RequestError(400, "the model alone is not steered: name a profile, as in MODEL@PROFILE", "dps")
        person = self.people[name] if name else None
        if person and asked.mode != "cad" and not person.scored():
            command = self.commands[name or ""]
            raise RequestError(
                409, f"this profile is not scored with this model: run `{command}`", "model", "not_scored"
            )
        if asked.mode == "cad" and not request.chat:
            raise RequestError(400, "cad steers chats alone: a text has no profile to leave out", "dps.mode")
        if person and isinstance(person.heads, ClusterMap) and asked.mode in ("contrast", "amplify"):
            raise RequestError(400, "clusters steer in their own mode alone", "dps.mode")
        return Key(name, asked.gamma, asked.mode, request.system, request.chat)

    def _open(self, key: Key) -> Assistant:
        person = self.people[key.person] if key.person else None
        settings = replace(self.settings, gamma=key.gamma, mode=key.mode)
        heads = person.heads if person and key.mode != "cad" else None
        try:
            assistant = Assistant(self.model, person.prompter if person else None, heads, settings)
        except SettingsError as exc:
            raise RequestError(400, str(exc), "dps") from exc
        session = assistant.session
        if not key.chat:
            session.template, session.recall = PlainText(self.model), None
            session.prompts = ChatPrompts(session.template, "")
        elif key.system:
            shown = session.prompts
            system = "\n\n".join(filter(None, (shown.system, key.system)))
            session.prompts = ChatPrompts(shown.template, system, shown.earlier)
            session.streams.cache = None  # nothing of a request is kept on disk
        return assistant

    def _check(self, request: AnswerRequest, key: Key, assistant: Assistant) -> None:
        """Refuse to leave out what was asked for."""
        steering = assistant.steering
        if key.gamma and steering is None:
            raise RequestError(400, "no head of this profile's qualifies, so there is nothing to steer by", "dps.gamma")
        if key.mode and (steering is None or steering.gamma.off):
            raise RequestError(400, f"there is no measured γ for {key.mode}: give dps.gamma", "dps.mode")
        if request.steering.explain:
            steering_of(assistant.session)

    def _explained(self, assistant: Assistant, job: Job[Service]) -> tuple[ExplainedToken, ...] | None:
        def progress(*_: object) -> None:
            if job.cancelled:
                raise InterruptedError

        try:
            return explain(assistant.session, progress, shares=False).tokens
        except InterruptedError:
            return None
