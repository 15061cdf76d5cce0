"""`Profile`: what a user wrote and prefers, read from JSON."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from json.decoder import JSONDecoder
from pathlib import Path
from typing import Any, Literal, cast, get_args

from dps_local.errors import ProfileError
from dps_local.system.files import StrPath, atomic_write
from dps_local.system.owned_files import OwnedFiles
from dps_local.system.progress import Notice

EXAMPLES = Path(__file__).parent / "examples"
_SPACE = re.compile(r"[ \t\n\r]*")
Kind = Literal["wrote", "edited", "kept"]
LONG_AGO = datetime.min.replace(tzinfo=UTC)  # before all that has a date


@dataclass(frozen=True)
class HistoryItem:
    """One thing the user wrote, edited, or (a model's answer) kept, and what it was written for.

    source: where it was found. date: ISO 8601, '' where it is not known.
    """

    output: str
    input: str = ""
    rejected: str = ""  # an answer to the same input that the user did not keep
    source: str = ""
    date: str = ""
    kind: Kind = "wrote"

    @property
    def own(self) -> bool:
        """Whether these are the user's own words, which alone say how they write."""
        return self.kind != "kept"

    @property
    def time(self) -> datetime | None:
        """When it was written, None where that is not known."""
        return time_of(self.date)

    def as_json(self) -> dict[str, str]:
        """Return what a profile's file says of it: nothing of what is empty or goes without saying."""
        item = {key: getattr(self, key) for key in ITEM_KEYS}
        return {key: value for key, value in item.items() if value and (key, value) != ("kind", "wrote")}


def time_of(date: str) -> datetime | None:
    """Return the time of an ISO 8601 text, None for ''; without a time zone it is taken for UTC."""
    time = datetime.fromisoformat(date) if date else None
    return time.replace(tzinfo=UTC) if time and time.tzinfo is None else time


ITEM_KEYS = ("input", "output", "rejected", "source", "date", "kind")  # in the order of a file


@dataclass(frozen=True)
class Profile:
    """A user: history is oldest first. path: of the file it was read from; it is no part of the content."""

    name: str = ""
    about: str = ""
    preferences: tuple[str, ...] = ()
    history: tuple[HistoryItem, ...] = ()
    path: Path | None = field(default=None, compare=False)

    @classmethod
    def load(cls, name_or_path: StrPath) -> Profile:
        """Read a profile from a JSON file, or one of the shipped examples by its name (nell, mara, idris, odile).

        Raises ProfileError that names the field and the line.
        """
        path, text = read_profile(os.fspath(name_or_path))
        try:
            return replace(parse_profile(text), path=path.resolve())
        except ProfileError as exc:
            raise ProfileError(f"{path}: {exc}") from exc

    def own_items(self, newest: int | None = None) -> list[int]:
        """Return the numbers of the history items that are evidence of how the user writes, oldest first.

        newest: so many at most. A model's answer that they kept may be shown to the model, and is no such evidence.
        """
        own = [i for i, item in enumerate(self.history) if item.own]
        return own if newest is None else own[max(0, len(own) - newest) :]

    def as_json(self) -> dict[str, Any]:
        """Return the content as a file has it, without what is empty."""
        content = {
            "name": self.name,
            "about": self.about,
            "preferences": list(self.preferences),
            "history": [item.as_json() for item in self.history],
        }
        return {key: value for key, value in content.items() if value}

    def save(self, path: StrPath) -> None:
        """Write it as JSON, whole or not at all, for its owner's eyes only; raises StorageError."""
        with atomic_write(path) as stream:  # piece by piece: an import may be large
            for piece in json.JSONEncoder(ensure_ascii=False, indent=2).iterencode(self.as_json()):
                stream.write(piece.encode(errors="replace"))  # lone surrogates, as in parsing
            stream.write(b"\n")

    def digest(self) -> str:
        """Return a SHA-256 of what prompts and scores are made of, whatever the file looked like.

        Where an item comes from is no part of it, nor whether the user edited it: only that it is not their own.
        """
        content = asdict(self)
        del content["path"]
        for item, known in zip(content["history"], self.history, strict=True):
            del item["source"], item["date"], item["kind"]
            if not known.own:
                item["kind"] = known.kind
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def identity(self) -> list[str]:
        """What tells this profile from others, whatever is added to it: its file, else its name and first words."""
        return [str(self.path)] if self.path else [self.name, *(item.output for item in self.history[:1])]

    @property
    def own_file(self) -> Path:
        """The file, where it is the person's own to change; raises ProfileError where there is none."""
        if self.path is None:
            raise ProfileError("the profile was not read from a file")
        return own_file(self.path)

    @property
    def cached(self) -> OwnedFiles:
        """The cached files that were made of it."""
        return OwnedFiles(self.identity)


def read_profile(name: str) -> tuple[Path, str]:
    """Return where the file or the shipped example of this name lies, and what it holds, valid or not.

    Raises ProfileError where it cannot be read.
    """
    path = Path(name)
    try:
        path = path.expanduser()
        if name in examples() and not path.exists():
            path = EXAMPLES / f"{name}.json"
        return path, path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as exc:
        raise ProfileError(f"no profile {name!r}: give a JSON file or one of {', '.join(examples())}") from exc
    except IsADirectoryError as exc:
        raise ProfileError(f"{path} is a folder: give the path of a profile (JSON)") from exc
    except UnicodeDecodeError as exc:
        raise ProfileError(f"{path} is not UTF-8 text (byte {exc.start}): save it as UTF-8") from exc
    except (OSError, RuntimeError, ValueError) as exc:  # too long a name, no such home folder, a NUL byte
        raise ProfileError(f"cannot read the profile {name[:80]!r}: {getattr(exc, 'strerror', exc)}") from exc


def own_file(path: Path) -> Path:
    """Return the path of a profile that is the person's own to change; raises ProfileError for a shipped example."""
    if path.resolve().parent == EXAMPLES.resolve():
        copy = f"`dps-local profile merge {path.stem} -o FILE` copies it"
        raise ProfileError(f"{path.stem} is an example that ships: {copy}")
    return path


def load_people(paths: Iterable[Path], notice: Notice = lambda _: None) -> list[Profile]:
    """Read profiles, folders of them, and files with a profile a line (.jsonl); a profile that comes twice counts once.

    notice: as in `load_profiles`. Raises ProfileError that names the file, the line and the field.
    """
    people: list[Profile] = []
    for path in paths:
        if path.is_dir():
            people += load_profiles(path, notice)
        elif path.suffix == ".jsonl":
            people += _load_lines(path)
        else:
            people.append(Profile.load(path))
    return list({person.digest(): person for person in people}.values())


def _load_lines(path: Path) -> Iterator[Profile]:
    path, text = read_profile(os.fspath(path))
    for number, line in enumerate(text.split("\n"), 1):  # JSON may have other line breaks in its strings
        if line.strip():
            try:
                yield parse_profile(line, number)
            except ProfileError as exc:
                raise ProfileError(f"{path}: {exc}") from exc


def load_profiles(folder: Path, notice: Notice = lambda _: None) -> list[Profile]:
    """Read every profile (*.json) of a folder, in the order of their names; raises ProfileError where there is none.

    notice: is told what other files are left out, and why.
    """
    profiles = []
    for file in sorted(folder.expanduser().glob("*.json")):
        try:
            profiles.append(Profile.load(file))
        except ProfileError as exc:
            notice(f"left out: {exc}")
    if not profiles:
        raise ProfileError(f"no profile in {folder}: give a folder of JSON files")
    return profiles


def examples() -> list[str]:
    """Return the names of the profiles that ship with the package."""
    return sorted(p.stem for p in EXAMPLES.glob("*.json"))


def parse_profile(text: str, line: int = 1) -> Profile:
    """Validate the JSON `text` of a profile; line: the number of its first line in its file."""
    try:
        return _Parser(text, line).profile(json.loads(text))
    except json.JSONDecodeError as exc:
        raise ProfileError(f"line {line + exc.lineno - 1}: not valid JSON: {exc.msg} (column {exc.colno})") from exc
    except RecursionError as exc:
        raise ProfileError("nested too deeply for a profile") from exc
    except ValueError as exc:
        raise ProfileError(f"not valid JSON: {exc}") from exc  # a number of thousands of digits


class _Parser:
    def __init__(self, text: str, line: int) -> None:
        self.text, self.line = text, line

    def fail(self, path: Sequence[str | int], problem: str) -> ProfileError:
        (newlines,) = newlines_before(self.text, [path])
        return ProfileError(f"line {self.line + newlines}: {field_name(path)} {problem}")

    def profile(self, data: Any) -> Profile:
        self.mapping((), data, ("name", "about", "preferences", "history"))
        profile = Profile(
            self.string(("name",), data.get("name", "")),
            self.string(("about",), data.get("about", "")),
            tuple(self.string(("preferences", i), p, filled=True) for i, p in self.list(("preferences",), data)),
            tuple(self.item(("history", i), item) for i, item in self.list(("history",), data)),
        )
        if not profile.preferences and not profile.history:
            raise self.fail((), "needs 'history' or 'preferences' with at least one entry")
        return profile

    def item(self, path: tuple[str | int, ...], data: Any) -> HistoryItem:
        self.mapping(path, data, ITEM_KEYS)
        if "output" not in data:
            raise self.fail(path, "lacks 'output', the user's own words")
        return HistoryItem(
            self.string((*path, "output"), data["output"], filled=True),
            self.string((*path, "input"), data.get("input", "")),
            self.string((*path, "rejected"), data.get("rejected", "")),
            self.string((*path, "source"), data.get("source", "")),
            self.date((*path, "date"), data.get("date", "")),
            self.kind((*path, "kind"), data.get("kind", "wrote")),
        )

    def date(self, path: tuple[str | int, ...], value: Any) -> str:
        date = self.string(path, value)
        try:
            if date:
                datetime.fromisoformat(date)
        except ValueError as exc:
            problem = "is not a date of ISO 8601, such as 2026-05-31 or 2026-05-31T18:05:00+02:00"
            raise self.fail(path, problem) from exc
        return date

    def kind(self, path: tuple[str | int, ...], value: Any) -> Kind:
        if (kind := self.string(path, value)) not in get_args(Kind):
            raise self.fail(path, "must be 'wrote', 'edited' or 'kept'")
        return cast(Kind, kind)

    def mapping(self, path: tuple[str | int, ...], data: Any, keys: tuple[str, ...]) -> None:
        if not isinstance(data, dict):
            raise self.fail(path, f"must be an object, not {_kind(data)}")
        for key in data:
            if key not in keys:
                raise self.fail((*path, key), f"is not a known key: expected {', '.join(keys)}")

    def list(self, path: tuple[str], data: dict[str, Any]) -> enumerate[Any]:
        value = data.get(path[0], [])
        if not isinstance(value, list):
            raise self.fail(path, f"must be a list, not {_kind(value)}")
        return enumerate(value)

    def string(self, path: tuple[str | int, ...], value: Any, *, filled: bool = False) -> str:
        if not isinstance(value, str):
            raise self.fail(path, f"must be a string, not {_kind(value)}")
        if filled and not value.strip():
            raise self.fail(path, "is empty")
        return value.encode(errors="replace").decode()  # lone surrogates cannot be tokenized


def field_name(path: Sequence[str | int]) -> str:
    """Return what an error calls the value at `path`, such as history[3].output."""
    return "".join(f"[{p}]" if isinstance(p, int) else f".{_printable(p)}" for p in path).lstrip(".") or "the profile"


def _printable(key: str) -> str:
    return key if key.isprintable() else json.dumps(key)[1:-1]


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def newlines_before(text: str, paths: Iterable[Sequence[str | int]]) -> list[int]:
    """Return how many lines of the valid JSON `text` end before the values at `paths` start."""
    members = functools.cache(lambda position: dict(_members(text, position)))
    found = []
    for path in paths:
        position = _skip(text, 0)
        for key in path:
            position = members(position)[key]
        found.append(text.count("\n", 0, position))
    return found


def _members(text: str, position: int) -> list[tuple[str | int, int]]:
    """Return (key or index, start of the value) of each member of the object or list at `position`."""
    decoder, is_object = JSONDecoder(), text[position] == "{"
    members: list[tuple[str | int, int]] = []
    position = _skip(text, position + 1)
    while text[position] not in "]}":
        key: str | int = len(members)
        if is_object:
            key, position = decoder.raw_decode(text, position)
            position = _skip(text, _skip(text, position) + 1)
        members.append((key, position))
        position = _skip(text, decoder.raw_decode(text, position)[1])
        if text[position] == ",":
            position = _skip(text, position + 1)
    return members


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    assert match is not None
    return match.end()
