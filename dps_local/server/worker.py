"""`Worker`: the one thread that owns the model, and the `Job`s that wait for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any, Generic, Protocol, TypeVar

from dps_local.errors import RequestError

RETRY_AFTER = 5  # seconds, that a client is asked to wait when the queue is full


class Owner(Protocol):
    """What is loaded, and freed by `close`. known: what is told of it without the model, unloaded or not."""

    @property
    def known(self) -> dict[str, Any]: ...

    def close(self) -> None: ...


T = TypeVar("T", bound=Owner)


class Job(Generic[T]):
    """A request that waits, or is being answered.

    run: yields what is to be sent. send: takes it, from the worker's thread, and at last None. stop: what else must
    be told that the answer is not wanted any more.
    """

    def __init__(self, run: Callable[[T, Job[T]], Generator[Any, None, None]], send: Callable[[Any], None]) -> None:
        self.run, self.send = run, send
        self.stop: Callable[[], None] | None = None
        self.cancelled = self.done = False

    def cancel(self) -> None:
        """Stop between two tokens, or two batches of the prompt; an answer that begins just now wants it said again."""
        self.cancelled = True
        if stop := self.stop:
            stop()


class Worker(Generic[T]):
    """Loads the model, and runs one job after the other.

    load: returns what jobs are run with. n_waiting: jobs that may wait. keep_alive: seconds without a job after which
    it is unloaded until the next one; None keeps it. on_failure: is called when it cannot be loaded at first.
    """

    def __init__(
        self,
        load: Callable[[], T],
        n_waiting: int = 16,
        keep_alive: float | None = None,
    ) -> None:
        self._load, self._n_waiting, self._keep_alive = load, n_waiting, keep_alive
        self.on_failure: Callable[[], None] = lambda: None
        self._waiting: list[Job[T]] = []
        self._changed = threading.Condition()
        self._ending = False
        self._current: Job[T] | None = None
        self.loaded: T | None = None
        self.failure: BaseException | None = None  # of the first load
        self.known: dict[str, Any] = {}
        self.ready = threading.Event()  # it was loaded once
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, job: Job[T]) -> None:
        """Let a job wait for its turn; raises RequestError (503) where too many do."""
        with self._changed:
            if self._ending or len(self._waiting) >= self._n_waiting:
                raise RequestError(503, "the server is busy: try again in a few seconds", code="server_busy")
            self._waiting.append(job)
            self._changed.notify()

    def cancel(self, job: Job[T]) -> None:
        """Take a job out of the queue, or stop its answer; one that is done is left alone, as is the job behind it."""
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
                self._end(job)
            elif not job.done:
                job.cancel()

    def end(self) -> None:
        """Stop the answer that is being given, and take no more."""
        with self._changed:
            self._ending = True
            for job in self._waiting:
                job.cancelled = True
            if current := self._current:
                current.cancel()
            self._changed.notify()

    def close(self) -> None:
        """End, and free the model."""
        self.end()
        while self._thread.is_alive():
            if current := self._current:
                current.cancel()
            self._thread.join(0.05)

    def _run(self) -> None:
        try:
            self.loaded = self._load()
        except BaseException as exc:
            self.failure = exc
            with self._changed:
                self._ending = True
                for waiting in self._waiting:
                    self._end(waiting)
            self.on_failure()
            return
        self.known = self.loaded.known
        self.ready.set()
        while (job := self._next()) is not None:
            self._current = job
            self._answer(job)
            self._current = None
        self._unload()

    def _next(self) -> Job[T] | None:
        """Return the next job, None at the end; unloads the model while none comes for long."""
        with self._changed:
            while not self._waiting and not self._ending:
                idle = self._keep_alive if self.loaded else None
                if not self._changed.wait(idle) and not self._waiting:
                    self._unload()
            return self._waiting.pop(0) if self._waiting else None

    def _end(self, job: Job[T]) -> None:
        job.done = True
        job.send(None)

    def _unload(self) -> None:
        if self.loaded:
            self.loaded.close()
            self.loaded = None

    def _answer(self, job: Job[T]) -> None:
        try:
            if job.cancelled:
                return
            if self.loaded is None:
                self.loaded = self._load()
            with closing(job.run(self.loaded, job)) as events:
                for event in events:
                    job.send(event)
                    if job.cancelled:
                        return
        except BaseException as exc:
            job.send(exc)
        finally:
            if self.loaded:
                self.known = self.loaded.known
            with self._changed:
                self._end(job)
