"""`Harvest`: what several sources gave for one profile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from dps_local.errors import DataError
from dps_local.importing.cleaning import Cleaning, Rules
from dps_local.importing.format import Format
from dps_local.importing.formats import nothing_found, propose_person
from dps_local.prompting.profile import HistoryItem

Source = tuple[Path, Format]


@dataclass(frozen=True)
class Row:
    """What one source gave. found: texts of the person's own. kept: those that were clean."""

    source: Path
    format: str
    found: int
    kept: int
    first: str = ""  # day of the oldest and of the newest text, "" where no date is known
    last: str = ""


@dataclass(frozen=True)
class Harvest:
    rows: list[Row]
    cleaning: Cleaning
    items: list[HistoryItem]
    dropped: Counter[str]


@dataclass(frozen=True)
class Reading:
    """What was read. dropped: what is not the person's own, by kind."""

    rows: list[Row]
    cleaning: Cleaning
    dropped: Counter[str]

    def harvest(self) -> Harvest:
        """Clean all of it together. Raises DataError where nothing is left."""
        items = self.cleaning.items()
        dropped = self.dropped + self.cleaning.dropped
        if not items:
            counts = ", ".join(f"{kind} {n}" for kind, n in dropped.most_common())
            n_texts = sum(row.found for row in self.rows)
            raise DataError(f"nothing is left of {n_texts} texts ({counts}): no profile was written")
        return Harvest(self.rows, self.cleaning, items, dropped)


def find_person(sources: Sequence[Source]) -> list[str]:
    """Return who the person is, from who wrote in the sources; raises DataError where that is not clear."""
    return propose_person([(path, known.authors(path)) for path, known in sources])


def read_sources(sources: Sequence[Source], me: Collection[str], rules: Rules) -> Reading:
    """Read what the person wrote in all sources; raises DataError where a source holds nothing of theirs."""
    cleaning, foreign = Cleaning(rules), Counter[str]()
    return Reading([_row(path, known, me, cleaning, foreign) for path, known in sources], cleaning, foreign)


def _row(path: Path, known: Format, me: Collection[str], cleaning: Cleaning, foreign: Counter[str]) -> Row:
    found = kept = 0
    days: list[str] = []
    for writing in known.read(path, me, foreign):
        found += 1
        if cleaning.add(writing):
            kept += 1
            days += [writing.date[:10]] if writing.date else []
    if not found:
        raise nothing_found(path, known, me, known.authors(path))
    return Row(path, known.name, found, kept, min(days, default=""), max(days, default=""))
