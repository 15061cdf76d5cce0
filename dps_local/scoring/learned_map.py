"""`LearnedMap`: the head map that steers a person's chats while their profile grows, until a better one is learned."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dps_local.errors import HeadMapError, StateError
from dps_local.maps.calibration import Calibration
from dps_local.maps.head_map import HeadMap
from dps_local.prompting.profile import Profile
from dps_local.scoring.cached_map import CachedMap
from dps_local.system.files import atomic_write
from dps_local.system.progress import Notice, Progress


@dataclass(frozen=True)
class _Record:
    """map, earlier: names of files beside this one. items: digests of the person's own items then."""

    map: str
    earlier: str | None
    items: list[str]


@dataclass(frozen=True)
class Lesson:
    """What learning found. new, gone: own items. before: what steering by the map before was worth.

    replaced: whether the new map steers from now on. helps: whether the one that does is shown to help.
    """

    new: int
    gone: int
    now: Calibration | None
    before: Calibration | None
    replaced: bool
    first: bool = False

    @property
    def helps(self) -> bool:
        used = self.now if self.replaced else self.before
        return bool(used and used.helps)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "helps": self.helps}


@dataclass(frozen=True)
class LearnedMap:
    """Maps of one person, model and options. A map is cached by all that the profile says, and a record says by name
    which one is in use: so it stays in use when the profile changes.
    """

    own: CachedMap

    @property
    def path(self) -> Path:
        return self.own.file(self._profile.identity, "learned")

    @property
    def _profile(self) -> Profile:
        return self.own.prompter.profile

    def load(self, notice: Notice = lambda _: None) -> HeadMap | None:
        """Return the map, None where none was learned; notice: is told of items that it was not learned from."""
        record = self._record() if self.own.options.resume else None
        head_map = self._map(record.map) if record else None
        if record and head_map and (new := len(set(self._items()) - set(record.items))):
            notice(f"the head map was learned before {new} of your texts: `dps-local learn` scores them")
        return head_map

    @property
    def of_another_profile(self) -> bool:
        """Whether a map is in use that was made when the profile was another."""
        record = self._record()
        return bool(record and record.map != self.own.path.name and self._map(record.map))

    def begin(self) -> None:
        """Let the map of the profile as it is stay in use when the profile changes, unless one was learned."""
        if self._record() is None and self.own.load():
            self._write(_Record(self.own.path.name, None, self._items()))

    def learn(self, progress: Progress | None = None, notice: Notice | None = None) -> Lesson | None:
        """Score what is new, and use the map that comes of it where it is shown to be no worse; None: nothing is new.

        Both were calibrated on items that had no part in the steering that was tried on them; `no_worse` compares what
        came of that. Answers that were kept are not the person's own: they are no reason to learn, nor evidence.
        """
        record, items = self._record(), self._items()
        before = self._map(record.map) if record else None
        if record and before and record.items == items:
            return None
        found = self.own.load_or_score(progress, notice)
        name, known = self.own.path.name, set(record.items) if record else set[str]()
        if record is None or before is None:
            self._write(_Record(name, None, items))
            return Lesson(len(items), 0, found.calibration, None, replaced=True, first=True)
        replaced = no_worse(found.calibration, before.calibration)
        if replaced and name != record.map:
            self._write(_Record(name, record.map, items))
        else:
            self._write(replace(record, items=items))
        new, gone = len(set(items) - known), len(known - set(items))
        return Lesson(new, gone, found.calibration, before.calibration, replaced)

    def undo(self) -> HeadMap:
        """Use the map before the last one that was learned, and return it; it is as it was, bit for bit.

        Raises StateError where there is none. What was learned from is not learned from again before something is new.
        """
        record = self._record()
        if record is None or record.earlier is None:
            raise StateError("there is no earlier head map to go back to")
        if (earlier := self._map(record.earlier)) is None:
            raise StateError("the earlier head map is no longer in the cache")
        self._write(_Record(record.earlier, None, record.items))
        return earlier

    def _items(self) -> list[str]:
        """Return a digest of each of the person's own items, sorted."""
        own = (self._profile.history[i] for i in self._profile.own_items())
        texts = ([item.input, item.output, item.rejected] for item in own)
        return sorted({hashlib.sha256(json.dumps(text).encode()).hexdigest() for text in texts})

    def _map(self, name: str) -> HeadMap | None:
        try:
            return HeadMap.load(self.path.with_name(name))
        except HeadMapError:
            return None

    def _record(self) -> _Record | None:
        """Return the record; None where there is none, it is damaged, or of someone else who had this file's name."""
        try:
            record = _Record(**json.loads(self.path.read_text()))
            return record if set(record.items) & set(self._items()) else None
        except (OSError, ValueError, TypeError):
            return None

    def _write(self, record: _Record) -> None:
        self._profile.cached.note([self.path])
        with atomic_write(self.path) as stream:
            stream.write(json.dumps(asdict(record)).encode())


def no_worse(new: Calibration | None, before: Calibration | None) -> bool:
    """Whether steering is shown to be worth as much: first that it helps, and then the lower bound of its gain."""

    def shown(one: Calibration | None) -> tuple[bool, float]:
        return (one.helps, one.low) if one else (False, -math.inf)

    return shown(new) >= shown(before)
