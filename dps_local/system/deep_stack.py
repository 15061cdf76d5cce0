"""Calls that need a deeper stack than a thread has."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_starting = threading.Lock()  # the size is one for all threads that are started


def on_deep_stack(call: Callable[[], T], size: int) -> T:
    """Return what a call returns on a thread with a stack of `size` bytes, of which what it touches is memory only.

    size: whole MiB, as some systems want whole pages. Raises MemoryError when there is not so much address space.
    """
    results: list[T] = []
    thread = threading.Thread(target=lambda: results.append(call()))
    with _starting:
        before = threading.stack_size(size)
        try:
            thread.start()
        except RuntimeError as exc:
            raise MemoryError(f"no stack of {size} bytes") from exc
        finally:
            threading.stack_size(before)
    thread.join()
    return results[0]
