"""`edit_file`: a text of the user's in their editor; only what is valid replaces it, and no edit is lost. `edit_text`:
a text that is in no file."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from dps_local.cli.terminal import terminal
from dps_local.errors import ProfileError, SettingsError, StorageError
from dps_local.system.files import atomic_write, locked


def edit_file(path: Path, parse: Callable[[str], object]) -> bool:
    """Let the user edit a copy until `parse` raises no ProfileError, then replace the file; False if nothing changed.

    The copy lies in a folder beside the file that its owner alone can read. Where it is not taken, it is kept, and its
    place is said.
    """
    path = path.resolve()  # a link stays one
    before = path.read_bytes()
    with _private_copy(path, before) as copy:
        _run_editor(copy)
        while (after := copy.read_bytes()) != before and not _valid(after, parse):
            if not terminal.confirm("Edit it again?", default=True):
                raise typer.Exit(1)
            _run_editor(copy)
        if after == before:
            return False
        with locked(path):
            if path.read_bytes() != before:
                raise StorageError(f"{path} was changed by another program meanwhile, and is left as that made it")
            with atomic_write(path) as stream:
                stream.write(after)
    return True


def edit_text(text: str) -> str:
    """Let the user edit a text, and return what they made of it; meanwhile it lies where they alone can read."""
    with tempfile.TemporaryDirectory(prefix="dps-edit-") as folder:  # mode 0700
        file = Path(folder) / "message.md"
        file.write_text(text, encoding="utf-8")
        _run_editor(file)
        return file.read_text(encoding="utf-8-sig", errors="replace")


def _valid(data: bytes, parse: Callable[[str], object]) -> bool:
    """Whether a text is valid; says what is wrong."""
    try:
        parse(data.decode("utf-8-sig"))
    except UnicodeDecodeError as exc:
        terminal.error(f"not UTF-8 text (byte {exc.start}): save it as UTF-8")
    except ProfileError as exc:
        terminal.error(str(exc))
    else:
        return True
    return False


@contextmanager
def _private_copy(path: Path, text: bytes) -> Iterator[Path]:
    """Make a copy to edit; it is deleted at the end, but for one that was changed when something goes wrong."""
    try:
        folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=".dps-edit-"))  # mode 0700
    except OSError as exc:
        raise StorageError(f"cannot write to {path.parent}: {exc.strerror}") from exc
    copy, done = folder / path.name, False
    copy.write_bytes(text)
    copy.chmod(0o600)
    try:
        yield copy
        done = True
    finally:
        if not done and copy.exists() and copy.read_bytes() != text:
            terminal.notice(f"your edit is kept in {copy}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _run_editor(file: Path) -> None:
    """Run $VISUAL, $EDITOR or what every system has, and wait for its end."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ("notepad" if sys.platform == "win32" else "vi")
    previous = signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is the editor's
    try:
        code = subprocess.run([*shlex.split(editor, posix=sys.platform != "win32"), file], check=False).returncode
    except (OSError, ValueError) as exc:
        raise SettingsError(f"cannot run the editor {editor!r}: set EDITOR to one that is installed") from exc
    finally:
        signal.signal(signal.SIGINT, previous)
    if code:
        raise SettingsError(f"the editor {editor!r} ended with exit code {code}")
