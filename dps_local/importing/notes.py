"""Notes: Markdown (a vault of Obsidian, a folder, a file) and plain text.

A note is cut at its headings, which become what their sections answer, and a section of more than LONGEST words at
blank lines: an item is then about as long as a mail, so that no note outweighs all others, and fits into a prompt.
Markdown's blocks are found by markdown-it-py (CommonMark and tables); what Obsidian adds is of obsidian.md/help: front
matter, [[links]], ![[embeds]], %%comments%%, ^block-ids, .trash and the templates' folder in .obsidian/templates.json.
Quotes, and notes whose front matter names a source, are other people's words.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from dps_local.errors import DataError, MissingPackageError
from dps_local.importing.archive import Archive, looks_like, opened
from dps_local.importing.chatgpt import ChatGPT
from dps_local.importing.claude import Claude
from dps_local.importing.conversation import folded, from_iso, writing
from dps_local.importing.discord import Discord
from dps_local.importing.format import Format
from dps_local.importing.git import Git
from dps_local.importing.signal import Signal
from dps_local.importing.slack import Slack
from dps_local.importing.telegram import Telegram
from dps_local.importing.whatsapp import WhatsApp, is_chat
from dps_local.importing.writing import Writing

LONGEST = 250  # words of an item, unless one paragraph has more
LARGEST = 1 << 18  # bytes of a note; a larger one is no note
_MARKDOWN = (".md", ".markdown")
# formats whose folders and files may hold Markdown or text too
_OTHERS = (WhatsApp, Telegram, Discord, Slack, Signal, ChatGPT, Claude, Git)
_MAIL = re.compile(r"From \S+ |(?:Return-Path|Received|Delivered-To|X-[\w-]+|MIME-Version|Message-ID): ", re.IGNORECASE)
_MAILBOX = re.compile(r"^(?:cur|new)/|(?:^|/)mbox$|\.(?:emlx?|mbox)$", re.IGNORECASE)
_FOLDERS = {"trash": "trash", "node_modules": "code", "clippings": "clipping", "readwise": "clipping"}
_FOLDERS |= dict.fromkeys(("templates", "template", "_templates"), "template")
_FRONT = re.compile(r"(---|\+\+\+)[ \t]*\n(.*?\n)?\1[ \t]*(?:\n|\Z)", re.DOTALL)
_KEY = re.compile(r"^([\w -]{1,30}?)[ \t]*[:=][ \t]*(\S.*)$", re.MULTILINE)
_DATED = re.compile(r"(\d{4}-\d\d-\d\d)\b")
_TEMPLATE = re.compile(r"<%[-_*+]?[ \t]*(?:tp\.|await )|\{\{(?:date|time|title)(?::[^{}\n]{0,40})?\}\}")
_NOT_WRITTEN = {"fence", "code_block", "html_block", "blockquote_open", "table_open", "hr"}
_LINKED = r"\[([^\[\]\n]*)\]\((?:[^()\n]|\([^()\n]*\))*\)"
_RULES = [
    (re.compile(pattern, re.MULTILINE), becomes)
    for pattern, becomes in (
        (r"!\[\[[^\[\]\n]*\]\]", ""),
        (r"\[\[(?:[^\[\]|\n]*\|)?([^\[\]|\n]*)\]\]", r"\1"),
        (f"!{_LINKED}", ""),
        (_LINKED, r"\1"),
        (r"\[([^\[\]\n]+)\]\[[^\[\]\n]*\]", r"\1"),
        (r"^ {0,3}\[[^\[\]\n]+\]:[^\n]*$", ""),  # definitions of links and footnotes
        (r"\[\^[^\[\]\s]+\]", ""),
        (r"<(https?://[^<>\s]+)>", r"\1"),
        (r"^([ \t]*[-*+]) \[[^\[\]\n]\] ", r"\1 "),  # tasks
        (r"[ \t]\^[\w-]+[ \t]*$", ""),  # block ids
        (r"==([^=\n]+)==", r"\1"),
        (r"^(?:#[\w/-]+[ \t]*)+$", ""),  # tags
    )
]
_UNSEEN = re.compile(r"%%[^%]*%%|<!--[^<>]*-->|\$\$[^$]*\$\$")  # comments and formulas, over many lines


class Notes(Format):
    name = "notes"
    looked_for = "notes (Markdown or plain text, files, folders or vaults of Obsidian)"

    def recognises(self, source: Path) -> bool:
        return looks_like(source, _holds_notes) and not any(other().recognises(source) for other in _OTHERS)

    def read(self, source: Path, me: Collection[str], dropped: Counter[str]) -> Iterator[Writing]:  # noqa: ARG002
        with opened(source) as archive:
            names = [name for name in archive.names() if _is_note(name)]
            if not names:
                raise DataError(f"{source} holds no notes: give Markdown or plain text, a file or a folder")
            templates = _templates(archive)
            for name in names:
                if kind := _left_out(archive, name, templates):
                    dropped[kind] += 1
                else:
                    yield from _items(archive, name, dropped)


def _holds_notes(archive: Archive, names: list[str]) -> bool:
    if any(_MAILBOX.search(name) for name in names):
        return False
    notes = [name for name in names if _is_note(name)]
    if archive.source.is_file() and names == [archive.source.name]:
        return bool(notes) and _other_kind(archive, names[0]) == ""
    return bool(notes)


def _is_note(name: str) -> bool:
    """Return whether it is a note by its name, outside hidden folders."""
    return name.lower().endswith((*_MARKDOWN, ".txt")) and not any(part.startswith(".") for part in name.split("/"))


def _left_out(archive: Archive, name: str, templates: str) -> str:
    """Return why a note is not read; "" for one that is."""
    if templates and name.startswith(f"{templates}/"):
        return "template"
    kinds = (_FOLDERS.get(folder.casefold()) for folder in name.split("/")[:-1])
    return next(filter(None, kinds), None) or _other_kind(archive, name)


def _other_kind(archive: Archive, name: str) -> str:
    """Return what a file is if it is no note: mail, a chat, or no text."""
    head = archive.head(name)
    if _MAIL.match(head):
        return "mail"
    if is_chat(archive, name):
        return "chat"
    return "not text" if "\0" in head and not head.startswith("\ufffd\ufffd") else ""


def _templates(archive: Archive) -> str:
    """Return the folder of templates that Obsidian knows; "" for none."""
    name = ".obsidian/templates.json"
    if name not in archive.names():
        return ""
    settings = archive.json(name)
    folder = settings.get("folder") if isinstance(settings, dict) else None
    return folder.strip("/") if isinstance(folder, str) else ""


def _items(archive: Archive, name: str, dropped: Counter[str]) -> Iterator[Writing]:
    with archive.open(name) as stream:
        data = stream.read(LARGEST + 1)
    if len(data) > LARGEST:
        dropped["too large"] += 1
        return
    text = _decoded(data).replace("\r\n", "\n")
    front = _FRONT.match(text)
    keys = {key.strip().casefold(): value for key, value in _KEY.findall(front[2] or "")} if front else {}
    if kind := _not_own(keys, text):
        dropped[kind] += 1
        return
    title, at = PurePosixPath(name).stem, _date(archive, name, keys)
    body = text[front.end() :] if front else text
    for heading, section in _sections(body) if name.lower().endswith(_MARKDOWN) else [("", body)]:
        subject = [part for part in (title if not _DATED.match(title) else "", heading) if part]
        if len(subject) == 2 and folded(title) == folded(heading):
            subject.pop()
        for part in _parts(section):
            yield writing(part, "notes", at, " — ".join(subject))


def _decoded(data: bytes) -> str:
    """Return a text in UTF-8, in UTF-16 with its mark, or in what Windows used before."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _not_own(keys: dict[str, str], text: str) -> str:
    if "excalidraw-plugin" in keys:
        return "drawing"
    if any("://" in keys.get(key, "") for key in ("source", "url")):
        return "clipping"
    return "template" if _TEMPLATE.search(text) else ""


def _date(archive: Archive, name: str, keys: dict[str, str]) -> datetime | None:
    """Return when a note was written: as it says, as its name says, or when its file was changed."""
    for key in ("created", "date created", "date"):
        if at := from_iso(keys.get(key, "").strip("\"' ")):
            return at
    if dated := _DATED.search(PurePosixPath(name).stem):
        return from_iso(dated[1])
    return datetime.fromtimestamp(archive.path(name).stat().st_mtime, UTC)


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """Yield (heading, text) of the sections of a Markdown text, without code, quotes, tables and targets of links."""
    text = _UNSEEN.sub("", text)
    lines: list[str | None] = [*text.split("\n")]
    tokens = _markdown().parse(text)
    headings = [("", 0)]
    for i, token in enumerate(tokens):
        if token.type == "heading_open" and token.level == 0:
            headings.append((_cleaned(tokens[i + 1].content), token.map[0]))
        if token.map and (token.type in _NOT_WRITTEN or token.type == "heading_open"):
            lines[token.map[0] : token.map[1]] = [None] * (token.map[1] - token.map[0])
    for (heading, start), (_, end) in zip(headings, [*headings[1:], ("", len(lines))], strict=True):
        yield heading, _cleaned("\n".join(line for line in lines[start:end] if line is not None))


def _cleaned(text: str) -> str:
    for pattern, becomes in _RULES:
        text = pattern.sub(becomes, text)
    return text.strip()


def _parts(section: str) -> Iterator[str]:
    """Yield a section, or pieces of it of about LONGEST words that end at blank lines."""
    piece, words = list[str](), 0
    for paragraph in re.split(r"\n(?:[ \t]*\n)+", section.strip()):
        if piece and words + len(paragraph.split()) > LONGEST:
            yield "\n\n".join(piece)
            piece, words = [], 0
        piece.append(paragraph)
        words += len(paragraph.split())
    if text := "\n\n".join(piece).strip():
        yield text


@cache
def _markdown() -> Any:
    try:
        from markdown_it import MarkdownIt
    except ImportError as exc:
        raise MissingPackageError("importing notes needs markdown-it-py: pip install 'dps-local[import]'") from exc
    return MarkdownIt("commonmark").enable("table").disable("inline")  # blocks alone: links are cleaned as they stand
