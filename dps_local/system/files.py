"""Files are replaced whole or not at all; what is cached is for its owner's eyes only."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from dps_local.errors import StorageError
from dps_local.system import cache

PREFIX, SUFFIX = ".dps-", ".tmp"  # of the names of unfinished files

StrPath = str | os.PathLike[str]


@contextmanager
def atomic_write(path: StrPath) -> Iterator[BinaryIO]:
    """Write `path` through a sibling file (mode 0600) that takes its place only when complete.

    Its name is the stream's, for a library that opens files by itself. An OSError, the caller's own while writing
    included, becomes a StorageError of one line.
    """
    path = Path(path)
    with _one_line(path):
        sweep(path.parent)
        unfinished, held = _new(path.parent)
        try:
            with unfinished.open("wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        finally:
            held.close()


@contextmanager
def locked(path: StrPath) -> Iterator[None]:
    """Let one program at a time replace a file that is there, as others wait here; raises StorageError.

    Where a system or a file system has no such locks, no one waits.
    """
    with _held(Path(path)):
        yield


def _held(path: Path) -> BinaryIO:
    """Return the file, open and locked until it is closed: the one that has the name then."""
    with _one_line(path):
        while True:
            file = path.open("rb")
            if sys.platform == "win32":  # where an open file cannot be replaced
                file.close()
                return file
            import fcntl

            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):  # not replaced before it was locked
                return file
            file.close()


def sweep(folder: Path) -> None:
    """Delete the unfinished files of programs that were killed while they wrote: those that no one holds."""
    if sys.platform == "win32":  # has no lock that lasts until a file is renamed
        return
    import fcntl

    for path in folder.glob(f"{PREFIX}*{SUFFIX}"):
        with suppress(OSError), path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def _new(folder: Path) -> tuple[Path, BinaryIO]:
    """Make an unfinished file; `sweep` leaves it alone as long as the second of what is returned is open."""
    while True:
        descriptor, name = tempfile.mkstemp(dir=folder, prefix=PREFIX, suffix=SUFFIX)
        held = os.fdopen(descriptor, "r+b")
        if sys.platform == "win32":
            held.close()  # open files cannot be renamed
            return Path(name), held
        import fcntl

        with suppress(OSError):  # a file system without locks, where nothing is swept
            fcntl.flock(held, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:  # not swept before it was locked
            return Path(name), held
        held.close()


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise StorageError(f"cannot write {path}: {exc.strerror or exc}") from exc


def shipped(name: str) -> Path | None:
    """Return where a file or folder of models/ lies that comes with the package; None where it is missing."""
    import dps_local

    source_tree = Path(__file__).parents[2]
    for folder in (*map(Path, dps_local.__path__), source_tree):
        if (found := folder / "models" / name).exists():
            return found
    return None


def cache_folder(name: str) -> Path:
    """Return the folder `name` of the cache, mode 0700, made if missing."""
    try:
        return cache.make(name)
    except OSError as exc:
        where, reason = exc.filename or cache.root(), exc.strerror or exc
        raise StorageError(
            f"cannot make the cache folder {where} ({reason}): set DPS_LOCAL_CACHE to a folder that can be written to"
        ) from exc
