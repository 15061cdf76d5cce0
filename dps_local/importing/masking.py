"""Masking: phone numbers, addresses, links that open something, and names, each replaced by what it is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from dps_local.importing.secrets import imported, is_random

Shown = Callable[[str, str], str]  # (kind, text) -> what stands there instead
_URL = re.compile(r"(?i)\b(?:[a-z][a-z0-9+.-]{1,20}://|www\.)[^\s<>\"']{3,2000}")
_EMAIL = re.compile(r"(?i)(?<![\w.+-])[\w.+%-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
_GIVES_ACCESS = re.compile(
    r"(?i)(?:^|[?&#;/_-])(?:access|auth|token|key|sig|signature|code|pass|pwd|password|secret|session|sid|invite|share|otp"
    r"|apikey|reset|login|magic|ticket)\w{0,12}="
)
_PHONE = re.compile(r"(?<![\w.,/@-])(?:\+|00|\()?\(?\d[\d \u00a0()/.-]{5,22}\d(?![\w@/-])")
_NO_PHONE = re.compile(  # days, times and sums
    r"(?:\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./]\d{2,4})(?:\s.*)?|\d{1,3}(?:[. ]\d{3})+|\d+\.\d+"
    r"|(?:19|20)\d\d ?[-/] ?(?:19|20)?\d\d"
)
_GROUPED = re.compile(r"^(?:\+|00|0|\()|^\d{3}[-. ]\d{3}[-. ]\d{4}$")
REGIONS = (  # whose national numbers are known
    *("US", "GB", "DE", "FR", "ES", "IT", "NL", "PT", "BR", "AT"),
    *("CH", "BE", "SE", "DK", "NO", "FI", "PL", "IN", "AU", "JP"),
)
_STREET = re.compile(
    r"""(?x)
    \b\d{1,5}[A-Za-z]?,?\ (?:[NSEW]\.?\ )?(?:[A-Z][\w'’.-]*\ ){1,4}
        (?:Street|St\.?|Road|Rd\.?|Avenue|Ave\.?|Lane|Ln\.?|Drive|Dr\.?|Boulevard|Blvd\.?|Court|Ct\.?|Close|Way|Place|Pl\.?
           |Square|Terrace|Crescent|Parkway|Highway)\b(?:,?\ (?:Apt|Suite|Unit|Flat|No)\.?\ ?\#?\w{1,6})?
    | \b[A-ZÄÖÜ][\wäöüß.-]*(?:straße|strasse|str\.|weg|platz|allee|gasse|ufer|damm|straat|laan|plein|gracht|gatan|vägen
           |vej|veien|katu|tie)
        \ \d{1,4}\ ?[a-zA-Z]?\b
    | \b[A-ZÄÖÜ][\wäöüß-]+(?:er|e|en)\ (?:Straße|Strasse|Str\.|Weg|Platz|Allee|Gasse|Ufer|Damm)\ \d{1,4}\ ?[a-zA-Z]?\b
    | \b\d{1,4}(?:\ ?(?:bis|ter))?,?\ (?:rue|avenue|boulevard|chemin|allée|impasse|quai|route)\ (?:[\w'’-]+\ ?){1,5}
    | \b(?:Calle|Avenida|Avda\.|Plaza|Paseo|Via|Viale|Piazza|Corso|Rua|Travessa|Largo|ul\.|ulica|ул\.|улица)
        \ (?:[\w'’.-]+\ ){0,4}[\w'’.-]+,?\ (?:n[º°.]?\ ?)?\d{1,5}\b
    | \b[Pp]\.?\ ?[Oo]\.?\ ?[Bb]ox\ \d{1,7}\b | \bPostfach\ \d[\d\ ]{1,8}\b
    | \b[A-Z]{1,2}\d[A-Z\d]?\ \d[A-Z]{2}\b
    | \b(?:D|A|CH|F|NL|B)-\d{4,5}\ [A-ZÄÖÜ][\wäöüß-]+
    | \b[A-Z][a-z]+,\ [A-Z]{2}\ \d{5}(?:-\d{4})?\b
    """
)
_TOWN = re.compile(r"^(,?\s{0,2}\b\d{4,5} [A-ZÄÖÜÉ][\wäöüßéè-]+)")  # behind a street
_HELLO = (
    r"(?:hi|hello|hey|dear|hallo|liebe[rs]?|guten (?:tag|morgen)|sehr geehrte[rs]?|bonjour|salut|chère?|cher|hola"
    r"|querid[oa]|estimad[oa]|ciao|car[oa]|olá|oi|beste|hoi|hej|hei|cześć|ahoj|привет|dzień dobry)"
)
_GREETED = re.compile(
    rf"(?mi)^\s*{_HELLO}(?: (?:mr|mrs|ms|dr|herr|frau|m|mme|prof)\.?)?"
    r"((?:,? (?:and|und|et|y|e|en|och|og|&)? ?[^\W\d_][\w'’-]+){1,4})\s*[,!.:–-]?\s*$"
)
_NO_NAME = re.compile(  # what is greeted, and is no name
    r"(?:all|every(?:one|body)|team|there|folks|guys|both|again|friends|sir|madam|zusammen|alle|ihr|leute|damen|herren|tous"
    r"|toutes|todos|tutti|allen|allemaal|alla|and|und|et|the|dear|lieber?|well|too|you|world)$",
    re.IGNORECASE,
)


@dataclass
class Mask:
    """names: words to mask too. shown: what stands in the place of what is masked."""

    names: Collection[str] = ()
    shown: Shown = lambda kind, _: f"[{kind}]"
    counts: Counter[str] = field(default_factory=Counter)

    def __call__(self, text: str) -> str:
        """Return a text with its phone numbers, addresses, links and names replaced, and count them by kind."""
        for kind, find in (("link", _links), ("email", _emails), ("address", _addresses), ("phone", _phones)):
            text = self._replaced(text, kind, find(text))
        return self._replaced(text, "name", _names(text, self.names)) if self.names else text

    def _replaced(self, text: str, kind: str, spans: Iterator[tuple[int, int]]) -> str:
        pieces, at = [], 0
        for start, end in spans:
            pieces += [text[at:start], self.shown(kind, text[start:end])]
            self.counts[kind] += 1
            at = end
        return "".join([*pieces, text[at:]])


def without_links(text: str) -> str:
    """Return a text without the links that are masked."""
    return _URL.sub(lambda match: "" if _opens_something(match[0]) else match[0], text)


def _links(text: str) -> Iterator[tuple[int, int]]:
    for match in _URL.finditer(text):
        if _opens_something(match[0]):
            yield match.span()


def _opens_something(url: str) -> bool:
    """Whether a link has credentials in it, or is one: whoever has it gets in."""
    try:
        parts = urlsplit(url)
        named = "@" in parts.netloc
    except ValueError:  # half an IPv6 address
        return "@" in url
    return (
        named
        or bool(_GIVES_ACCESS.search(f"?{parts.query}#{parts.fragment}"))
        or any(map(is_random, re.split(r"[/?&=#;:.]", url)))
    )


def _emails(text: str) -> Iterator[tuple[int, int]]:
    return (match.span() for match in _EMAIL.finditer(text))


def _addresses(text: str) -> Iterator[tuple[int, int]]:
    at = 0
    for match in _STREET.finditer(text):
        if match.start() >= at:
            town = _TOWN.match(text[match.end() : match.end() + 60])
            at = match.end() + (town.end() if town else 0)
            yield match.start(), at


def _phones(text: str) -> Iterator[tuple[int, int]]:
    for match in _PHONE.finditer(text):
        number = match[0].strip()
        digits = sum(map(str.isdigit, number))
        if 7 <= digits <= 15 and not _NO_PHONE.fullmatch(number) and _GROUPED.search(number) and _is_phone(number):
            yield match.span()


def _is_phone(number: str) -> bool:
    phonenumbers = imported("phonenumbers")
    for region in REGIONS:
        try:
            if phonenumbers.is_possible_number(phonenumbers.parse(number, region)):
                return True
        except phonenumbers.NumberParseException:
            pass
    return False


def greeted_names(text: str) -> set[str]:
    """Return the names that a text greets in its first lines."""
    words = (word for match in _GREETED.finditer(text[:300]) for word in re.findall(r"[^\W\d_][\w'’-]+", match[1]))
    return {word for word in words if word[0].isupper() and not _NO_NAME.match(word)}


def _names(text: str, names: Collection[str]) -> Iterator[tuple[int, int]]:
    known = {name.casefold() for name in names}
    for match in re.finditer(r"[^\W\d_][\w'’-]*", text):
        word = re.sub(r"['’]s?$", "", match[0])
        if word[0].isupper() and word.casefold() in known:
            yield match.start(), match.start() + len(word)
