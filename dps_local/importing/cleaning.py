"""`Cleaning`: which writings become history items, and in what form; one place for all formats.

What goes for a text goes for what it answers too. What is left out and masked is counted by kind, and shown nowhere.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from dps_local.importing.masking import Mask, greeted_names, without_links
from dps_local.importing.meter import meter
from dps_local.importing.near_duplicates import near_duplicates
from dps_local.importing.secrets import secret_kind
from dps_local.importing.writing import Writing
from dps_local.prompting.profile import LONG_AGO, HistoryItem, time_of

MIN_WORDS = 4
MOST_CHARACTERS = 100_000  # of an item: who pastes a book does not write it
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_WORD = re.compile(r"\w+")
_IDEOGRAPH = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0e7f]")


@dataclass(frozen=True)
class Rules:
    """since: nothing older. limit: so many items, the newest. blocked: words that no item may hold.

    me: addresses and names of the person, which stay unmasked.
    """

    since: datetime | None = None
    limit: int | None = None
    min_words: int = MIN_WORDS
    blocked: frozenset[str] = frozenset()
    mask_names: bool = False
    me: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Sample:
    """One item before and after; what is masked is covered before, too."""

    before: str
    after: str


@dataclass
class Cleaning:
    rules: Rules = Rules()
    dropped: Counter[str] = field(default_factory=Counter)
    masked: Counter[str] = field(default_factory=Counter)
    _kept: list[Writing] = field(default_factory=list)

    def add(self, writing: Writing) -> bool:
        """Take a writing in, or count why not; returns which."""
        clean = Writing(_plain(writing.text), _plain(writing.input), _iso(writing.date), writing.source)
        if reason := self._reason(clean):
            self.dropped[reason] += 1
            return False
        self._kept.append(clean)
        return True

    def _reason(self, writing: Writing) -> str:
        """Return why a writing is left out, "" if it is not; the cheap reasons come first."""
        if n_words(writing.text) < self.rules.min_words:
            return "too short"
        if len(writing.text) > MOST_CHARACTERS:
            return "too long"
        if self.rules.since and (not writing.date or _moment(writing.date) < self.rules.since):
            return "older" if writing.date else "no date"
        both = f"{writing.text}\n{writing.input}"
        if self.rules.blocked and blocked(both, self.rules.blocked):
            return "blocked word"
        return secret_kind(without_links(both))  # links are masked

    def items(self) -> list[HistoryItem]:
        """Return the history items, the newest last: of the same and of nearly the same ones the newest."""
        meter().expect(2 * len(self._kept))
        return [self._item(writing, self._mask(self.masked)) for writing in meter().over(self._chosen)]

    def samples(self, n: int) -> list[Sample]:
        """Return some items before and after, spread over all of them."""
        chosen = self._chosen
        covered, mask = self._mask(Counter()), self._mask(Counter())
        covered.shown = lambda _, text: "█" * len(text)
        return [
            Sample(_shown(self._item(writing, covered)), _shown(self._item(writing, mask)))
            for writing in chosen[:: max(len(chosen) // n, 1)][:n]
        ]

    @cached_property
    def _chosen(self) -> list[Writing]:
        newest_first = sorted(self._kept, key=lambda writing: _moment(writing.date))[::-1]
        same: dict[bytes, Writing] = {}
        for writing in newest_first:
            same.setdefault(_digest(writing.text), writing)
        unique = list(same.values())
        near = near_duplicates(meter().over([writing.text for writing in unique]))
        chosen = [writing for i, writing in enumerate(unique) if i not in near]
        limited = chosen[: self.rules.limit]
        left = {
            "duplicate": len(newest_first) - len(unique),
            "near-duplicate": len(near),
            "over the limit": len(chosen) - len(limited),
        }
        for reason, n in left.items():
            if n:
                self.dropped[reason] = n
        return limited[::-1]

    def _mask(self, counts: Counter[str]) -> Mask:
        return Mask(self._names, counts=counts)

    @cached_property
    def _names(self) -> frozenset[str]:
        """The names of others: those that are greeted."""
        if not self.rules.mask_names:
            return frozenset()
        mine = {part for me in self.rules.me for part in _WORD.findall(me.casefold())}
        names = {name for writing in self._kept for name in greeted_names(writing.text)}
        return frozenset(name for name in names if name.casefold() not in mine)

    @staticmethod
    def _item(writing: Writing, mask: Mask) -> HistoryItem:
        return HistoryItem(mask(writing.text), mask(writing.input), source=writing.source, date=writing.date)


def _plain(text: str) -> str:
    """Return a text without control characters, in composed form, and with no more than one empty line in a row."""
    text = (
        unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n")).encode(errors="replace").decode()
    )
    lines = [line.rstrip() for line in _CONTROL.sub("", text).split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def n_words(text: str) -> int:
    """Return how many words a text has; where words are not set apart, two characters are one."""
    ideographs = len(_IDEOGRAPH.findall(text))
    return ideographs // 2 + sum(1 for word in _WORD.findall(text) if not _IDEOGRAPH.match(word))


def blocked(text: str, words: Collection[str]) -> bool:
    """Whether a text holds one of some words or phrases, whole and in any case."""
    flat = _words(text)
    return any(_words(word) in flat for word in words)


def _words(text: str) -> str:
    return f" {' '.join(_WORD.findall(text.casefold()))} "


def _digest(text: str) -> bytes:
    """Return what tells a text from others but for case and spaces, in less memory."""
    return hashlib.blake2b(" ".join(text.casefold().split()).encode(), digest_size=16).digest()


def _iso(date: str) -> str:
    try:
        return datetime.fromisoformat(date).isoformat() if date else ""
    except ValueError:
        return ""


def _moment(date: str) -> datetime:
    """Return when that was; what has no date is the oldest."""
    return time_of(date) or LONG_AGO


def _shown(item: HistoryItem) -> str:
    return "\n".join(filter(None, (f"[{' '.join(item.input.split())}]" if item.input else "", item.output)))


def block_list(lines: Iterable[str]) -> frozenset[str]:
    """Return the words of a file with one word or phrase a line; "#" begins a remark."""
    return frozenset(word for line in lines if (word := line.partition("#")[0].strip()))
