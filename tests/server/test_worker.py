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


def test_an_idle_model_is_freed_and_loaded_for_the_next_request() -> None:
    loaded, freed, answered = list[int](), threading.Event(), threading.Event()

    class Counted(Loaded):
        def __init__(self) -> None:
            loaded.append(1)

        def close(self) -> None:
            freed.set()

    worker = Worker(Counted, keep_alive=0.05)
    worker.start()
    for n in (1, 2, 3):
        assert freed.wait(10)
        assert len(loaded) == n
        freed.clear()
        worker.submit(Job[Counted](yielding("a"), lambda event: answered.set() if event is None else None))
        assert answered.wait(10)
        answered.clear()
    worker.close()
    assert len(loaded) == 4


def test_a_model_that_cannot_be_loaded_again_fails_the_request_alone() -> None:
    there, failed, freed = list[bool](), list[Any](), threading.Event()

    class Once(Loaded):
        def __init__(self) -> None:
            there.append(True)
            if len(there) == 2:
                raise OSError("gone")

        def close(self) -> None:
            freed.set()

    worker, ended = Worker(Once, keep_alive=0.01), threading.Event()
    worker.start()
    assert freed.wait(10)
    for _ in range(2):
        worker.submit(Job[Once](yielding("a"), lambda e: ended.set() if e is None else failed.append(e)))
        assert ended.wait(10)
        ended.clear()
    assert [str(event) for event in failed] == ["gone", "a"]
    worker.close()


def test_who_leaves_after_the_answer_does_not_stop_the_next_one() -> None:
    worker, stopped, done = Worker(Loaded), list[int](), threading.Event()
    worker.start()
    job = Job[Loaded](yielding("a"), lambda event: done.set() if event is None else None)
    job.stop = lambda: stopped.append(1)
    worker.submit(job)
    assert done.wait(10)
    worker.cancel(job)
    assert not stopped
    worker.close()


def test_a_model_that_cannot_be_loaded_ends_all_requests() -> None:
    allowed, failed, ended = threading.Event(), threading.Event(), list[Any]()

    def load() -> Loaded:
        allowed.wait(10)
        raise OSError("gone")

    worker = Worker(load)
    worker.on_failure = failed.set
    worker.start()
    worker.submit(Job[Loaded](yielding("a"), ended.append))
    allowed.set()
    assert failed.wait(10)
    assert ended == [None]
    assert str(worker.failure) == "gone"
    with pytest.raises(RequestError, match="busy"):
        worker.submit(Job[Loaded](yielding("a"), ended.append))
    worker.close()
