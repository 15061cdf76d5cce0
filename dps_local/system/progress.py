"""What long work tells its caller while it runs."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]  # (done, total), in units of the work
Notice = Callable[[str], None]  # one line of text for a person
