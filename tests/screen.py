"""The program on a terminal that is emulated: what a person sees, and what has scrolled away."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pexpect
import pyte
from program import PROGRAM

ENTER, ALT_ENTER, TAB, UP = "\r", "\x1b\r", "\t", "\x1b[A"
CTRL_C, CTRL_D, CTRL_G = "\x03", "\x04", "\x07"
PROMPT = ">>>"


def pasted(text: str) -> str:
    return f"\x1b[200~{text}\x1b[201~"


class Screen:
    """`Screen("chat", "-m", model, environment=…)` runs a command. The emulator says where its cursor is when it is
    asked, as real ones do, unless `silent`."""

    def __init__(
        self,
        *arguments: str | Path,
        environment: dict[str, str],
        columns: int = 80,
        lines: int = 24,
        silent: bool = False,
    ) -> None:
        self.emulated = pyte.HistoryScreen(columns, lines, history=100_000, ratio=0.5)
        self.output = b""
        self._stream = pyte.ByteStream(self.emulated)
        command = [*PROGRAM, *map(str, arguments)]
        self.child = pexpect.spawn(command[0], command[1:], env=environment, dimensions=(lines, columns), timeout=60)
        self.child.delaybeforesend = None
        if not silent:
            self.emulated.write_process_input = self.child.send  # type: ignore[method-assign, assignment]

    def read(self) -> bool:
        """Show what there is to be shown; False when the program has ended."""
        try:
            data: bytes = self.child.read_nonblocking(65536, timeout=0.1)  # type: ignore[assignment]
        except pexpect.TIMEOUT:
            return True
        except pexpect.EOF:
            return False
        self.output += data
        self._stream.feed(data)
        return True

    @property
    def lines(self) -> list[str]:
        """What is on the screen."""
        return [line.rstrip() for line in self.emulated.display]

    @property
    def above(self) -> list[str]:
        """What has scrolled away, the oldest first."""
        columns = range(self.emulated.columns)
        return ["".join(line[x].data for x in columns).rstrip() for line in self.emulated.history.top]

    @property
    def text(self) -> str:
        return "\n".join([*self.above, *self.lines]).rstrip()

    @property
    def prompting(self) -> bool:
        """Whether the cursor stands behind an empty prompt."""
        cursor = self.emulated.cursor
        return self.lines[cursor.y] == PROMPT and cursor.x == len(PROMPT) + 1

    def until(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not condition():
            alive = self.read()
            assert alive or condition(), f"ended:\n{self.text}"
            assert time.monotonic() < end, f"waited in vain:\n{self.text}"

    def until_shown(self, text: str) -> None:
        self.until(lambda: text in self.text)

    def send(self, keys: str) -> None:
        self.child.send(keys)

    def ask(self, message: str) -> str:
        """Type a message at the prompt, and return what comes before the next one."""
        self.until(lambda: self.prompting)
        n = self.text.count(PROMPT)
        self.send(message + ENTER)
        self.until(lambda: self.prompting and self.text.count(PROMPT) > n)
        return self.text.split(f"{PROMPT} ")[-1].rpartition(PROMPT)[0]

    def end(self) -> int:
        """Wait for the end of the program, and return its exit code."""
        while self.read():
            pass
        self.child.close()
        assert self.child.exitstatus is not None, f"killed by signal {self.child.signalstatus}"
        return self.child.exitstatus

    def close(self) -> None:
        self.child.close(force=True)
