"""The program in a process of its own: on pipes (`Program`) and on a pseudo-terminal (`Terminal`)."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyte
import pytest

GUARD = (Path(__file__).parent / "loopback.py").read_text(encoding="utf-8")  # ends it where it leaves this machine
PROGRAM = [sys.executable, "-P", "-c", f"{GUARD}\nfrom dps_local.cli.app import main; main()"]
QUICK = ["--examples", "2", "--target-tokens", "6", "--profile-tokens", "60", "-c", "512"]
PROFILE = {
    "name": "Ada",
    "preferences": ["short"],
    "history": [{"input": f"say {i}", "output": f"Aye {i}, so be it, by gum."} for i in range(3)],
}


class Program:
    """`program("score", "-m", path, …)` runs a command to its end."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment

    def __call__(self, *arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PROGRAM, *map(str, arguments)],
            input=stdin,
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=120,
            check=False,
        )

    def fails(self, *arguments: object, stdin: str = "") -> str:
        """Run, expect exit code 1, nothing on stdout and a last line on stderr that is the error; return that line."""
        result = self(*arguments, stdin=stdin)
        assert result.returncode == 1, result.stderr
        assert result.stdout == ""
        assert "Traceback" not in result.stderr
        lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert lines == result.stderr.splitlines()[-1:]
        return lines[0]


class Inside(Program):
    """The same in this process, which takes no time to start."""

    def __call__(self, *arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
        from dps_local.cli.app import main

        code, command = 0, ["dps-local", *map(str, arguments)]
        streams = {name: io.TextIOWrapper(io.BytesIO(), "utf-8") for name in ("stdin", "stdout", "stderr")}
        streams["stdin"].buffer.write(stdin.encode())
        streams["stdin"].seek(0)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {"argv": command, "excepthook": sys.excepthook, **streams}.items():
                patch.setattr(sys, name, value)
            for key, path in self.environment.items():
                patch.setenv(key, path)
            try:
                main()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
        out, err = (_written(streams[name]) for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess(command, code, out, err)


def _written(stream: io.TextIOWrapper) -> str:
    stream.flush()
    return stream.buffer.getvalue().decode()  # type: ignore[attr-defined, no-any-return]


class Terminal:
    """A conversation with the program on a pseudo-terminal. output: all bytes that it wrote."""

    def __init__(self, arguments: list[str | Path], environment: dict[str, str]) -> None:
        self.screen, self.output = "", b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvpe(PROGRAM[0], [*PROGRAM, *map(str, arguments)], environment)

    def wait_for(self, text: str, seconds: float = 60) -> str:
        """Read until `text` appears, and return what was read up to there, without escape sequences."""
        end = time.monotonic() + seconds
        while text not in self.screen:
            assert time.monotonic() < end, f"no {text!r} in {self.screen!r}"
            self.read()
        before, _, self.screen = self.screen.partition(text)
        return before

    def read(self) -> bool:
        """Add what there is to `screen`; False when the program has ended."""
        n = len(self.output)
        alive = self._receive()
        text = self.output[n:].decode(errors="replace")
        self.screen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]", "", text).replace("\r", "")
        return alive

    def _receive(self) -> bool:
        if not select.select([self.fd], [], [], 0.1)[0]:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # the other side is gone
            return False
        self.output += data
        return bool(data)

    def type(self, line: str) -> None:
        os.write(self.fd, f"{line}\n".encode())

    def interrupt(self) -> None:
        os.write(self.fd, b"\x03")

    def exit_code(self, seconds: float = 30) -> int:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.read()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
        raise AssertionError(f"still running: {self.screen!r}")

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


class ChatTerminal(Terminal):
    """The same where the program moves the cursor, as its prompt does: what is read is what stands there in the end."""

    def __init__(self, arguments: list[str | Path], environment: dict[str, str]) -> None:
        self.emulated = pyte.HistoryScreen(80, 24, history=100_000)
        self._stream, self._n_read = pyte.ByteStream(self.emulated), 0
        super().__init__(arguments, environment)

    @property
    def screen(self) -> str:
        return self._text()[self._n_read :]

    @screen.setter
    def screen(self, rest: str) -> None:
        self._n_read = len(self._text()) - len(rest)

    def _text(self) -> str:
        cursor, columns = self.emulated.cursor, range(80)
        rows = [*self.emulated.history.top, *(self.emulated.buffer[y] for y in range(cursor.y + 1))]
        lines = ["".join(row[x].data for x in columns).rstrip() for row in rows]
        lines[-1] = lines[-1].ljust(cursor.x)
        return "".join(line if len(line) == 80 else f"{line}\n" for line in lines)[:-1]

    def read(self) -> bool:
        n = len(self.output)
        alive = self._receive()
        self._stream.feed(self.output[n:])
        return alive
