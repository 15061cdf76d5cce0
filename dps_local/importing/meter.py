"""`Meter`: how much of the sources has been read, or of the texts cleaned, whichever format they are of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from dps_local.system.progress import Progress

T = TypeVar("T")


class Meter:
    """Counts bytes, or texts; a source that is read twice is expected twice."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.done = self.total = 0

    def expect(self, size: int) -> None:
        self.total += size
        self.progress(self.done, self.total)

    def read(self, size: int) -> None:
        self.done = min(self.done + size, self.total)
        self.progress(self.done, self.total)

    def over(self, things: Iterable[T]) -> Iterator[T]:
        """Yield things, and count each when it is done with."""
        for thing in things:
            yield thing
            self.read(1)


_meter: ContextVar[Meter] = ContextVar("meter")


@contextmanager
def metered(progress: Progress) -> Iterator[None]:
    """Tell `progress` of what is read within."""
    token = _meter.set(Meter(progress))
    try:
        yield
    finally:
        _meter.reset(token)


def meter() -> Meter:
    """Return the meter of the work at hand; outside of any, one that tells nobody."""
    return _meter.get(Meter(lambda _done, _total: None))
