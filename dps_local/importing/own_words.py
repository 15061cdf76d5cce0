"""`OwnWords`: what the sender of a mail typed, apart from what they quote and what others attached to it.

Lines are judged one by one and with their neighbours, in time proportional to the mail. Where an attribution stands
above quoted lines its place gives it away in any language; where nothing is marked, its words must.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dps_local.importing.mail_phrases import (
    DISCLAIMER,
    DIVIDER,
    FORWARDED_BELOW,
    SIGN_OFF,
    TAGLINE,
    WROTE,
    header_role,
)

MOST_CHARACTERS = 100_000  # of a mail: nobody types more
MOST_LINES = 5000
LINE = 1000  # characters of a line that are looked at
_INVISIBLE = re.compile("[\ufeff\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\u00ad]")
_QUOTED = re.compile(r" ?>")
_ADDRESS = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}\.\w")
_DAY = re.compile(r"(?:19|20)\d\d|\b\d{1,2}[./-]\d{1,2}[./-]\d{2}")
_TIME = re.compile(r"\d{1,2}[:.h]\d\d")
_RULED = re.compile(r"^[ >*]*-{2,}\s*([^-\s].{2,60}?)\s*-{2,}[ *]*$")
_RULE = re.compile(r"^\s*[_-]{5,}\s*$")
_SIGNATURE = re.compile(r"^--[ \t]?$")
_CONTACT = re.compile(
    r"^\W*(?:tel|phone|mobile?|mob|fax|fon|telefon|téléphone|móvil|cell|handy|e-?mail|web|www\.|https?://)\b"
    r"|\+\d[\d ()/-]{7,}|\S \| \S|@[\w-]+\.\w",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class OwnWords:
    """own: what the sender typed. quoted: what they answer or forward. forwards: whether it is a forward."""

    own: str
    quoted: str = ""
    forwards: bool = False


def own_words(body: str) -> OwnWords:
    """Tell the words of the sender of a mail from what stands around them; body: plain text."""
    text = _INVISIBLE.sub("", body[:MOST_CHARACTERS]).replace("\r\n", "\n").replace("\r", "\n").replace("\xa0", " ")
    lines = [line[:LINE].rstrip() for line in text.split("\n", MOST_LINES)[:MOST_LINES]]
    cut = next((i for i in range(len(lines)) if _quote_begins(lines, i)), len(lines))
    above, below = lines[:cut], lines[cut:]
    attributions = {j for i in range(len(above)) for j in _attribution_above(above, i)}
    own = [line for i, line in enumerate(above) if not _QUOTED.match(line) and i not in attributions]
    quoted = [line for line in above if _QUOTED.match(line)] + below
    forwards = bool(below) and _forwards(below)
    return OwnWords(_without_attachments(_squeezed(own)), _answered(quoted), forwards)


# --- where the words of others begin


def _quote_begins(lines: list[str], i: int) -> bool:
    """Whether all from line i on is a mail that is quoted or forwarded whole."""
    line = lines[i]
    if not line or _QUOTED.match(line):
        return False
    ruled = _RULED.match(line)
    if (ruled and DIVIDER.search(ruled[1])) or FORWARDED_BELOW.match(line):
        return True
    if ruled or _RULE.match(line):
        return _is_header(lines, i + 1)
    return _is_header(lines, i) or _is_bare_attribution(lines, i)


def _is_header(lines: list[str], i: int) -> bool:
    """Whether the header of a mail begins at line i: in a run of such lines three things, of which its sender and its
    subject or an address; a journey has a "From:", a "To:" and a "Date:" too."""
    following = [line for line in lines[i : i + 14] if line]
    if not following or not header_role(following[0]):
        return False
    roles: set[str] = set()
    others, address = 0, False
    for line in following:
        role = header_role(line)
        others = 0 if role else others + 1
        if others > 1:  # one may be the rest of the line before
            break
        roles.add(role)
        address = address or bool(_ADDRESS.search(line))
    return "from" in roles and len(roles - {""}) >= 3 and (address or "subject" in roles)


def _is_attribution(text: str) -> bool:
    """Whether "On …, … wrote:" stands here, by what it holds."""
    if not text.endswith((":", "：")):
        return False
    when, who = bool(_DAY.search(text) and _TIME.search(text)), bool(_ADDRESS.search(text))
    return (when and who) or (bool(WROTE.search(text)) and (when or who))


def _is_bare_attribution(lines: list[str], i: int) -> bool:
    """Whether an attribution begins at line i above text that is not marked as quoted."""
    for n in (1, 2, 3):
        wrapped = lines[i : i + n]
        if not all(wrapped):
            return False
        if _is_attribution(" ".join(wrapped)) and (n == 1 or _opens(wrapped[0])):
            return not _QUOTED.match(next((line for line in lines[i + n :] if line), ">"))
    return False


def _opens(line: str) -> bool:
    return bool(_DAY.search(line) or _TIME.search(line))


def _attribution_above(lines: list[str], i: int) -> range:
    """Return the lines of the attribution above line i, where quoted lines begin there."""
    if not _QUOTED.match(lines[i]) or (i and _QUOTED.match(lines[i - 1])):
        return range(0)
    end = i
    while end and not lines[end - 1]:
        end -= 1
    for n in (3, 2, 1):
        wrapped = lines[max(end - n, 0) : end]
        if len(wrapped) == n and all(wrapped) and not any(map(_QUOTED.match, wrapped)) and _introduces(wrapped):
            return range(end - n, end)
    return range(0)


def _introduces(lines: list[str]) -> bool:
    text = " ".join(lines)
    if len(lines) > 1 and not _opens(lines[0]):
        return False
    known = _ADDRESS.search(text) or (_DAY.search(text) and _TIME.search(text)) or WROTE.search(text)
    return bool(known) and (text.endswith((":", "：")) or bool(WROTE.search(lines[-1])))


def _forwards(lines: list[str]) -> bool:
    ruled = _RULED.match(lines[0])
    return bool(FORWARDED_BELOW.match(lines[0])) or bool(
        ruled and re.search("(?i)forward|weiterg|transf|reenv", ruled[1])
    )


# --- what the sender answers


def _answered(quoted: list[str]) -> str:
    """Return the words of the mail that is quoted: not what that one quotes, and not the lines above it."""
    kept: list[str] = []
    for line in quoted:
        line = re.sub(r"^ ?> ?", "", line)
        if _QUOTED.match(line) or header_role(line) or _RULED.match(line) or FORWARDED_BELOW.match(line):
            continue
        if not (_RULE.match(line) or _is_attribution(line)):
            kept.append(line)
    return _squeezed(kept)


# --- what others attached


def _without_attachments(text: str) -> str:
    lines = text.split("\n")
    end = next((i for i, line in enumerate(lines) if _SIGNATURE.match(line) or _is_footer(lines, i)), len(lines))
    paragraphs = _squeezed(lines[:end]).split("\n\n")
    while paragraphs and (TAGLINE.match(paragraphs[-1]) or DISCLAIMER.match(paragraphs[-1])):
        paragraphs.pop()
    return "\n\n".join(_without_card(paragraphs)).strip()


def _is_footer(lines: list[str], i: int) -> bool:
    """Whether a mailing list's or a scanner's footer begins at line i: a rule of underscores, and little below it."""
    return bool(re.match(r"_{10,}$", lines[i])) and len(lines) - i <= 8


def _without_card(paragraphs: list[str]) -> list[str]:
    """Leave out the business card below a sign-off, where they are the end; the sign-off and the name stay."""
    for i in range(max(len(paragraphs) - 3, 0), len(paragraphs)):
        lines = paragraphs[i].split("\n")
        at = next((n for n, line in enumerate(lines) if SIGN_OFF.match(line) and len(line.split()) <= 6), len(lines))
        rest = [*lines[at + 2 :], *(line for later in paragraphs[i + 1 :] for line in later.split("\n"))]
        if at < len(lines) and _is_card(rest):
            return [*paragraphs[:i], "\n".join(lines[: at + 2])]
    return paragraphs


def _is_card(lines: list[str]) -> bool:
    """Whether lines are short, no sentences, and some say how to reach someone."""
    filled = [line for line in lines if line]
    if any(len(line) > 90 or re.search(r"[.!?]$", line) for line in filled):
        return False
    return any(map(_CONTACT.search, filled))


def _squeezed(lines: list[str]) -> str:
    """Return lines as text, with one empty line where there were several, and none around it."""
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")
