"""The formats that sources are read in, how one is recognised, and who the person is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from dps_local.errors import DataError
from dps_local.importing.chatgpt import ChatGPT
from dps_local.importing.claude import Claude
from dps_local.importing.discord import Discord
from dps_local.importing.format import Format
from dps_local.importing.git import Git
from dps_local.importing.mail import Mail
from dps_local.importing.notes import Notes
from dps_local.importing.signal import Signal
from dps_local.importing.slack import Slack
from dps_local.importing.telegram import Telegram
from dps_local.importing.whatsapp import WhatsApp

# the most particular ones first: a folder is of the first that recognises it
FORMATS: list[Format] = [
    WhatsApp(),
    Telegram(),
    Discord(),
    Slack(),
    Signal(),
    ChatGPT(),
    Claude(),
    Git(),
    Mail(),
    Notes(),
]
MOST_NAMED = 5  # authors in a message


def names() -> list[str]:
    return [known.name for known in FORMATS]


def format_of(source: Path, name: str | None = None) -> Format:
    """Return the format of a source; name: takes it for that one. Raises DataError that says what was looked for."""
    if not source.exists():
        raise DataError(f"there is no {source}: give the file or the folder of an export")
    if not (source.is_file() or source.is_dir()):
        raise DataError(f"{source} is neither a file nor a folder")
    if name:
        return _named(name)
    for known in FORMATS:
        if known.recognises(source):
            return known
    raise DataError(
        f"nothing to import was found in {source}: looked for {'; '.join(known.looked_for for known in FORMATS)}. "
        f"If it is one of these, say which: --format {'|'.join(names())}"
    )


def _named(name: str) -> Format:
    for known in FORMATS:
        if known.name == name:
            return known
    raise DataError(f"no format {name!r}: one of {', '.join(names())}")


def propose_person(sources: Sequence[tuple[Path, Counter[str]]]) -> list[str]:
    """Return who the person is: who alone wrote in a source, or who alone wrote in all of them.

    sources: each with its authors; one without any is the person's own. Raises DataError that names who wrote most.
    """
    authors = [counts for _, counts in sources if counts]
    alone = {next(iter(counts)) for counts in authors if len(counts) == 1}
    others = [counts for counts in authors if len(counts) > 1 and not alone.intersection(counts)]
    if not others:
        return sorted(alone)
    common = set.intersection(*map(set, others))
    if len(common) == 1 and len(others) > 1:
        return sorted(alone | common)
    where = next(source for source, counts in sources if counts in others)
    raise DataError(f"several people wrote in {where}: say who you are, with --me once or more ({most(others[0])})")


def most(authors: Counter[str]) -> str:
    """Return who wrote most, for a message."""
    named = ", ".join(f"{name!r}: {n}" for name, n in authors.most_common(MOST_NAMED))
    return f"{named}, …" if len(authors) > MOST_NAMED else named


def nothing_found(source: Path, known: Format, me: Collection[str], authors: Counter[str]) -> DataError:
    """Return the error that a source holds nothing of the person's own."""
    if authors:
        return DataError(
            f"nothing in {source} is by {' or '.join(map(repr, sorted(me)))}, but by {most(authors)}: "
            "say who you are, with --me"
        )
    return DataError(f"{source} holds no {known.looked_for} with words of yours")
