"""Signal: the folders that signal-export writes of one chat or of all (github.com/carderne/signal-export).

CHAT/data.json has a message a line: {date, sender, body, quote, sticker, reactions, attachments}, of late also deleted
and call (sigexport/models.py there); CHAT/chat.md has the same as text, and is read where there is no data.json. Own
messages are those of "Me".
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from dps_local.errors import DataError
from dps_local.importing.archive import Archive, looks_like, opened
from dps_local.importing.conversation import Message, from_iso, joined
from dps_local.importing.format import Format
from dps_local.importing.writing import Writing

ME = "Me"
_LINE = re.compile(r'\{"date": "\d{4}-\d\d-\d\dT[^"]*", "sender": ')
_HEADER = re.compile(r"\[(\d{4}-\d\d-\d\d,? \d\d:\d\d(?::\d\d)?)\] ([^:\n]{1,100}): (.*)", re.DOTALL)
_CALL = re.compile(r"(?:Outgoing|Incoming|Missed) (?:voice |video )?call(?: \(.*\))?")
_ATTACHED = re.compile(r"!?\[[^\]\n]{0,500}\]\(\./media/[^)\n]{0,500}\) {0,2}")
_REACTIONS = re.compile(r"\n\(- .{1,500} -\)")
_STICKER = re.compile(r"\n\(\( .{1,50} \)\)|\[.{1,50}\]\(\.\./exported_stickers/[^)\n]{1,200}\) {0,2}")


class Signal(Format):
    name = "signal"
    looked_for = "Signal chats (the folder of signal-export)"

    def recognises(self, source: Path) -> bool:
        return looks_like(source, lambda archive, names: any(_is_chat(archive, name) for name in names))

    def read(self, source: Path, me: Collection[str], dropped: Counter[str]) -> Iterator[Writing]:  # noqa: ARG002
        with opened(source) as archive:
            chats = _chats(archive)
            if not chats:
                raise DataError(f"{source} holds no chat of Signal: give the folder that signal-export wrote")
            for name in chats:
                rows = _rows(archive, name) if name.endswith(".json") else _blocks(archive, name)
                yield from joined(_messages(rows, dropped), "Signal")


def _is_chat(archive: Archive, name: str) -> bool:
    if name.count("/") > 2:
        return False
    match name.split("/")[-1]:
        case "data.json":
            return _LINE.match(archive.head(name)) is not None
        case "chat.md":
            return _HEADER.match(archive.head(name)) is not None
    return False


def _chats(archive: Archive) -> list[str]:
    """Return a file for each chat: its data.json, or else its chat.md."""
    chats = [name for name in archive.names() if _is_chat(archive, name)]
    return [name for name in chats if name.endswith(".json") or f"{name.removesuffix('chat.md')}data.json" not in chats]


def _rows(archive: Archive, name: str) -> Iterator[dict[str, Any]]:
    for line in archive.lines(name):
        if line.strip():
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("a line is no object")
            yield row


def _blocks(archive: Archive, name: str) -> Iterator[dict[str, Any]]:
    """Yield the messages of a chat.md in the form of data.json."""
    block: dict[str, Any] = {}
    for line in archive.lines(name):
        if match := _HEADER.match(line):
            yield from _finished(block)
            block = {"date": match[1].replace(",", ""), "sender": match[2], "body": match[3]}
        elif block:
            block["body"] += f"\n{line}"
    yield from _finished(block)


def _finished(block: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if block:
        body = _STICKER.sub("", _ATTACHED.sub("", _REACTIONS.sub("", block["body"])))
        deleted = body.strip() == "(This message was deleted)"
        yield {**block, "body": "\n".join(_unquoted(body.split("\n"))), "deleted": deleted}


def _unquoted(lines: list[str]) -> Iterator[str]:
    """Leave out what a message quotes: lines with > behind its first, empty line."""
    quoting = not lines[0].strip()
    for line in lines:
        quoting = quoting and (not line.strip() or line.startswith(">"))
        if not quoting:
            yield line


def _messages(rows: Iterator[dict[str, Any]], dropped: Counter[str]) -> Iterator[Message]:
    for row in rows:
        own, body = row.get("sender") == ME, row.get("body")
        text = body.strip() if isinstance(body, str) else ""
        kind = "deleted" if row.get("deleted") else "call" if row.get("call") or _CALL.fullmatch(text) else ""
        if own and (kind or not text):
            dropped[kind or "media"] += 1
        elif text and not kind:
            yield Message(text, own, from_iso(row.get("date")))
