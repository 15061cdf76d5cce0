"""The raw mails of a source: mbox files, single mails, and folders and zips of them, a block at a time.

The standard library's `mailbox` reads no zips, keeps a table of all mails, and splits at every line that begins with
"From "; here memory is bounded by one mail, of which the beginning is kept.
"""

from __future__ import annotations

import io
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

from dps_local.errors import DataError
from dps_local.importing.meter import meter

BLOCK = 1 << 20
MOST_BYTES = 1 << 20  # of one mail: the text comes before the attachments
MOST_FILES = 10_000  # that are looked at before a folder is taken for something else
_HOLD = 1024  # bytes that the line between two mails, and the beginning of the next, are shorter than
_BETWEEN = re.compile(rb"\n\r?\nFrom [^\n]{0,300}\d:\d\d[^\n]{0,100}\n(?=>?From |[!-9;-~]{1,80}:)")
_FIELD = re.compile(rb"[!-9;-~]{1,80}:")
_MAIL_FIELD = re.compile(rb"^(?:from|sender)[ \t]*:", re.IGNORECASE | re.MULTILINE)
_OTHER_FIELD = re.compile(
    rb"^(?:date|subject|to|received|message-id|mime-version)[ \t]*:", re.IGNORECASE | re.MULTILINE
)
_EMLX = re.compile(rb"\s{0,4}(\d{1,10})[ \t]*\r?\n")  # how many bytes the mail has


@dataclass(frozen=True)
class Part:
    """A file, in a folder or a zip or alone."""

    name: str
    size: int
    open: Callable[[], io.BufferedReader]


def parts(source: Path) -> Iterator[Part]:
    """Yield the files of a source in the order of their names."""
    if source.is_dir():
        yield from _files(source)
    elif source.is_file() and zipfile.is_zipfile(source):
        yield from _members(source)
    elif source.is_file():
        yield _file(source)


def _file(path: Path) -> Part:
    return Part(str(path), path.stat().st_size, lambda: path.open("rb"))


def _files(folder: Path) -> Iterator[Part]:
    for where, folders, names in os.walk(folder):
        folders.sort()
        for path in (Path(where, name) for name in sorted(names)):
            try:
                regular = stat.S_ISREG(path.lstat().st_mode)  # a pipe would wait for ever
            except OSError:
                continue
            if regular and os.access(path, os.R_OK):
                yield _file(path)


def _members(source: Path) -> Iterator[Part]:
    archive = zipfile.ZipFile(source)  # closed with the last of its parts
    for member in archive.infolist():
        if not member.is_dir():
            yield Part(member.filename, member.file_size, partial(_opened, archive, member))


def _opened(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> io.BufferedReader:
    return io.BufferedReader(cast(io.RawIOBase, archive.open(member)))


@contextmanager
def _readable(source: Path) -> Iterator[None]:
    """Turn what a file, or a zip that is damaged or locked, makes the standard library raise into one line."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as exc:
        raise DataError(f"{source} is a zip that is damaged or locked: unpack it, and give the folder") from exc
    except OSError as exc:
        raise DataError(f"cannot read {source}: {exc.strerror or exc}") from exc


def holds_mail(source: Path) -> bool:
    """Return whether a source is, or holds, mail, by the beginning of its first files; never raises."""
    try:
        with _readable(source):
            for part in islice(parts(source), MOST_FILES):
                with part.open() as stream:
                    if _kind(stream):
                        return True
    except (DataError, ValueError):  # a name that no file can have
        pass
    return False


def raw_mails(source: Path) -> Iterator[bytes]:
    """Yield the mails of a source as they stand there, cut to MOST_BYTES. Raises DataError for a damaged zip."""
    with _readable(source):
        found = list(parts(source))
        meter().expect(sum(part.size for part in found))
        for part in found:
            with part.open() as stream:
                yield from _mails(stream, part.size)


def _mails(stream: io.BufferedReader, size: int) -> Iterator[bytes]:
    kind = _kind(stream)
    if kind == "mbox":
        yield from split_mbox(stream)
        return
    meter().read(size)
    if kind == "emlx":
        length = int(stream.readline().strip() or 0)
        yield stream.read(min(length, MOST_BYTES))
    elif kind:
        yield stream.read(MOST_BYTES)


def _kind(stream: io.BufferedReader) -> str:
    """Return what a file is, by its beginning: "mbox", "emlx", "mail", or ""."""
    start = stream.peek(1 << 13)[: 1 << 13].removeprefix(b"\xef\xbb\xbf")
    if _BETWEEN.match(b"\n\n" + start.lstrip()):
        return "mbox"
    emlx = _EMLX.match(start)
    head = re.split(rb"\r?\n\r?\n", start[emlx.end() :] if emlx else start, maxsplit=1)[0]
    if _FIELD.match(head) and _MAIL_FIELD.search(head) and _OTHER_FIELD.search(head):
        return "emlx" if emlx else "mail"
    return ""


def split_mbox(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the mails of an mbox, each cut to MOST_BYTES, as they stand there."""
    mail, buffer, begun = bytearray(), b"\n\n", False
    while True:
        block = stream.read(BLOCK)
        meter().read(len(block))
        buffer += block
        at = 0
        for between in _BETWEEN.finditer(buffer):
            mail += buffer[at : between.start() + 1][: MOST_BYTES - len(mail)]
            if begun:
                yield bytes(mail)
            mail.clear()
            at, begun = between.end(), True
        end = max(at, len(buffer) - _HOLD) if block else len(buffer)
        mail += buffer[at:end][: max(MOST_BYTES - len(mail), 0)]
        buffer = buffer[end:]
        if not block:
            break
    if begun:
        yield bytes(mail)
