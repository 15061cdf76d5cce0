"""Telegram: the result.json of Telegram Desktop's "Export chat history" (one chat) or "Export Telegram data" (all).

Fields as its writer has them: github.com/telegramdesktop/tdesktop, Telegram/SourceFiles/export/output/
export_output_json.cpp. Exports from before 2021 have numbers as ids, and local times alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from dps_local.errors import DataError
from dps_local.importing.archive import Archive, looks_like, opened
from dps_local.importing.conversation import Message, from_iso, is_one_of, joined, since_1970
from dps_local.importing.format import Format
from dps_local.importing.json_stream import values
from dps_local.importing.writing import Writing

_CHATS = ("", "chats.list.item.", "left_chats.list.item.")  # where chats lie: the only one, or all
_TYPES = {f"{chat}type" for chat in _CHATS}
_MESSAGES = {f"{chat}messages.item" for chat in _CHATS}
_OWNER = "personal_information.user_id"
_ONE_CHAT = re.compile(
    r'\s*\{\s*(?:"\w{1,30}"\s*:\s*(?:null|-?\d{1,20}|"(?:[^"\\]|\\.)*")\s*,\s*){1,9}"messages"\s*:\s*\[', re.DOTALL
)
_TYPE = re.compile(r'"type"\s*:\s*"\w*(?:_chat|_messages|group|channel|replies|verify_codes)"')
_ALL_CHATS = re.compile(
    r'\s*\{\s*"about"\s*:\s*"(?:[^"\\]|\\.)*"\s*,\s*"(?:personal_information|profile_pictures|stories|contacts|'
    r'frequent_contacts|sessions|web_sessions|other_data|chats|left_chats)"'
)
_NOT_TYPED = ("pre", "blockquote")  # pasted, and quoted


class Telegram(Format):
    name = "telegram"
    looked_for = "Telegram chats (result.json of Telegram Desktop)"

    def recognises(self, source: Path) -> bool:
        return looks_like(source, lambda archive, names: any(_is_export(archive, name) for name in names))

    def authors(self, source: Path) -> Counter[str]:
        """Return none where the export says whose it is."""
        names = Counter[str]()
        with opened(source) as archive:
            for chat, message in _messages(archive):
                if chat.owner:
                    return Counter()
                if _kind(chat, message) == "" and not str(message.get("from_id")).startswith("channel"):
                    names[str(message.get("from"))] += 1
        return names

    def read(self, source: Path, me: Collection[str], dropped: Counter[str]) -> Iterator[Writing]:
        with opened(source) as archive:
            for _, messages in groupby(_messages(archive), lambda of: of[0].number):
                yield from joined(_own_and_others(messages, me, dropped), "Telegram")


@dataclass
class _Chat:
    """owner: the id of the person whose export this is, "" where it does not say."""

    owner: str = ""
    type: str = ""
    number: int = 0


def _is_export(archive: Archive, name: str) -> bool:
    if name != archive.source.name and (name.split("/")[-1] != "result.json" or name.count("/") > 1):
        return False
    head = archive.head(name)
    one = _ONE_CHAT.match(head)
    return bool((one and _TYPE.search(one[0])) or _ALL_CHATS.match(head))


def _messages(archive: Archive) -> Iterator[tuple[_Chat, dict[str, Any]]]:
    """Yield the messages of all chats, each with its chat as it is known then."""
    names = [name for name in archive.names() if _is_export(archive, name)]
    if not names:
        raise DataError(f"{archive.source} holds no export of Telegram: give the result.json of Telegram Desktop")
    number = 0
    for name in names:
        chat = _Chat()
        with archive.open(name) as stream:
            for prefix, value in values(stream, {_OWNER, *_TYPES, *_MESSAGES}):
                if prefix == _OWNER:
                    chat = replace(chat, owner=_bare(value))
                elif prefix in _TYPES:
                    number += 1
                    chat = replace(chat, type=str(value), number=number)
                elif isinstance(value, dict):
                    yield chat, value


def _own_and_others(
    messages: Iterable[tuple[_Chat, dict[str, Any]]], me: Collection[str], dropped: Counter[str]
) -> Iterator[Message]:
    for chat, message in messages:
        own = _is_own(chat, message, me)
        kind, text = _kind(chat, message), _text(message.get("text"))
        if kind == "system" or (own and (kind or not text)):
            dropped[kind or "media"] += 1
        elif text:
            at = since_1970(message.get("date_unixtime")) or from_iso(message.get("date"))
            yield Message(text, own, at)


def _is_own(chat: _Chat, message: dict[str, Any], me: Collection[str]) -> bool:
    author = message.get("from_id")
    if chat.owner and _bare(author) == chat.owner:
        return True
    return is_one_of(me, message.get("from"), str(author))


def _bare(author: object) -> str:
    """Return the digits of "user123456" or of a number."""
    return str(author).removeprefix("user")


def _kind(chat: _Chat, message: dict[str, Any]) -> str:
    """Return what a message is that nobody typed; "" for what was typed."""
    if message.get("type") != "message":
        return "system"
    if message.keys() & {"forwarded_from", "forwarded_from_id", "saved_from"}:
        return "forward"
    if chat.type == "bot_chat" or "via_bot" in message or _begins_with_command(message.get("text")):
        return "bot"
    return ""


def _begins_with_command(text: object) -> bool:
    first = next((part for part in text if part), None) if isinstance(text, list) else None
    return isinstance(first, dict) and first.get("type") == "bot_command"


def _text(text: object) -> str:
    """Return a text that is a string, or a list of strings and of entities: {"type", "text"}."""
    if not isinstance(text, list):
        return text.strip() if isinstance(text, str) else ""
    parts = (part if isinstance(part, str) else _entity(part) for part in text)
    return "".join(parts).strip()


def _entity(entity: object) -> str:
    if not isinstance(entity, dict) or entity.get("type") in _NOT_TYPED:
        return ""
    text = entity.get("text")
    return text if isinstance(text, str) else ""
