"""Slack: an export of a workspace, a folder or its zip, with users.json, channels.json, CHANNEL/YYYY-MM-DD.json.

See slack.com/help/articles/220556107 ("How to read Slack data exports"); the signs around mentions and links are those
of docs.slack.dev/messaging/formatting-message-text.
"""

from __future__ import annotations

import html
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from dps_local.errors import DataError
from dps_local.importing.archive import Archive, looks_like, opened
from dps_local.importing.conversation import Conversation, Message, is_one_of, since_1970, without_code_and_quotes
from dps_local.importing.format import Format
from dps_local.importing.json_stream import objects
from dps_local.importing.writing import Writing

_LISTS = {"channels.json", "groups.json", "dms.json", "mpims.json"}
_DAY = re.compile(r"(.+)/\d{4}-\d\d-\d\d\.json")
_TYPED = (None, "me_message", "thread_broadcast", "file_share")  # subtypes of what a person wrote
_SIGN = re.compile(r"<([@#!]?)([^<>|\n]{1,2000})(?:\|([^<>\n]{0,2000}))?>")


class Slack(Format):
    name = "slack"
    looked_for = "Slack messages (an export of a workspace, folder or zip)"

    def recognises(self, source: Path) -> bool:
        return looks_like(source, lambda _, names: _is_export(names))

    def authors(self, source: Path) -> Counter[str]:
        with opened(source) as archive:
            users = _Users(archive)
            return Counter(
                users.name(str(message.get("user")))
                for _, messages in _channels(archive)
                for message in messages
                if not _kind(message)
            )

    def read(self, source: Path, me: Collection[str], dropped: Counter[str]) -> Iterator[Writing]:
        with opened(source) as archive:
            users = _Users(archive)
            for _, messages in _channels(archive):
                threads = defaultdict[object, Conversation](lambda: Conversation("Slack"))
                for message in messages:
                    if own_or_other := _message(message, users, me, dropped):
                        yield from threads[str(message.get("thread_ts"))].add(own_or_other)
                for thread in threads.values():
                    yield from thread.end()


class _Users:
    """The people of users.json, by their ids."""

    def __init__(self, archive: Archive) -> None:
        file = next((name for name in archive.names() if name.split("/")[-1] == "users.json"), "")
        listed = archive.json(file) if file else []
        found = [user for user in listed if isinstance(user, dict)] if isinstance(listed, list) else []
        self._names = {str(user.get("id")): _names(user) for user in found}

    def name(self, id_: str) -> str:
        """Return the name that others see."""
        return next(iter(self._names.get(id_, [])), id_)

    def all_names(self, id_: str) -> list[str]:
        """Return all names and the address of a user."""
        return [id_, *self._names.get(id_, [])]


def _names(user: dict[str, Any]) -> list[str]:
    profile = user.get("profile")
    parts = profile if isinstance(profile, dict) else {}
    names = [parts.get("real_name"), user.get("real_name"), parts.get("display_name"), user.get("name")]
    return [name for name in (*names, parts.get("email")) if isinstance(name, str) and name]


def _is_export(names: list[str]) -> bool:
    files = {name.split("/")[-1] for name in names if name.count("/") < 2}
    return "users.json" in files and (bool(files & _LISTS) or any(map(_DAY.fullmatch, names)))


def _channels(archive: Archive) -> Iterator[tuple[str, Iterator[dict[str, Any]]]]:
    """Yield the channels, and their messages in the order of time."""
    days = [(match[1], name) for name in archive.names() if (match := _DAY.fullmatch(name))]
    if not days:
        raise DataError(f"{archive.source} holds no messages of Slack: give its export, a folder or a zip")
    for channel, of_channel in groupby(sorted(days), lambda day: day[0]):
        yield channel, (message for _, name in of_channel for message in _day(archive, name))


def _day(archive: Archive, name: str) -> Iterator[dict[str, Any]]:
    with archive.open(name) as stream:
        yield from objects(stream)


def _message(message: dict[str, Any], users: _Users, me: Collection[str], dropped: Counter[str]) -> Message | None:
    user, text = str(message.get("user")), message.get("text")
    own, kind = is_one_of(me, *users.all_names(user)), _kind(message)
    typed = _typed(text, users) if isinstance(text, str) else ""
    if kind or not typed:
        if kind or own:
            dropped[kind or "media"] += 1
        return None
    return Message(typed, own, since_1970(message.get("ts")))


def _kind(message: dict[str, Any]) -> str:
    """Return what a message is that nobody typed; "" for what was typed."""
    subtype = message.get("subtype")
    if "bot_id" in message or subtype == "bot_message" or message.get("user") == "USLACKBOT":
        return "bot"
    if subtype == "tombstone":
        return "deleted"
    return "" if message.get("type") == "message" and subtype in _TYPED else "system"


def _typed(text: str, users: _Users) -> str:
    """Return a message as its author saw it: with names for ids, and labels for links; without code and quotes."""

    def seen(sign: re.Match[str]) -> str:
        kind, target, label = sign.groups()
        match kind:
            case "@":
                return "@" + (label or users.name(target)).removeprefix("@")
            case "#":
                return "#" + (label or target)
            case "!":
                return label or "@" + target.partition("^")[0]
            case _:
                return label or target.removeprefix("mailto:")

    return without_code_and_quotes(html.unescape(_SIGN.sub(seen, text)))
