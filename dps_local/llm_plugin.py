"""The models of Simon Willison's `llm`: `llm -m dps:me "…"` answers in this process. Imported by `llm` alone.

`dps:NAME` answers for the profile NAME.json in the folder `dps` of llm's own, or for a shipped example; `dps` for the
profile that `-o profile` names, or as the model alone. They are the server's `Service` in the server's one thread, so
they answer, follow conversations and refuse as the server does. The model stays loaded for the next question.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import click
import llm
from llm.parts import ReasoningPart
from pydantic import Field

from dps_local.errors import DpsError, Remedy, SettingsError, StateError
from dps_local.prompting.profile import Profile, examples

if TYPE_CHECKING:  # imported with the first question, so that `llm models` stays fast
    from dps_local.chat.turn import Token
    from dps_local.server.answer_request import AnswerRequest
    from dps_local.server.person import Person
    from dps_local.server.service import Finished, Service
    from dps_local.server.worker import Job

POLL_SECONDS = 0.05
SAMPLING = {"max_tokens", "temperature", "top_p", "min_p", "seed"}  # OpenAI's names are llm's
REMEDIES = {
    Remedy.DOWNLOAD: "run `dps-local models pull {model}`",
    Remedy.DOWNLOAD_AGAIN: "run `dps-local models pull {model}` again",
    Remedy.KNOWN_NAME: "`dps-local models list` shows the models",
}


class PluginError(click.ClickException, llm.ModelError):
    """Becomes one line in `llm chat` too, which does not catch a ModelError."""


class SteeredModel(llm.Model):
    """profile: what `dps-local generate -p` is given; None for the model alone."""

    can_stream = True

    class Options(llm.Options):
        model: str | None = Field(None, description="A name from `dps-local models list`, or the path of a GGUF")
        gamma: float | str | None = Field(
            None, description="Strength of steering, 0 for the model alone; by default what was measured"
        )
        mode: str | None = Field(None, description="contrast, amplify or cad; by default what was measured")
        temperature: float | None = Field(None, description="0 is greedy")
        top_p: float | None = Field(None, description="1 is off")
        min_p: float | None = Field(None, description="0 is off")
        max_tokens: int | None = Field(None, description="Of an answer; by default until the model ends it")
        seed: int | None = Field(None, description="Of the sampler; by default one is drawn")
        threads: int | None = Field(None, ge=1, description="By default all processors, up to 16")

    def __init__(self, model_id: str, profile: str | None) -> None:
        self.model_id, self.profile = model_id, profile

    def __str__(self) -> str:
        return f"dps-local: {self.model_id}"

    def execute(
        self, prompt: llm.Prompt, stream: bool, response: llm.Response, conversation: llm.Conversation | None
    ) -> Iterator[str]:
        del stream, conversation  # the prompt has all messages of the conversation
        from dps_local.chat.turn import Token
        from dps_local.server.person import scoring_command

        options = prompt.options
        assert isinstance(options, SteeredModel.Options)
        profile = getattr(options, "profile", None) or self.profile
        with _one_line():
            user = Profile.load(profile) if profile else None
            request = _request(self.model_id, prompt.messages, options)
            if user is None and (options.gamma is not None or options.mode):
                raise SettingsError("the model alone is not steered: ask dps:NAME, or give -o profile me.json")
            for event in _loaded(options).answer(request, user, scoring_command(profile or "", options.model)):
                if isinstance(event, Token):
                    yield event.text
                else:
                    _tell_end(response, event)


class AnyProfileModel(SteeredModel):
    """Answers for any profile."""

    class Options(SteeredModel.Options):
        profile: str | None = Field(None, description="The profile (JSON) to answer for; without, the model alone")


@llm.hookimpl
def register_models(register: Callable[[llm.Model], None]) -> None:
    register(AnyProfileModel("dps", None))
    folder = llm.user_dir() / "dps"  # type: ignore[no-untyped-call]
    own = {file.stem: str(file) for file in folder.glob("*.json")}
    for name, profile in sorted(({name: name for name in examples()} | own).items()):
        register(SteeredModel(f"dps:{name}", profile))


class LoadedModel:
    """A model in the thread that owns it, with the people who asked, by the digests of their profiles."""

    def __init__(self, path: Path, n_threads: int | None) -> None:
        from dps_local.server.worker import Worker

        self.path, self.n_threads = path, n_threads
        self.people: dict[str, Person] = {}
        self.commands: dict[str, str] = {}
        self.worker = Worker(self._load)
        self.worker.start()

    def answer(self, request: AnswerRequest, user: Profile | None, command: str) -> Iterator[Token | Finished]:
        """Yield the tokens of an answer and then its end; who takes no more of them stops it.

        command: scores the profile, which is never done here.
        """
        from dps_local.chat.turn import Token
        from dps_local.server.worker import Job

        def run(service: Service, job: Job[Service]) -> Generator[Token | Finished, None, None]:
            name = self._name(service, user, command) if user else None
            yield from service.answer(request, name, job)

        events = SimpleQueue[Any]()
        while not self.worker.ready.wait(POLL_SECONDS):
            if self.worker.failure:
                raise self.worker.failure
        self.worker.submit(job := Job(run, events.put))
        try:
            while isinstance(event := events.get(), Token):
                yield event
        except BaseException:
            self.worker.cancel(job)
            raise
        if event is None:
            raise StateError("another model was asked for before this answer had ended")
        if isinstance(event, BaseException):
            raise event
        yield event

    def _load(self) -> Service:
        from dps_local.assistant import Settings
        from dps_local.engine import self_test
        from dps_local.engine.model import Model
        from dps_local.server.service import Service

        self_test.check(_ignore, offload=True)
        return Service(Model(self.path), self.people, Settings(n_threads=self.n_threads), self.commands)

    def _name(self, service: Service, user: Profile, command: str) -> str:
        """Return what the service knows a person by; a profile that has changed is another's."""
        from dps_local.prompting.prompt import Prompter
        from dps_local.scoring.cached_map import CachedMap
        from dps_local.scoring.options import ScoringOptions
        from dps_local.server.person import Person

        if (name := user.digest()) not in self.people:
            prompter = Prompter.of(service.model, user, n_ctx=service.settings.n_ctx)
            own = CachedMap.of(prompter, ScoringOptions(n_threads=self.n_threads))
            self.people[name] = Person.load(prompter, own, _ignore)
            self.commands[name] = command
        return name


_kept: LoadedModel | None = None
_choosing = threading.Lock()


@atexit.register
def close() -> None:
    """Free the model that is loaded; the next question loads it again."""
    global _kept
    if _kept:
        _kept.worker.close()
    _kept = None


def _loaded(options: SteeredModel.Options) -> LoadedModel:
    """Return the model that is asked for; the one that was loaded before it is freed."""
    from dps_local.engine import registry

    global _kept
    path = registry.resolve(options.model or registry.default_name())
    with _choosing:
        if _kept is None or (_kept.path, _kept.n_threads) != (path, options.threads) or _kept.worker.failure:
            close()
            _kept = LoadedModel(path, options.threads)
        return _kept


def _request(name: str, messages: Sequence[llm.Message], options: SteeredModel.Options) -> AnswerRequest:
    """Return what is asked, read and checked as the server reads OpenAI's JSON."""
    from dps_local.server.answer_request import chat_request

    said = [
        {"role": m.role, "content": [part.to_dict() for part in m.parts if not isinstance(part, ReasoningPart)]}
        for m in messages
    ]
    if not said:
        raise SettingsError("the prompt is empty")
    steering = options.model_dump(include={"gamma", "mode"})
    return chat_request({"model": name, "messages": said, "dps": steering} | options.model_dump(include=SAMPLING))


def _tell_end(response: llm.Response, end: Finished) -> None:
    from dps_local.server.answer_json import FINISH, usage

    used, steering = usage(end), end.steering
    details = used["prompt_tokens_details"]
    response.set_usage(input=used["prompt_tokens"], output=used["completion_tokens"], details=details)
    dps = {"mode": steering.mode, "gamma": str(steering.gamma)} if steering else None
    response.response_json = {"finish_reason": FINISH[end.turn.stop], "dps": dps}


@contextmanager
def _one_line() -> Iterator[None]:
    try:
        yield
    except DpsError as exc:
        helps = REMEDIES.get(exc.remedy, f"try {exc.remedy.value}").format(model=exc.model) if exc.remedy else ""
        raise PluginError("".join(filter(str.isprintable, ": ".join(filter(None, (str(exc), helps)))))) from exc


def _ignore(_: str) -> None:
    """Notices have no place in llm's output."""
