"""WhatsApp: the text of "Export chat", alone or in its zip, of Android and iOS in any language.

The form follows the phone's locale, see github.com/linuswillner/whatsapp-export-inconsistencies: "date, time - name: "
on Android and "[date, time] name: " on iOS, dates in the order and with the signs of the locale, 12-hour clocks with a
U+202F. iOS, and Android in places, begin what WhatsApp itself wrote (media, calls, deleted messages) with a U+200E.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from dps_local.errors import DataError
from dps_local.importing.archive import Archive, looks_like, opened
from dps_local.importing.conversation import MARKS, Message, is_one_of, joined
from dps_local.importing.format import Format
from dps_local.importing.whatsapp_phrases import ATTACHED, DELETED, EDITED, OMITTED
from dps_local.importing.writing import Writing

LOOKED_AT = 30  # lines of a file, of which one has to be a message
MOST = 20_000  # characters of a message; what is longer was pasted
YEARS = range(2009, 2100)  # others are of another calendar
_M, _SPACE = f"[{MARKS}]{{0,3}}", "[ \u00a0\u202f\u2009]"
_HEADER = re.compile(
    rf"{_M}(?P<ios>\[)?{_M}(\d{{1,4}}){_M}([./-]){_M} ?(\d{{1,2}}){_M}[./-]{_M} ?(\d{{1,4}})\.?{_M}[,،]?{_SPACE}{_M}"
    rf"(?P<before>(?:[^\W\d_]{{1,4}}\.?{_SPACE}?){{0,2}})"
    rf"(?P<hour>\d{{1,2}})[:.](?P<minute>\d{{2}})(?:[:.](?P<second>\d{{2}}))?{_M}"
    rf"(?:{_SPACE}?(?P<after>[^\W\d_]{{1,6}}\.?(?:{_SPACE}?[^\W\d_]{{1,2}}\.?)?))?{_M}"
    rf"(?(ios)\]|{_SPACE}[-–]){_SPACE}(?P<rest>.*)",
    re.DOTALL,
)
_AUTHOR = re.compile(r"(.{1,100}?):(?: (.*)|$)", re.DOTALL)
_AFTERNOON = {"pm", "nachm", "下午", "午後", "오후", "م", "μμ", "ös", "du", "ch", "ip", "em"}
_HALF_DAYS = {"am", "vorm", "上午", "午前", "오전", "ص", "πμ", "öö", "de", "sa", "ap", "fm"} | _AFTERNOON
_FILE = re.compile(r"(.{1,200}) \(([^()]{1,40})\)")
_NUMBERED = re.compile(r"[A-Z]{3}-\d{8}-WA\d{4,6}\.\w{0,5}")  # the name of a file as Android makes it
_PLACE = re.compile(r"https://maps\.google\.com/\?q=-?[\d.]+,-?[\d.]+")
_ADDED = re.compile(r" ?\u200e<[^<>\n]{1,200}>")  # on iOS, in any language
_LAST = re.compile(r" <([^<>\n]{1,60})>\Z")
_MENTION = re.compile(r"@[\u2068\u202a]([^\u2068\u2069\u202a\u202c]{0,100})[\u2069\u202c]")


class WhatsApp(Format):
    name = "whatsapp"
    looked_for = "WhatsApp chats (.txt or .zip)"

    def recognises(self, source: Path) -> bool:
        return looks_like(source, lambda archive, names: any(is_chat(archive, name) for name in names))

    def authors(self, source: Path) -> Counter[str]:
        with opened(source) as archive:
            return Counter(
                entry.author
                for name in _names(archive)
                for entry in _entries(archive.lines(name), "dmy")
                if entry.author and not entry.marked
            )

    def read(self, source: Path, me: Collection[str], dropped: Counter[str]) -> Iterator[Writing]:
        with opened(source) as archive:
            for name in _names(archive):
                entries = _entries(archive.lines(name), _order(archive.lines(name)))
                yield from joined(_messages(entries, me, dropped), "WhatsApp")


@dataclass
class _Entry:
    """What stands behind one date. author: "" for a line of the system's."""

    at: datetime | None
    author: str
    text: str

    @property
    def marked(self) -> bool:
        """Whether WhatsApp itself wrote it."""
        return self.text.startswith("\u200e")


def is_chat(archive: Archive, name: str) -> bool:
    """Return whether a file begins with a date, and has a message soon."""
    if not name.lower().endswith(".txt") or name.count("/") > (not archive.source.is_dir()):
        return False
    lines = [line for line in archive.head(name).split("\n")[:LOOKED_AT] if line.strip()]
    found = [_HEADER.match(line) for line in lines]
    return bool(found) and found[0] is not None and any(match and _AUTHOR.match(match["rest"]) for match in found)


def _names(archive: Archive) -> list[str]:
    if names := [name for name in archive.names() if is_chat(archive, name)]:
        return names
    raise DataError(f"{archive.source} holds no chat of WhatsApp: give the .txt or .zip of its Export chat")


def _entries(lines: Iterable[str], order: str) -> Iterator[_Entry]:
    entry: _Entry | None = None
    for line in lines:
        if match := _HEADER.match(line):
            if entry:
                yield entry
            rest = match["rest"]
            named = _AUTHOR.match(rest)
            author, text = (named[1].strip(f"{MARKS} \u00a0\u202f"), named[2] or "") if named else ("", rest)
            entry = _Entry(_time(match, order), author, text)
        elif entry and len(entry.text) < MOST:
            entry.text += f"\n{line}"
    if entry:
        yield entry


def _messages(entries: Iterable[_Entry], me: Collection[str], dropped: Counter[str]) -> Iterator[Message]:
    for entry in entries:
        if not entry.author:
            dropped["system"] += 1
            continue
        own = is_one_of(me, entry.author)
        text, kind = _typed(entry.text)
        if kind and own:
            dropped[kind] += 1
        if text:
            yield Message(text, own, entry.at)


def _typed(text: str) -> tuple[str, str]:
    """Return what the author typed, and what kind of thing WhatsApp put in its place or before it ("" for nothing)."""
    first, _, rest = text.partition("\n")
    bare = first.strip(f"{MARKS} ")
    if bare.rstrip(".").casefold() in DELETED:
        return "", "deleted"
    if _PLACE.search(text):
        return "", "location"
    if bare == "POLL:":
        return "", "poll"
    if not (first.startswith("\u200e") or _is_media(bare)):
        return _cleaned(text), ""
    below = rest.split("\n")  # a document repeats its name there, anything else may have a caption
    return _cleaned("\n".join(below[1:] if below[0] and bare.startswith(below[0]) else below)), "media"


def _is_media(line: str) -> bool:
    if re.fullmatch("<[^<>]+>", line) or line.casefold() in OMITTED:
        return True
    file = _FILE.fullmatch(line)
    return file is not None and (file[2].casefold() in ATTACHED or _NUMBERED.fullmatch(file[1]) is not None)


def _cleaned(text: str) -> str:
    """Leave out what WhatsApp added to a message, and its marks around names."""
    text = _ADDED.sub("", text)
    if (last := _LAST.search(text)) and last[1].rstrip(".").casefold() in EDITED:
        text = text[: last.start()]
    return _MENTION.sub(r"@\1", text).strip()


def _order(lines: Iterable[str]) -> str:
    """Return the order of a chat's dates: "ymd", "dmy" or "mdy". Where none is certain, that in which time goes on."""
    dates = list[tuple[int, int, int]]()
    half_days = 0
    for line in lines:
        if match := _HEADER.match(line):
            date = int(match[2]), int(match[4]), int(match[5])
            half_days += bool(_half_day(match))
            if date[0] > 31:
                return "ymd"
            if match[3] == "." or date[0] > 12:
                return "dmy"
            if date[1] > 12:
                return "mdy"
            if not dates or dates[-1] != date:
                dates.append(date)
    days = [(year, month, day) for day, month, year in dates]
    american = [(year, month, day) for month, day, year in dates]
    if (back := _backward(days)) != (back_american := _backward(american)):
        return "dmy" if back < back_american else "mdy"
    return "mdy" if half_days and dates and dates[0][2] < 100 else "dmy"


def _backward(dates: list[tuple[int, int, int]]) -> int:
    return sum(later < earlier for earlier, later in pairwise(dates))


def _time(match: re.Match[str], order: str) -> datetime | None:
    """Return the local time of a header; None for a date that there is not."""
    year, month, day = (int(match[(2, 4, 5)[order.index(part)]]) for part in "ymd")
    hour, minute, second = (int(match[part] or 0) for part in ("hour", "minute", "second"))
    half = _half_day(match)
    if half and hour <= 12:
        hour = hour % 12 + 12 * (half in _AFTERNOON)
    year += 2000 if year < 100 else 0
    try:
        return datetime(year, month, day, hour, minute, second) if year in YEARS else None
    except ValueError:
        return None


def _half_day(match: re.Match[str]) -> str:
    """Return the sign of a 12-hour clock, which stands before the time or behind it; "" for none."""
    words = [*match["before"].split(), match["after"] or ""]
    signs = {re.sub(r"[\W_]", "", word).casefold() for word in words} & _HALF_DAYS
    return min(signs, default="")
