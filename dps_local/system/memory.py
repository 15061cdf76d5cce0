"""Memory of this machine and of this process."""

from __future__ import annotations

import sys

import psutil


def available() -> int:
    """Return the bytes that can be had without swapping."""
    return int(psutil.virtual_memory().available)


def peak() -> int:
    """Return the most bytes that this process has held so far."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
