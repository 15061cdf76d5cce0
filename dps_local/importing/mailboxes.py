"""The raw mails of a source: mbox files, single mails, and folders and zips of them, a block at a time.

The standard library's `mailbox` reads no zips, keeps a table of all mails, and splits at every line that begins with
"From "; here memory is bounded by one mail, of which the beginning is kept.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from dps_local.importing.archive import BLOCK, Archive, looks_like, opened

MOST_BYTES = 1 << 20  # of one mail: the text comes before the attachments
_HOLD = 1024  # bytes that the line between two mails, and the beginning of the next, are shorter than
_BETWEEN = re.compile(rb"\n\r?\nFrom [^\n]{0,300}\d:\d\d[^\n]{0,100}\n(?=>?From |[!-9;-~]{1,80}:)")
_FIELD = re.compile(rb"[!-9;-~]{1,80}:")
_MAIL_FIELD = re.compile(rb"^(?:from|sender)[ \t]*:", re.IGNORECASE | re.MULTILINE)
_OTHER_FIELD = re.compile(
    rb"^(?:date|subject|to|received|message-id|mime-version)[ \t]*:", re.IGNORECASE | re.MULTILINE
)
_EMLX = re.compile(rb"\s{0,4}(\d{1,10})[ \t]*\r?\n")  # how many bytes the mail has


def holds_mail(source: Path) -> bool:
    """Return whether a source is, or holds, mail, by the beginning of its first files; never raises."""
    return looks_like(source, lambda archive, names: any(_kind_of(archive, name) for name in names))


def _kind_of(archive: Archive, name: str) -> str:
    with archive.open(name) as stream:
        return _kind(stream)


def raw_mails(source: Path) -> Iterator[bytes]:
    """Yield the mails of a source as they stand there, cut to MOST_BYTES. Raises DataError for a damaged zip."""
    with opened(source) as archive:
        names = list(archive.names())
        archive.expect(names)
        for name in names:
            with archive.open(name) as stream:
                yield from _mails(stream)


def _mails(stream: io.BufferedReader) -> Iterator[bytes]:
    kind = _kind(stream)
    if kind == "mbox":
        yield from split_mbox(stream)
        return
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
