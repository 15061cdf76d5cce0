"""`merged`: several profiles of one person as one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from dps_local.prompting.profile import LONG_AGO, HistoryItem, Profile


@dataclass(frozen=True)
class Merged:
    """duplicates: how many history items were left out, as another one says the same."""

    profile: Profile
    duplicates: int


def merged(profiles: Sequence[Profile]) -> Merged:
    """Return what profiles say, each thing once; name and about are those of the first that has one.

    History is oldest first: an item without a date keeps its place behind the one before it in its own profile.
    """
    ordered = sorted((one for profile in profiles for one in _timed(profile.history)), key=lambda one: one[0])
    items = unique(item for _, item in ordered)
    profile = Profile(
        name=next((p.name for p in profiles if p.name), ""),
        about=next((p.about for p in profiles if p.about), ""),
        preferences=tuple(dict.fromkeys(wish for p in profiles for wish in p.preferences)),
        history=tuple(items),
    )
    return Merged(profile, len(ordered) - len(items))


def gist(text: str) -> str:
    """Return what is the same for texts that differ in white space alone."""
    return " ".join(text.split())


def unique(items: Iterable[HistoryItem]) -> list[HistoryItem]:
    """Return the first of the items that say the same, with what it lacks and another one knows.

    A model's words stay a model's, even where the person sent them as their own.
    """
    found: dict[str, HistoryItem] = {}
    for item in items:
        first = found.setdefault(gist(item.output), item)
        lacking = [key for key in ("input", "rejected", "source", "date") if not getattr(first, key)]
        added = {key: getattr(item, key) for key in lacking}
        found[gist(item.output)] = replace(first, **added, kind=first.kind if item.own else item.kind)
    return list(found.values())


def _timed(items: Iterable[HistoryItem]) -> Iterable[tuple[datetime, HistoryItem]]:
    time = LONG_AGO
    for item in items:
        time = item.time or time
        yield time, item
