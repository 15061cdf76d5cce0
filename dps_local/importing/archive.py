"""`Archive`: the files of an export, from a folder, from a zip that stays packed, or a single file."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TextIO

from dps_local.errors import DataError, DpsError
from dps_local.importing.meter import meter

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOCK = 1 << 20  # bytes that are read at a time
SEEN = 5000  # names that recognising looks at
HEAD = 1 << 16  # bytes of a file that recognising looks at
WHOLE = 16 << 20  # bytes of a file that is held in memory
LINE = 1 << 16  # characters of a line; nobody types the rest
PACKED = 200  # times its size that a zip may hold: text packs to a tenth
SMALL = 64 << 20  # bytes that any zip may hold
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_FAULTS = (OSError, ValueError, EOFError, RuntimeError, struct.error, zlib.error, csv.Error, zipfile.BadZipFile)


class Archive:
    """Names are relative, with "/". What is read is told to the `Meter` of the work at hand."""

    def __init__(self, source: Path, packed: zipfile.ZipFile | None = None) -> None:
        self.source, self._zip = source, packed
        self._expected = set[str]()

    def names(self) -> Iterator[str]:
        """Yield the names of files, those nearer the top first; links, and what macOS adds, are left out."""
        if self._zip:
            names = (name for name in self._zip.namelist() if not name.endswith("/") and not _of_macos(name))
            yield from sorted(names, key=lambda name: (name.count("/"), name))
        elif self.source.is_dir():
            yield from _walk(self.source)
        else:
            yield self.source.name

    def size(self, name: str) -> int:
        return self._zip.getinfo(name).file_size if self._zip else self.path(name).stat().st_size

    def path(self, name: str) -> Path:
        """Return the file itself, or the zip that it is in."""
        return self.source / name if self.source.is_dir() else self.source

    def expect(self, names: Iterable[str]) -> None:
        """Tell the meter of files before they are opened, so that it knows from the start how much there is."""
        new = set(names) - self._expected
        self._expected |= new
        meter().expect(sum(map(self.size, new)))

    @contextmanager
    def open(self, name: str) -> Iterator[io.BufferedReader]:
        self.expect([name])
        self._expected.remove(name)
        with self._open(name) as stream:
            counted = _Counted(stream)
            try:
                yield io.BufferedReader(counted, BLOCK)
            finally:
                meter().read(max(self.size(name) - counted.done, 0))  # what nobody wanted to read

    def _open(self, name: str) -> IO[bytes]:
        return self._zip.open(name) if self._zip else self.path(name).open("rb")

    def head(self, name: str) -> str:
        """Return the beginning of a text; what is not UTF-8 is replaced. A look that the meter is not told of."""
        with self._open(name) as stream:
            return stream.read(HEAD).decode("utf-8-sig", "replace")

    def json(self, name: str) -> Any:
        """Return what a JSON file holds, which has to fit into memory."""
        with self.open(name) as stream:
            data = stream.read(WHOLE + 1)
        if len(data) > WHOLE:
            raise DataError(f"{name} of {self.source} is larger than {WHOLE >> 20} MB: not read")
        return json.loads(data.decode("utf-8-sig"))

    @contextmanager
    def text(self, name: str, newline: str | None = None) -> Iterator[TextIO]:
        """Open a text; what is not UTF-8 is replaced. newline: as open() has it."""
        with self.open(name) as stream, io.TextIOWrapper(stream, "utf-8-sig", "replace", newline) as text:
            yield text

    def lines(self, name: str) -> Iterator[str]:
        """Yield the lines of a text without their ends; what is overlong is cut."""
        with self.text(name) as text:
            while line := text.readline(LINE):
                rest = line
                while rest and not rest.endswith("\n"):
                    rest = text.readline(LINE)
                yield line.removesuffix("\n")


class _Counted(io.RawIOBase):
    """A stream that tells the meter what is read of it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self.done = stream, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        data = self._stream.read(len(memoryview(buffer)))
        memoryview(buffer)[: len(data)] = data
        self.done += len(data)
        meter().read(len(data))
        return len(data)


@contextmanager
def opened(source: Path) -> Iterator[Archive]:
    """Open an export. Whatever is damaged in it is a DataError of one line, in the body too."""
    with _one_line(source):
        if source.is_dir() or not _is_zip(source):
            yield Archive(source)
        else:
            with zipfile.ZipFile(source) as packed:
                holds = sum(info.file_size for info in packed.infolist())
                if holds > max(SMALL, PACKED * source.stat().st_size):
                    raise DataError(f"{source} would unpack to {holds >> 20:,} MB, which no export does: not read")
                yield Archive(source, packed)


def looks_like(source: Path, of_format: Callable[[Archive, list[str]], bool]) -> bool:
    """Return what `of_format` says of an archive and its first names; False for what cannot be read. Never raises."""
    try:
        with opened(source) as archive:
            return of_format(archive, list(islice(archive.names(), SEEN)))
    except DpsError:
        return False


def _is_zip(source: Path) -> bool:
    if not source.is_file() and source.exists():
        raise DataError(f"{source} is neither a file nor a folder")
    with source.open("rb") as file:
        return file.read(4) in _ZIP


def _walk(folder: Path) -> Iterator[str]:
    """Yield the files below a folder, level by level."""
    level = [""]
    while level:
        below = list[str]()
        for inner in level:
            with os.scandir(folder / inner) as entries:
                for entry in sorted(entries, key=lambda e: e.name):
                    name = f"{inner}{entry.name}"
                    if entry.is_dir(follow_symlinks=False):
                        below.append(f"{name}/")
                    elif entry.is_file(follow_symlinks=False) and not _of_macos(name):
                        yield name
        level = below


def _of_macos(name: str) -> bool:
    return re.search(r"(^|/)(__MACOSX/|\._|\.DS_Store$)", name) is not None


@contextmanager
def _one_line(source: Path) -> Iterator[None]:
    try:
        yield
    except _FAULTS as exc:
        raise DataError(f"cannot read {source} ({_reason(exc)}): is it the export as it was downloaded?") from exc


def _reason(exc: BaseException) -> str:
    match exc:
        case OSError():
            return exc.strerror or "it is damaged"
        case RecursionError():
            return "nested too deeply"
        case RuntimeError() if "password" in str(exc):
            return "it is encrypted"
        case _:
            return f"it is damaged: {str(exc).splitlines()[0][:80] if str(exc) else type(exc).__name__}"
