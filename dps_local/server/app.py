"""The routes: OpenAI's and those of llama.cpp's server, as a Starlette application over a `Worker`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sse_starlette import EventSourceResponse, JSONServerSentEvent, ServerSentEvent
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

import dps_local
from dps_local.chat.turn import Token
from dps_local.drawing.head_map import bare_head_map_html
from dps_local.errors import RequestError
from dps_local.server.answer_json import AnswerJson, error_json
from dps_local.server.answer_request import AnswerRequest, chat_request, completion_request
from dps_local.server.embedding_request import Embedded, embedding_request, embeddings_json
from dps_local.server.guard import Access, Guard
from dps_local.server.openapi import description
from dps_local.server.page_files import HEADERS, page_routes
from dps_local.server.service import Finished, Service
from dps_local.server.worker import RETRY_AFTER, Job, Worker

MAX_BODY = 8 << 20  # bytes
BODY_SECONDS, SEND_SECONDS = 30.0, 60.0  # that a client may take to send its request, and to take a chunk
PING_SECONDS = 5
PATIENCE = 1.0  # seconds that a stream waits for its first token, so that an error still is an HTTP status
Events = asyncio.Queue[Any]
Run = Callable[[Service, Job[Service]], Generator[Any, None, None]]


@dataclass(frozen=True)
class Api:
    """model: its name. profiles: those that are served. on_error: is told what nobody expected, without its text."""

    worker: Worker[Service]
    model: str
    profiles: Sequence[str]
    on_error: Callable[[BaseException], None] = lambda _: None
    _leaving: set[asyncio.Task[None]] = field(default_factory=set)

    async def health(self, _: Request) -> Response:
        self._loaded()
        return JSONResponse({"status": "ok"})

    async def models(self, request: Request) -> Response:
        people = self._loaded()["people"]
        names = [None, *self._visible(request)]
        return JSONResponse({"object": "list", "data": [self._model(name, people) for name in names]})

    async def one_model(self, request: Request) -> Response:
        name = self._person(request.path_params["model"], request)
        return JSONResponse(self._model(name, self._loaded()["people"]))

    async def heads(self, request: Request) -> Response:
        """Return the head map of a person as the page shows it, which is what `dps-local inspect` draws."""
        name = self._person(request.path_params["model"], request)
        if (head_map := self._loaded()["maps"].get(name)) is None:
            raise RequestError(404, "there is no head map yet: `dps-local score` makes one", code="no_head_map")
        return HTMLResponse(bare_head_map_html(head_map), headers=HEADERS)

    async def props(self, _: Request) -> Response:
        known = self._loaded()
        return JSONResponse(
            {
                "model_alias": self.model,
                "total_slots": 1,
                "default_generation_settings": {"n_ctx": known["n_ctx"]},
                "chat_template": known["chat_template"],
                "build_info": f"dps-local {dps_local.__version__}",
            }
        )

    async def openapi(self, _: Request) -> Response:
        return JSONResponse(description())

    async def chat(self, request: Request) -> Response:
        return await self._answer(request, chat_request(await _body(request)))

    async def completion(self, request: Request) -> Response:
        return await self._answer(request, completion_request(await _body(request)))

    def _loaded(self) -> dict[str, Any]:
        if not self.worker.ready.is_set():
            raise RequestError(503, "the model is being loaded: try again in a few seconds", code="loading")
        return self.worker.known

    def _visible(self, request: Request) -> list[str]:
        allowed = request.scope["profiles"]
        return [name for name in self.profiles if allowed is None or name in allowed]

    def _person(self, model: str, request: Request) -> str | None:
        """Return whose profile a model's name has, None for the plain model; raises RequestError (404)."""
        if model == self.model:
            return None
        name = model.removeprefix(f"{self.model}@")
        if name == model or name not in self._visible(request):
            raise RequestError(404, "there is no such model: GET /v1/models lists them", "model", "model_not_found")
        return name

    def _model(self, name: str | None, people: dict[str, Any]) -> dict[str, Any]:
        model = {"id": f"{self.model}@{name}" if name else self.model, "object": "model", "created": 0}
        return {**model, "owned_by": "dps-local", **({"dps": people[name]} if name else {})}

    async def embeddings(self, request: Request) -> Response:
        asked = embedding_request(await _body(request))
        if self._person(asked.model, request):
            problem = "a vector is the plain model's: name it without a profile"
            raise RequestError(400, problem, "model", "unsupported_value")
        job, events = self._submit(lambda service, job: service.embed(asked, job))
        (found,) = await self._all(request, job, events, Embedded)
        return JSONResponse(embeddings_json(asked, found))

    def _submit(self, run: Run) -> tuple[Job[Service], Events]:
        """Let a job wait for its turn; return it, with the queue of what it sends and, at its end, None."""
        loop, events = asyncio.get_running_loop(), Events()

        def send(event: Any) -> None:
            with suppress(RuntimeError):  # the server has ended meanwhile
                loop.call_soon_threadsafe(events.put_nowait, event)

        job = Job[Service](run, send)
        self.worker.submit(job)
        return job, events

    async def _answer(self, request: Request, asked: AnswerRequest) -> Response:
        name = self._person(asked.model, request)
        job, events = self._submit(lambda service, job: service.answer(asked, name, job))
        answer = AnswerJson(asked)
        if not asked.stream:
            *tokens, end = await self._all(request, job, events, Finished)
            return JSONResponse(answer.whole(tokens, end))
        gone, first = self._watch(request, job), list[Any]()
        try:
            with suppress(TimeoutError):
                first.append(await asyncio.wait_for(events.get(), PATIENCE))
            if first and isinstance(first[0], BaseException):
                raise first[0]
        except BaseException:
            gone.cancel()
            self._call_off(job)
            raise
        stream = self._stream(job, gone, events, answer, first)
        return EventSourceResponse(stream, ping=PING_SECONDS, send_timeout=SEND_SECONDS, sep="\n")

    async def _all(self, request: Request, job: Job[Service], events: Events, last: type) -> list[Any]:
        """Return all that a job sends, of which the last is of a type; raises what it raised."""
        gone, found = self._watch(request, job), list[Any]()
        try:
            while (event := await events.get()) is not None:
                if isinstance(event, BaseException):
                    raise event
                found.append(event)
        finally:
            gone.cancel()
            self._call_off(job)
        if not found or not isinstance(found[-1], last):
            raise _broken_off()
        return found

    async def _stream(
        self,
        job: Job[Service],
        gone: asyncio.Task[None],
        events: Events,
        answer: AnswerJson,
        first: list[Any],
    ) -> AsyncIterator[ServerSentEvent]:
        try:
            for chunk in answer.first():
                yield JSONServerSentEvent(chunk)
            event = first[0] if first else await events.get()
            while isinstance(event, Token):
                yield JSONServerSentEvent(answer.token(event))
                event = await events.get()
            if isinstance(event, Finished):
                for chunk in answer.last(event):
                    yield JSONServerSentEvent(chunk)
                yield ServerSentEvent("[DONE]")
            else:
                yield JSONServerSentEvent(self.said(event or _broken_off())[1])
        finally:
            gone.cancel()
            self._call_off(job)

    def _watch(self, request: Request, job: Job[Service]) -> asyncio.Task[None]:
        """Call the job off when the client leaves."""
        gone = asyncio.create_task(_disconnected(request))
        gone.add_done_callback(lambda _: None if gone.cancelled() else self._call_off(job))
        return gone

    def _call_off(self, job: Job[Service]) -> None:
        """Stop a job whose client has left."""
        if not job.done:
            self.worker.cancel(job)
            task = asyncio.ensure_future(self._until_done(job))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def _until_done(self, job: Job[Service]) -> None:
        """Say it more than once, as a job that just begins does not hear it."""
        while not job.done:
            self.worker.cancel(job)
            await asyncio.sleep(0.1)

    def said(self, error: BaseException) -> tuple[int, dict[str, Any]]:
        status, content = error_json(error)
        if status == 500:
            self.on_error(error)
        return status, content

    async def failed(self, _: Request, error: Exception) -> Response:
        status, content = self.said(error)
        return JSONResponse(content, status, {"Retry-After": str(RETRY_AFTER)} if status == 503 else None)


def make_app(api: Api, access: Access) -> Starlette:
    routes = [
        Route("/health", api.health),
        Route("/v1/models", api.models),
        Route("/v1/models/{model:path}/heads", api.heads),
        Route("/v1/models/{model:path}", api.one_model),
        Route("/props", api.props),
        Route("/openapi.json", api.openapi),
        Route("/v1/chat/completions", api.chat, methods=["POST"]),
        Route("/v1/completions", api.completion, methods=["POST"]),
        Route("/v1/embeddings", api.embeddings, methods=["POST"]),
    ]
    if access.link:
        routes += page_routes(access.link)
    middleware = [Middleware(Guard, access=access)]
    if access.origins:
        cors = {"allow_origins": sorted(access.origins), "allow_methods": ["GET", "POST"], "allow_headers": ["*"]}
        middleware.insert(0, Middleware(CORSMiddleware, **cors))  # type: ignore[arg-type]
    handlers: dict[Any, Any] = {RequestError: api.failed, HTTPException: _no_route}
    return Starlette(
        routes=[_caught(route, api) for route in routes], middleware=middleware, exception_handlers=handlers
    )


def _caught(route: Route, api: Api) -> Route:
    """Let a route answer every error as an object; Starlette would log it with its text."""

    async def endpoint(request: Request) -> Response:
        try:
            response: Response = await route.endpoint(request)
        except Exception as exc:
            return await api.failed(request, exc)
        return response

    return Route(route.path, endpoint, methods=list(route.methods or ()))


async def _no_route(_: Request, error: HTTPException) -> Response:
    status, content = error_json(RequestError(error.status_code, error.detail))
    return JSONResponse(content, status, error.headers)


async def _body(request: Request) -> Any:
    """Return the JSON of a request. One of another type could come from any page's form."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RequestError(415, "the Content-Type must be application/json")
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                data += part
                if len(data) > MAX_BODY:
                    raise RequestError(413, f"the request is larger than {MAX_BODY >> 20} MiB")
        return json.loads(data, parse_constant=_no_number)
    except TimeoutError:
        raise RequestError(408, "the request took too long to arrive") from None
    except (ValueError, RecursionError):
        raise RequestError(400, "the request is no valid JSON") from None


def _broken_off() -> RequestError:
    return RequestError(503, "the answer was broken off", code="cancelled")


def _no_number(name: str) -> float:
    raise ValueError(name)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
