"""`profile_warnings`: what is valid in a profile, and of no use to scoring."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dps_local.prompting.merging import gist
from dps_local.prompting.profile import Profile, field_name, newlines_before
from dps_local.prompting.profile_summary import n_words
from dps_local.scoring.intervals import FEWEST

FEWEST_WORDS = 3  # of an item that says something of how a person writes

Place = tuple[str | int, ...]


@dataclass(frozen=True)
class ProfileWarning:
    """field: such as history[3].output. line: of the file, from 1."""

    line: int
    field: str
    problem: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.field} {self.problem}"


def profile_warnings(profile: Profile, text: str) -> list[ProfileWarning]:
    """Return what to mend in a valid profile, in the order of its JSON `text`."""
    found = [*_of_history(profile), *_of_items(profile)]
    lines = newlines_before(text, [place for place, _ in found])
    warnings = [ProfileWarning(1 + n, field_name(place), said) for n, (place, said) in zip(lines, found, strict=True)]
    return sorted(warnings, key=lambda warning: warning.line)


def _of_history(profile: Profile) -> Iterator[tuple[Place, str]]:
    n = len(profile.own_items())
    if not profile.history:
        yield (), "has no history: heads are scored on what you wrote"
    elif n < FEWEST:
        own = f"{n} text{'s' * (n != 1)} of your own"
        yield ("history",), f"has {own}: it takes {FEWEST} to find out whether steering helps"


def _of_items(profile: Profile) -> Iterator[tuple[Place, str]]:
    first: dict[str, int] = {}
    newest = None
    for i, item in enumerate(profile.history):
        place, same = ("history", i), first.setdefault(gist(item.output), i)
        if same != i:
            yield (*place, "output"), f"says the same as history[{same}]: leave one out"
        elif n_words(item.output) < FEWEST_WORDS:
            yield (*place, "output"), f"has fewer than {FEWEST_WORDS} words: it says little of how you write"
        if gist(item.rejected) == gist(item.output):
            yield (*place, "rejected"), "is the same as its output: there is nothing to prefer"
        if newest and item.time and item.time < newest:
            yield (*place, "date"), "is before that of an earlier item: history is oldest first"
        newest = max(filter(None, (newest, item.time)), default=None)
