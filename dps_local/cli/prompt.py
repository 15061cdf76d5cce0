"""`Prompt`: where a person types messages: lines with a history, blocks, an editor, and a line that tells the state."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.document import Document
from prompt_toolkit.filters import is_searching
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.styles import Style
from rich.cells import cell_len

from dps_local.cli.editing import edit_text
from dps_local.cli.terminal import Terminal, decode_argument
from dps_local.errors import DpsError, StorageError
from dps_local.system.files import atomic_write
from dps_local.system.folders import history_file, private_folder

QUOTES = '"""'
MAX_HISTORY = 1 << 20  # bytes; the older half goes when the file is larger
STYLE = Style.from_dict({"bottom-toolbar": "noreverse dim"})


class Prompt:
    """Reads messages at a terminal that can move its cursor.

    commands: the slash commands of the moment. status: the parts of the line below, the most important first.
    history: whether messages are remembered for later chats.
    """

    def __init__(
        self,
        terminal: Terminal,
        commands: Callable[[], Iterable[str]],
        status: Callable[[], list[str]],
        *,
        history: bool = True,
    ) -> None:
        self.terminal, self.status = terminal, status
        self.session: PromptSession[str] = PromptSession(
            ">>> ",
            multiline=True,
            prompt_continuation="... ",
            history=_history(terminal) if history else InMemoryHistory(),
            key_bindings=_keys(terminal, commands),
            bottom_toolbar=self._toolbar,
            style=STYLE,
            enable_suspend=True,
        )
        # a terminal that does not say where its cursor is has no status line, and need not be told so
        self.session.app.renderer.cpr_not_supported_callback = None

    def read(self) -> str:
        """Return the next message; raises KeyboardInterrupt at Ctrl-C, EOFError at Ctrl-D."""
        text = decode_argument(self.session.prompt()).strip()  # keys need not be UTF-8
        return text.removeprefix(QUOTES).removesuffix(QUOTES).strip() if text.startswith(QUOTES) else text

    def _toolbar(self) -> str:
        return self.terminal.spelled(fitting(self.status(), self.session.output.get_size().columns))


def fitting(parts: list[str], columns: int) -> str:
    """Join parts, of which the last ones leave where the line has no room for them."""
    while len(parts) > 1 and cell_len(" · ".join(parts)) > columns:
        parts = parts[:-1]
    return " · ".join(parts)


def is_open(text: str) -> bool:
    """Whether a message begins with quotes that nothing closes yet, so that a line may follow."""
    text = text.strip()
    return text.startswith(QUOTES) and not (text.endswith(QUOTES) and len(text) >= 2 * len(QUOTES))


def _keys(terminal: Terminal, commands: Callable[[], Iterable[str]]) -> KeyBindings:
    """Return what keys do, beside what they do in a shell."""
    keys = KeyBindings()

    @keys.add("enter", filter=~is_searching)
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if is_open(buffer.text):
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    @keys.add("tab")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        typed = buffer.document.text_before_cursor
        names = [name for name in (f"/{command} " for command in commands()) if name.startswith(typed or "/")]
        if len(names) == 1:
            buffer.insert_text(names[0][len(typed) :])
        elif names:
            run_in_terminal(lambda: terminal.notice(" ".join(names)))

    @keys.add("c-g", filter=~is_searching)
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        run_in_terminal(lambda: _edit(buffer, terminal))

    return keys


def _edit(buffer: Buffer, terminal: Terminal) -> None:
    """Let the person go on with the message in their editor."""
    try:
        text = edit_text(decode_argument(buffer.text))
    except DpsError as exc:
        terminal.error(str(exc))
        return
    buffer.document = Document(text.rstrip("\n"))


def _history(terminal: Terminal) -> History:
    """Return the messages of earlier chats, in a file of their owner's; a folder that takes none is said."""
    try:
        file = history_file()
        private_folder(file.parent)
        _shorten(file)
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    except (OSError, StorageError) as exc:
        terminal.notice(f"messages are not remembered: {exc}")
        return InMemoryHistory()
    return FileHistory(file)


def _shorten(file: Path) -> None:
    """Let the older half of a long history go."""
    if file.exists() and file.stat().st_size > MAX_HISTORY:
        messages = file.read_bytes()[-MAX_HISTORY // 2 :].partition(b"\n\n")[2]  # from where one begins
        with atomic_write(file) as stream:
            stream.write(b"\n" + messages)
