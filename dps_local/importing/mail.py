"""`Mail`: mbox, Maildir, single mails, Apple Mail's folders and Google Takeout, as files, folders or zips of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from dps_local.importing.format import Format
from dps_local.importing.letter import Heading, Letter
from dps_local.importing.mailboxes import holds_mail, raw_mails
from dps_local.importing.own_words import own_words
from dps_local.importing.writing import Writing

PIECE = 300  # characters of what a mail answers
PRESENT = 0.8  # of the mails of a mailbox, its owner wrote or got so many
_PREFIX = re.compile(
    r"^(?:\s*(?:re|aw|antw|sv|vs|odp|fwd?|wg|tr|rv|ref|r|i|ynt|回复|答复|转发|返信)\s*(?:\[\d+\])?\s*[:：])+\s*", re.I
)
_LIST = re.compile(r"^\s*\[[^\]]{1,40}\]\s*")
_ID = re.compile(r"<[^<>\s]{1,250}>")


class Mail(Format):
    name = "mail"
    looked_for = "mail (mbox, Maildir, .eml, Apple Mail, Google Takeout)"

    def recognises(self, source: Path) -> bool:
        return holds_mail(source)

    def authors(self, source: Path) -> Counter[str]:
        """Return the addresses that mail is from; only the owner's where it takes part in nearly all of the mail."""
        wrote: Counter[str] = Counter()
        present: Counter[str] = Counter()
        mails = 0
        for raw in raw_mails(source):
            heading = Heading.of(raw)
            senders = {address for _, address in heading.people("From") if address}
            present.update(
                senders | {address for _, address in heading.people("To", "Cc", "Delivered-To", "X-Original-To")}
            )
            wrote.update(senders)
            mails += 1
        owners = [address for address in wrote if present[address] >= PRESENT * mails]
        return Counter({owners[0]: wrote[owners[0]]}) if len(owners) == 1 else wrote

    def read(self, source: Path, me: Collection[str], dropped: Counter[str]) -> Iterator[Writing]:
        mine = {who.strip().casefold() for who in me}
        waiting: dict[str, list[Writing]] = {}  # by the mail that they answer, and do not quote
        for raw in raw_mails(source):
            heading = Heading.of(raw)
            if not any(mine.intersection(person) for person in heading.people("From")):
                dropped["by others"] += 1
                continue
            writing = _writing(raw, dropped)
            if writing is None:
                continue
            answered = _ID.search(heading.get("In-Reply-To"))
            if answered and "\n" not in writing.input:
                waiting.setdefault(answered[0], []).append(writing)
            else:
                yield writing
        yield from _with_parents(source, waiting)


def _writing(raw: bytes, dropped: Counter[str]) -> Writing | None:
    try:
        letter = Letter.parse(raw)
    except ValueError:
        dropped["unreadable"] += 1
        return None
    if letter.made_by:
        dropped[letter.made_by] += 1
        return None
    words = own_words(letter.text)
    if not words.own:
        dropped["forward" if words.forwards else "nothing of their own"] += 1
        return None
    subject = _LIST.sub("", _PREFIX.sub("", letter.heading.get("Subject")))
    return Writing(words.own, _input(subject, words.quoted), letter.heading.date, "mail")


def _input(subject: str, answered: str) -> str:
    return "\n\n".join(filter(None, (subject, _piece(answered))))


def _piece(text: str) -> str:
    """Return the beginning of a text, on one line, up to a word's end."""
    line = " ".join(text.split())
    return line if len(line) <= PIECE else line[:PIECE].rpartition(" ")[0] + " …"


def _with_parents(source: Path, waiting: dict[str, list[Writing]]) -> Iterator[Writing]:
    """Yield writings with the mail that they answer, where it is in the source: it is read again for that."""
    if waiting:
        for raw in raw_mails(source):
            identity = _ID.search(Heading.of(raw).get("Message-ID"))
            if identity and (writings := waiting.pop(identity[0], None)):
                answered = _own_words_of(raw)
                yield from (replace(writing, input=_input(writing.input, answered)) for writing in writings)
    yield from (writing for writings in waiting.values() for writing in writings)


def _own_words_of(raw: bytes) -> str:
    try:
        return own_words(Letter.parse(raw).text).own
    except ValueError:
        return ""
