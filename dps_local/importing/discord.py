"""Discord: the data package ("Request all of my data"), a folder or its zip, which holds the person's messages alone.

Each channel has a folder: messages/c123456/messages.json (since 2023) or messages.csv, with ID, Timestamp, Contents and
Attachments: github.com/seanbreckenridge/discord_data. The outer folder may be named otherwise.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dps_local.errors import DataError
from dps_local.importing.archive import Archive, looks_like, opened
from dps_local.importing.conversation import Message, from_iso, joined, without_code_and_quotes
from dps_local.importing.format import Format
from dps_local.importing.json_stream import objects
from dps_local.importing.writing import Writing
from dps_local.prompting.profile import LONG_AGO

_CHANNEL = re.compile(r"(?:.*/)?c?\d{5,}/messages\.(?:json|csv)")
_EMOJI = re.compile(r"<a?:(\w{1,64}):\d{1,30}>")
_MENTION = re.compile(r"<(?:@[!&]?|#|id:)\d{1,30}>|<t:-?\d{1,20}(?::\w)?>|</[^<>\n]{1,100}:\d{1,30}>|\|\|")


class Discord(Format):
    name = "discord"
    looked_for = "Discord messages (the data package, folder or zip)"

    def recognises(self, source: Path) -> bool:
        return looks_like(source, lambda _, names: any(map(_CHANNEL.fullmatch, names)))

    def read(self, source: Path, me: Collection[str], dropped: Counter[str]) -> Iterator[Writing]:  # noqa: ARG002
        with opened(source) as archive:
            channels = [name for name in archive.names() if _CHANNEL.fullmatch(name)]
            if not channels:
                raise DataError(f"{source} holds no messages of Discord: give its data package, a folder or a zip")
            for name in channels:
                yield from joined(_messages(archive, name, dropped), "Discord")


def _messages(archive: Archive, name: str, dropped: Counter[str]) -> Iterator[Message]:
    messages = list[Message]()
    for row in _rows(archive, name):
        contents = row.get("Contents")
        if text := _typed(contents) if isinstance(contents, str) else "":
            messages.append(Message(text, True, _time(row.get("Timestamp"))))
        elif row.get("Attachments"):
            dropped["media"] += 1
    yield from sorted(messages, key=lambda message: message.at or LONG_AGO)  # packages differ in their order


def _rows(archive: Archive, name: str) -> Iterator[dict[str, Any]]:
    if name.endswith(".json"):
        with archive.open(name) as stream:
            yield from objects(stream)
    else:
        with archive.text(name, newline="") as text:
            yield from csv.DictReader(text)


def _time(text: object) -> datetime | None:
    """Return a time; packages name no zone where it is UTC."""
    at = from_iso(text)
    return at.replace(tzinfo=UTC) if at and not at.tzinfo else at


def _typed(contents: str) -> str:
    """Return a message without quotes, code, mentions, which are numbers, and the numbers of emoji."""
    text = _MENTION.sub("", _EMOJI.sub(r":\1:", without_code_and_quotes(contents)))
    return re.sub(r"(?<=\S) {2,}(?=\S)", " ", text).strip()
