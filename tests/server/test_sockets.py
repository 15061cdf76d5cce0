"""The server as programs meet it: through sockets, with clients that leave, wait, or say evil things."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from served import ASK, Served
from tiny import TinyModel

from dps_local.chat.session import Session
from dps_local.chat.turn import Token
from dps_local.engine.native import Native
from dps_local.server import app
from dps_local.server.guard import Access

Listening = Callable[..., Any]
LEFT = 1.0  # seconds until a client that has left costs nothing


@pytest.fixture
def serve(tiny_model: TinyModel) -> Iterator[Callable[..., Served]]:
    opened: list[Served] = []

    def start(n_waiting: int = 16) -> Served:
        opened.append(Served(tiny_model(), n_waiting))
        return opened[-1]

    yield start
    for one in opened:
        one.worker.close()


def body(stream: bool = False, **options: Any) -> dict[str, Any]:
    return {"model": "tiny@ada", "messages": [{"role": "user", "content": ASK}], "stream": stream, **options}


def request(data: Any = None, method: str = "POST", target: str = "/v1/chat/completions", **headers: str) -> bytes:
    content = b"" if data is None else json.dumps(data).encode()
    named = {"host": "127.0.0.1", "connection": "close", "content-length": str(len(content))} | headers
    if data is not None:
        named["content-type"] = "application/json"
    lines = [f"{method} {target} HTTP/1.1", *(f"{name.replace('_', '-')}: {value}" for name, value in named.items())]
    return "\r\n".join([*lines, "", ""]).encode() + content


def ask(port: int, sent: bytes) -> tuple[int, dict[str, str], str]:
    """Return the status, headers and body of an answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(sent)
        head, _, text = b"".join(iter(lambda: connection.recv(65536), b"")).decode().partition("\r\n\r\n")
    status, *lines = head.split("\r\n")
    return int(status.split()[1]), dict(line.lower().split(": ", 1) for line in lines), text


def until(condition: Callable[[], Any], seconds: float = 20) -> float:
    """Wait until a condition holds; return how long that took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds
        time.sleep(0.01)
    return time.monotonic() - began


def idle(served: Served) -> bool:
    return served.worker._current is None and not served.worker._waiting


class SlowlyAsked:
    """An event; whoever asks for it waits, as llama.cpp does between two operations of a large model."""

    def __init__(self, event: threading.Event) -> None:
        self.event = event

    def is_set(self) -> bool:
        time.sleep(0.03)
        return self.event.is_set()


@pytest.fixture
def slow_prompts(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Let a prompt's one batch take many seconds; the event says that it is being read."""
    begun, ended_by = threading.Event(), Native.ended_by

    @contextmanager
    def slowly(self: Native, context: Any, cancel: Any) -> Iterator[None]:
        begun.set()
        with ended_by(self, context, SlowlyAsked(cancel) if cancel else None):  # type: ignore[arg-type]
            yield

    monkeypatch.setattr(Native, "ended_by", slowly)
    return begun


@pytest.fixture
def slow_tokens(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Let a token take a tenth of a second; the event says that the first is there."""
    begun, asked = threading.Event(), Session.ask

    def slowly(self: Session, *arguments: Any, **options: Any) -> Iterator[Token]:
        for token in asked(self, *arguments, **options):
            begun.set()
            time.sleep(0.1)
            yield token

    monkeypatch.setattr(Session, "ask", slowly)
    return begun


@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_while_the_prompt_is_read_costs_nothing(
    serve: Callable[..., Served], slow_prompts: threading.Event, stream: bool
) -> None:
    served = serve()
    with served.listening() as port:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(request(body(stream)))
            assert slow_prompts.wait(20)
        assert until(lambda: idle(served)) < LEFT


@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_while_tokens_come_costs_nothing(
    serve: Callable[..., Served], slow_tokens: threading.Event, stream: bool
) -> None:
    served = serve()
    with served.listening() as port:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(request(body(stream, max_tokens=300)))
            assert slow_tokens.wait(20)
            if stream:
                assert connection.recv(15) == b"HTTP/1.1 200 OK"
        assert until(lambda: idle(served)) < LEFT


@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_while_waiting_makes_room_and_the_answer_before_goes_on(
    serve: Callable[..., Served], slow_tokens: threading.Event, stream: bool
) -> None:
    served = serve(n_waiting=1)
    answers: list[Any] = []
    with served.listening() as port:
        first = threading.Thread(target=lambda: answers.append(ask(port, request(body(max_tokens=40)))))
        first.start()
        assert slow_tokens.wait(20)
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(request(body(stream)))
            until(lambda: served.worker._waiting)
            refused = ask(port, request(body(stream)))
            assert (refused[0], refused[1]["retry-after"]) == (503, "5")
            assert json.loads(refused[2])["error"]["code"] == "server_busy"
        assert until(lambda: not served.worker._waiting) < LEFT
        first.join()
    assert answers[0][0] == 200
    assert json.loads(answers[0][2])["usage"]["completion_tokens"] == 40


def test_a_stream_that_waits_is_pinged_and_then_answered(
    serve: Callable[..., Served], slow_tokens: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "PING_SECONDS", 0.2)
    monkeypatch.setattr(app, "PATIENCE", 0.1)
    with serve().listening() as port:
        first = threading.Thread(target=ask, args=(port, request(body(max_tokens=15))))
        first.start()
        assert slow_tokens.wait(20)
        status, headers, text = ask(port, request(body(True, max_tokens=2)))
        first.join()
    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert text.index(": ping") < text.index('"delta":{"content":"')
    assert text.count("data: {") == 4  # the role, two tokens, the end
    assert "data: [DONE]" in text


def test_two_clients_at_once_both_get_what_they_get_alone(serve: Callable[..., Served]) -> None:
    served, found = serve(), dict[str, list[str]]()
    alone = {model: served.text(model) for model in ("tiny@ada", "tiny@ben")}
    with served.listening() as port:

        def client(model: str) -> None:
            answers = [ask(port, request(body(model=model, max_tokens=8, temperature=0))) for _ in range(10)]
            found[model] = [json.loads(text)["choices"][0]["message"]["content"] for _, _, text in answers]

        clients = [threading.Thread(target=client, args=(model,)) for model in alone]
        for one in clients:
            one.start()
        for one in clients:
            one.join()
    assert found == {model: [text] * 10 for model, text in alone.items()}


def test_evil_hosts_and_origins_are_refused_at_the_socket(serve: Callable[..., Served]) -> None:
    with serve().listening() as port:
        own = f"http://127.0.0.1:{port}"
        for headers in ({}, {"host": f"localhost:{port}"}, {"host": f"127.0.0.1:{port}", "origin": own}):
            assert ask(port, request(None, "GET", "/v1/models", **headers))[0] == 200
        evil = [
            {"host": "evil.example"},
            {"host": f"evil.example:{port}"},
            {"host": "localhost.evil.example"},
            {"host": "127.0.0.1@evil.example"},
            {"origin": "http://evil.example"},
            {"origin": "http://127.0.0.1:1"},
            {"origin": "null"},
            {"sec_fetch_site": "cross-site"},
        ]
        for headers in evil:
            status, _, said = ask(port, request(body(), **headers))
            assert (status, json.loads(said)["error"]["type"]) == (403, "permission_error"), headers
        assert ask(port, b"GET /v1/models HTTP/1.0\r\nconnection: close\r\n\r\n")[0] == 403
        for noise in (
            b"\x16\x03\x01\r\n\r\n",
            b"GET / HTTP/9\r\n\r\n",
            b"POST /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n",
        ):
            assert ask(port, noise)[0] in (400, 405)
        assert ask(port, request(None, "GET", "/health"))[0] == 200


def test_pages_ask_from_the_origins_that_may(serve: Callable[..., Served]) -> None:
    mine = {"origin": "http://localhost:3000"}
    with serve().listening(Access(origins=frozenset([mine["origin"]]))) as port:
        wanted = {"access_control_request_method": "POST", "access_control_request_headers": "content-type"}
        status, headers, _ = ask(port, request(None, "OPTIONS", **mine, **wanted))
        assert (status, headers["access-control-allow-origin"]) == (200, mine["origin"])
        status, headers, _ = ask(port, request(body(max_tokens=1), sec_fetch_site="cross-site", **mine))
        assert (status, headers["access-control-allow-origin"]) == (200, mine["origin"])
        other = {"origin": "http://evil.example"}
        status, headers, _ = ask(port, request(None, "OPTIONS", **other, **wanted))
        assert (status, "access-control-allow-origin" in headers) == (400, False)
        status, headers, _ = ask(port, request(body(), **other))
        assert (status, "access-control-allow-origin" in headers) == (403, False)
    with serve().listening() as port:
        assert "access-control-allow-origin" not in ask(port, request(None, "OPTIONS", **mine, **wanted))[1]


def test_a_hundred_clients_that_break_off_at_random_leave_the_server_as_it_was(serve: Callable[..., Served]) -> None:
    served, chance = serve(), random.Random(7)
    expected = [served.text(model) for model in ("tiny", "tiny@ada", "tiny@ben")]

    def break_off(port: int, sent: bytes, seconds: float) -> None:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(sent)
            connection.settimeout(seconds)
            with contextlib.suppress(TimeoutError):
                while connection.recv(4096):
                    pass

    with served.listening() as port:
        clients = []
        for _ in range(100):
            options = {"model": chance.choice(["tiny", "tiny@ada", "tiny@ben"]), "max_tokens": chance.randint(1, 200)}
            question = {"role": "user", "content": "word " * chance.randint(1, 60)}
            sent = request(body(chance.random() < 0.5, **options) | {"messages": [question]})
            sent = sent[: chance.randint(1, len(sent))] if chance.random() < 0.2 else sent
            clients.append(threading.Thread(target=break_off, args=(port, sent, chance.uniform(0.001, 0.3))))
            clients[-1].start()
            if len(clients) % 10 == 0:
                for client in clients[-10:]:
                    client.join()
        until(lambda: idle(served), 5)
    assert [served.text(model) for model in ("tiny", "tiny@ada", "tiny@ben")] == expected
