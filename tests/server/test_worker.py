"""The queue of the one thread that owns the model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from typing import Any

import pytest

from dps_local.errors import RequestError
from dps_local.server.worker import Job, Worker


class Loaded:
    known: dict[str, Any] = {}  # noqa: RUF012

    def close(self) -> None:
        pass


Steps = Generator[Any, None, None]


def endless(begun: threading.Event) -> Callable[..., Steps]:
    def run(*_: object) -> Steps:
        while True:
            begun.set()
            yield 1

    return run


def yielding(text: str) -> Callable[..., Steps]:
    def run(*_: object) -> Steps:
        yield from text

    return run


def test_a_queue_has_an_end_and_who_leaves_makes_room() -> None:
    worker, begun, ended, answered = Worker(Loaded, n_waiting=1), threading.Event(), threading.Event(), list[Any]()
    worker.start()
    running = Job[Loaded](endless(begun), lambda event: ended.set() if event is None else None)
    worker.submit(running)
    assert begun.wait(10)
    waiting = Job[Loaded](yielding("never"), answered.append)
    worker.submit(waiting)
    with pytest.raises(RequestError, match="the server is busy") as info:
        worker.submit(Job[Loaded](yielding(""), answered.append))
    assert info.value.status == 503
    worker.cancel(waiting)
    done = threading.Event()
    worker.submit(Job[Loaded](yielding("ab"), lambda e: done.set() if e is None else answered.append(e)))
    worker.cancel(running)
    assert ended.wait(1)
    assert done.wait(1)
    assert answered == [None, "a", "b"]  # who leaves is told of the end too
    worker.close()


def test_an_end_stops_the_answer_that_is_being_given() -> None:
    worker, begun = Worker(Loaded), threading.Event()
    worker.start()
    worker.submit(Job[Loaded](endless(begun), lambda _: None))
    assert begun.wait(10)
    worker.close()
    with pytest.raises(RequestError, match="busy"):
        worker.submit(Job[Loaded](endless(begun), lambda _: None))
