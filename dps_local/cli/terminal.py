"""What the program shows a person: answers on stdout, notices and progress on stderr. The one door to rich.

Everything printed passes here, and loses the control characters that names, answers and messages may hold: an escape
sequence in a model's name could write the clipboard. So do pipes, whose end may be a terminal (| head, | tee). Exact
text is what --json prints, with escapes, and what an answer leaves in a file (generate > file).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import stat
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Literal

import typer
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from dps_local.drawing.console import ASCII, ConsoleText

# C0 but for tab and line feed, DEL, C1, and what turns the direction of the text behind it. The marks U+200E, U+200F
# and U+061C stay: they open nothing, and right-to-left text needs them, as emoji need U+200D.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
UNBOUNDED = 1_000_000  # columns


def without_controls(text: str) -> str:
    """Return a text without its control characters."""
    return CONTROL.sub("", text)


def open_streams() -> None:
    """Let text that a stream's encoding does not know come through as replacement signs; a closed stream is empty."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # the next file that is opened would take its number, and what is written to it
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "w" if number else "r", closefd=False))
    for stream in (sys.stdin, sys.stdout):  # Python escapes on stderr
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]


def show_traceback(kind: type[BaseException], exc: BaseException, where: TracebackType | None) -> None:
    """Print the traceback of what nobody expected; a `sys.excepthook`."""
    sys.stderr.write(without_controls("".join(traceback.format_exception(kind, exc, where))))


@contextlib.contextmanager
def readable_usage_errors() -> Iterator[None]:
    """Take control characters out of what typer will print by itself of a mistake on the command line."""
    try:
        yield
    except Exception as exc:
        if isinstance(message := getattr(exc, "message", None), str):
            exc.message = without_controls(message)  # type: ignore[attr-defined]
        raise


def decode_argument(text: str) -> str:
    """Return text of the command line that need not be UTF-8, with replacement signs; names of files stay as given."""
    return os.fsencode(text).decode(errors="replace")


class _Console(Console):
    """Prints no control characters but rich's own."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else without_controls(text), style, control)


class Terminal:
    """stdout for results, stderr for everything else."""

    def __init__(self) -> None:
        self.out = _Console(highlight=False, markup=False, emoji=False)
        self.err = _Console(stderr=True, highlight=False, markup=False, emoji=False)

    @property
    def interactive(self) -> bool:
        """Whether a person types the questions and reads the answers."""
        return sys.stdin.isatty() and sys.stdout.isatty()

    @property
    def dumb(self) -> bool:
        """Whether the terminal moves no cursor."""
        return self.out.is_dumb_terminal

    def draws(self, when: Literal["auto", "always", "never"]) -> bool:
        """Whether answers are drawn; auto: where a person sees them, and wants colours."""
        plain = not sys.stdout.isatty() or self.dumb or self.out.no_color
        return when == "always" or (when == "auto" and not plain)

    def spelled(self, text: str) -> str:
        """Return a text for a line that another library draws here."""
        return without_controls(text.translate(ASCII) if self.out.options.ascii_only else text)

    def notice(self, text: str) -> None:
        self.err.print(ConsoleText(Text(text, style="dim")), soft_wrap=True)

    def error(self, text: str) -> None:
        """Print one line on stderr, however wide the terminal is."""
        line = " ".join(text.split())
        self.err.print(ConsoleText(Text.assemble(("error: ", "bold red"), line)), soft_wrap=True)

    def confirm(self, question: str, default: bool = False) -> bool:
        """Ask a question on stderr; an end of the input calls everything off (exit code 1)."""
        return typer.confirm(without_controls(question), default=default, err=True)

    def ask(self, question: str, default: str) -> str:
        """Ask for a line on stderr, without the spaces around; Enter takes the default."""
        answer: str = typer.prompt(without_controls(question), default=default, show_default=bool(default), err=True)
        return answer.strip()

    def ask_for_yes(self, question: str) -> None:
        """Ask a question to which all but a yes calls everything off."""
        if not self.confirm(question):
            raise typer.Abort

    def ask_to_overwrite(self, path: Path, yes: bool) -> None:
        """Ask before a file is written over, unless `yes`; a no calls everything off."""
        if not yes and path.exists():
            self.ask_for_yes(f"{path} exists. Overwrite it?")

    def show(self, renderable: RenderableType) -> None:
        self.out.print(renderable)

    def write(self, text: str, style: str = "") -> None:
        """Write a piece of an answer as it is, at once; rich would expand tabs, and wrap."""
        if not self._into_file:
            text = without_controls(text)
        if style:
            with self.out.capture() as styled:
                self.out.print("|", style=style, end="")
            text = styled.get().replace("|", text)
        self.out.file.write(text)
        self.out.file.flush()

    @property
    def _into_file(self) -> bool:
        try:
            return stat.S_ISREG(os.fstat(self.out.file.fileno()).st_mode)
        except (OSError, ValueError):  # a stream of Python's own
            return False

    def json(self, data: dict[str, Any] | list[Any]) -> None:
        """Write one line of JSON, with escapes for what the encoding cannot write and a terminal would obey."""
        text = json.dumps(data, ensure_ascii=False)
        try:
            text.encode(self.out.encoding)
        except UnicodeEncodeError:
            text = json.dumps(data)
        self.out.file.write(CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n")
        self.out.file.flush()

    def table(self, columns: list[str], rows: list[list[str]]) -> None:
        """Print a table; narrow terminals break cells, and pipes get them whole."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in columns:
            table.add_column(ConsoleText(Text(name)), overflow="fold")
        for row in rows:
            table.add_row(*(ConsoleText(Text(cell)) for cell in row))
        if self.out.is_terminal:
            self.show(table)
        else:
            self.out.print(_Unbounded(table), crop=False)

    @contextlib.contextmanager
    def progress(
        self, name: str, *, unit: str = "", preparation: str = ""
    ) -> Iterator[Callable[[int, int | None], None]]:
        """Show a bar with the time taken and left; yields a function of (done, total), and says at once when it heard
        Ctrl-C. unit: "bytes" shows a download. preparation: what is done before the first of it.

        Where stderr is no terminal, a line is written at each tenth.
        """
        with on_interrupt(lambda: self.notice("Ctrl-C: stopping as soon as this step is done")):
            if self.err.is_terminal:
                with self._bar(name, unit, preparation) as show:
                    yield show
            else:
                yield _ProgressLines(name, self.notice, preparation)

    @contextlib.contextmanager
    def _bar(self, name: str, unit: str, preparation: str) -> Iterator[Callable[[int, int | None], None]]:
        counted = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
        bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            counted,
            TimeElapsedColumn(),
            TextColumn("taken,"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self.err,
            transient=True,
        )
        with bar:
            task, first = bar.add_task(name, total=None), f"{name}: {preparation}" if preparation else name
            yield lambda done, total: bar.update(task, completed=done, total=total, description=name if done else first)


class _Unbounded:
    """A drawing that is as wide as it likes."""

    def __init__(self, drawing: RenderableType) -> None:
        self.drawing = drawing

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from console.render(self.drawing, options.update(max_width=UNBOUNDED))


class _ProgressLines:
    """Progress as lines of text, for logs."""

    def __init__(self, name: str, notice: Callable[[str], None], preparation: str = "") -> None:
        self.name, self.notice, self.preparation = name, notice, preparation
        self.shown, self.done, self.at = 0, 0, time.monotonic()  # of the line before

    def __call__(self, done: int, total: int | None) -> None:
        if self.preparation and not done:
            self.notice(f"{self.name}: {self.preparation}")
            self.preparation = ""
        tenths = 10 * done // total if total else 0
        if total and tenths > self.shown:
            # by the pace since the line before: what an earlier run did flashes past
            now = time.monotonic()
            left = (now - self.at) * (total - done) / (done - self.done)
            self.shown, self.done, self.at = tenths, done, now
            self.notice(f"{self.name}: {10 * tenths} %, {left:.0f} s left")


@contextlib.contextmanager
def on_interrupt(callback: Callable[[], None]) -> Iterator[None]:
    """Call `callback` at the first Ctrl-C, at once: Python itself hears it only when native code returns."""
    if threading.current_thread() is not threading.main_thread():  # where signals do not arrive
        yield
        return

    def listen() -> None:
        while number := receiver.recv(1):
            if number[0] == signal.SIGINT:
                callback()
                return

    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    thread = threading.Thread(target=listen, daemon=True)
    previous = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        sender.close()
        thread.join()
        receiver.close()


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


terminal = Terminal()
