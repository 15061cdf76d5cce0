"""`Letter`: one mail decoded, whatever its character set claims to be."""

from __future__ import annotations

import email
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.header import decode_header
from email.message import Message
from email.utils import getaddresses, parsedate_to_datetime

from dps_local.importing.html_text import html_text
from dps_local.importing.mail_phrases import AUTOMATIC_SUBJECT

_BLANK = re.compile(rb"\r?\n\r?\n")
_KEPT = re.compile(rb"^(?:content-[a-z-]+|mime-version)[ \t]*:", re.IGNORECASE)
# fields of a part that take the parser long
_LONG_LINE = re.compile(rb"(?im)^(content-[\w-]{1,40}:[^\n]{1000})[^\n]+")
_LONG_FIELD = re.compile(rb"(?im)^(content-[\w-]{1,40}:[^\n]*(?:\n[ \t][^\n]*){0,20})(?:\n[ \t][^\n]*)+")
_ESCAPED = re.compile(rb"^>(>*From )", re.MULTILINE)
_SINGLE_BYTE = ("ascii", "us-ascii", "iso-8859", "latin", "windows-125", "cp125", "koi8", "macintosh", "unknown")


@dataclass(frozen=True)
class Heading:
    """The lines above a mail, of which few are read and no more than a thousand bytes each."""

    lines: tuple[bytes, ...]  # unfolded

    @classmethod
    def of(cls, raw: bytes) -> Heading:
        head = _BLANK.split(raw.lstrip(b"\r\n"), maxsplit=1)[0]
        return cls(tuple(re.split(rb"\r?\n(?![ \t])", head[:200_000])))

    def get(self, name: str) -> str:
        """Return what a field says, decoded; "" where it is not there. The last one counts, as the first mailer's."""
        prefix = name.encode().lower() + b":"
        found = [line for line in self.lines if line[: len(prefix)].lower() == prefix]
        return _decoded(found[-1][len(prefix) :][:1000]) if found else ""

    def people(self, *names: str) -> list[tuple[str, str]]:
        """Return (name, address) of those in these fields, in lower case."""
        pairs = getaddresses([value for name in names if (value := self.get(name))])
        return [(name.strip().casefold(), address.strip().casefold()) for name, address in pairs if name or address]

    @property
    def date(self) -> str:
        """When it was sent, in ISO 8601; "" where that is not known."""
        try:
            return parsedate_to_datetime(self.get("Date")).isoformat()
        except (ValueError, TypeError, IndexError, OverflowError):
            return ""


def _decoded(value: bytes) -> str:
    text = " ".join(_text(value, "").split())
    if "=?" not in text:
        return text
    try:
        words = [part if isinstance(part, str) else _text(part, charset or "") for part, charset in decode_header(text)]
    except ValueError:  # base64 that is none
        return text
    return " ".join("".join(words).split())


def _text(data: bytes, charset: str) -> str:
    """Decode text by what it is before what it claims to be: hardly anything is UTF-8 by accident."""
    claims = charset.lower().strip("\"' ")
    order = ("utf-8", claims) if not claims or claims.startswith(_SINGLE_BYTE) else (claims, "utf-8")
    for name in filter(None, order):
        try:
            return data.decode(name)
        except (LookupError, ValueError):
            pass
    return data.decode("cp1252", errors="replace")


@dataclass(frozen=True)
class Letter:
    """text: of the body, plain. made_by: "" for a person, else the kind of machine ("auto-reply", "calendar" …)."""

    heading: Heading
    text: str
    made_by: str = ""

    @classmethod
    def parse(cls, raw: bytes) -> Letter:
        """Decode a mail. Raises ValueError where the standard library cannot read it."""
        raw = raw.lstrip(b"\r\n")
        heading = Heading.of(raw)
        body = [*_BLANK.split(raw, maxsplit=1), b""][1]
        lean = b"\n".join([line for line in heading.lines if _KEPT.match(line)]) + b"\n\n" + body
        try:
            # not policy.default: a body of 400 kB that is all parameters takes it over 15 s, and it raises for more
            mail = email.message_from_bytes(_LONG_LINE.sub(rb"\1", _LONG_FIELD.sub(rb"\1", lean)))
            return cls(heading, _body(mail), _machine(heading, mail))
        except Exception as exc:  # damaged mail makes it raise nearly anything
            raise ValueError("a mail that cannot be read") from exc


def _machine(heading: Heading, mail: Message) -> str:
    kinds = {part.get_content_type() for part in _parts(mail)}
    labels = heading.get("X-Gmail-Labels").casefold()
    if "multipart/report" in kinds:
        return "bounce"
    if "text/calendar" in kinds:
        return "calendar"
    if heading.get("Auto-Submitted").casefold().partition(";")[0] not in ("", "no"):
        return "auto-reply"
    told = heading.get("Precedence").casefold() == "auto_reply" or any(
        map(heading.get, ("X-Autoreply", "X-Autorespond"))
    )
    if told or AUTOMATIC_SUBJECT.match(heading.get("Subject")):
        return "auto-reply"
    return next((kind for kind in ("draft", "spam", "trash") if kind in labels), "")


def _parts(mail: Message) -> Iterator[Message]:
    """Yield a mail and its parts, but nothing of the mails that are attached to it."""
    yield mail
    if mail.is_multipart() and mail.get_content_maintype() == "multipart":
        for part in mail.get_payload():
            yield from _parts(part)  # type: ignore[arg-type]  # of a multipart they are messages


def _body(mail: Message) -> str:
    texts = {
        part.get_content_type(): part
        for part in reversed(list(_parts(mail)))
        if not part.is_multipart() and not part.get_filename() and part.get_content_disposition() != "attachment"
    }
    plain, html = texts.get("text/plain"), texts.get("text/html")
    text = "" if plain is None else _plain(plain)  # a message without headers is false
    return text if html is None or text.strip() else html_text(_payload(html))


def _plain(part: Message) -> str:
    said = {name: str(part.get_param(name, "")).casefold() for name in ("format", "delsp")}
    return _unflowed(_payload(part), said["delsp"] == "yes") if said["format"] == "flowed" else _payload(part)


def _payload(part: Message) -> str:
    data = part.get_payload(decode=True)
    text = _text(_ESCAPED.sub(rb"\1", data), part.get_content_charset("")) if isinstance(data, bytes) else ""
    return text.replace("\r\n", "\n")


def _unflowed(text: str, delete_space: bool) -> str:
    """Join the lines that a mail program has broken (RFC 3676)."""
    lines: list[str] = []
    before = None  # depth of quoting of a line that goes on
    for raw in text.split("\n"):
        marks = len(raw) - len(raw.lstrip(">"))
        line = raw[marks:].removeprefix(" ")
        soft = line.endswith(" ") and line != "-- "
        shown = line[:-1] if soft and delete_space else line
        if before == marks and line != "-- ":
            lines[-1] += shown
        else:
            lines.append(">" * marks + " " + shown if marks else shown)
        before = marks if soft else None
    return "\n".join(lines)
