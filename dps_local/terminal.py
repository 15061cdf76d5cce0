"""What the program shows a person: answers on stdout, notices and progress on stderr. The one door to rich."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from rich.console import Console, RenderableType
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text


class Terminal:
    """stdout for results, stderr for everything else."""

    def __init__(self) -> None:
        self.out = Console(highlight=False, markup=False)
        self.err = Console(stderr=True, highlight=False, markup=False)

    @property
    def interactive(self) -> bool:
        """Whether a person types the questions and reads the answers."""
        return sys.stdin.isatty() and sys.stdout.isatty()

    def notice(self, text: str) -> None:
        self.err.print(Text(text, style="dim"), soft_wrap=True)

    def error(self, text: str) -> None:
        """Print one line on stderr, however wide the terminal is."""
        line = " ".join(text.split())
        self.err.print(Text.assemble(("error: ", "bold red"), line), soft_wrap=True)

    def show(self, renderable: RenderableType) -> None:
        self.out.print(renderable)

    def write(self, text: str, style: str = "") -> None:
        """Write a piece of an answer as it is, at once."""
        self.out.print(Text(text, style=style), end="", soft_wrap=True)
        self.out.file.flush()

    def table(self, columns: list[str], rows: list[list[str]]) -> None:
        table = Table(*columns, box=None, pad_edge=False, header_style="bold")
        for row in rows:
            table.add_row(*row)
        self.show(table)

    @contextlib.contextmanager
    def progress(self, what: str, *, unit: str = "") -> Iterator[Callable[[int, int | None], None]]:
        """Show a bar with the time left; yields a function of (done, total). unit: "bytes" shows a download.

        Where stderr is no terminal, a line is written at each tenth.
        """
        if not self.err.is_terminal:
            yield _Tenths(what, self.notice)
            return
        count = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            count,
            TimeRemainingColumn(),
            console=self.err,
            transient=True,
        )
        with bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)


class _Tenths:
    """Progress as lines of text, for logs."""

    def __init__(self, what: str, notice: Callable[[str], None]) -> None:
        self.what, self.notice = what, notice
        self.shown, self.done, self.at = 0, 0, time.monotonic()  # of the line before

    def __call__(self, done: int, total: int | None) -> None:
        tenths = 10 * done // total if total else 0
        if total and tenths > self.shown:
            # by the pace since the line before: what an earlier run did flashes past
            now = time.monotonic()
            left = (now - self.at) * (total - done) / (done - self.done)
            self.shown, self.done, self.at = tenths, done, now
            self.notice(f"{self.what}: {10 * tenths} %, {left:.0f} s left")


@contextlib.contextmanager
def interruptible(cancel: threading.Event) -> Iterator[None]:
    """Let the first Ctrl-C set `cancel`, and a second one raise KeyboardInterrupt."""

    def handler(number: int, frame: FrameType | None) -> None:
        if cancel.is_set():
            signal.default_int_handler(number, frame)
        cancel.set()

    previous = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
