"""What the program has of a person on this computer: every file of it, and how all of one profile is removed."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dps_local.conversations.conversation import Conversation
from dps_local.conversations.conversation_store import ConversationStore, default_path
from dps_local.prompting.profile import Profile
from dps_local.system import cache, folders
from dps_local.system.owned_files import FOLDER as OWNERS
from dps_local.system.owned_files import OwnedFiles

CACHED = {"maps": "head map", "scores": "scores", "prefixes": "prefix state", OWNERS: "list of cached files"}
SUFFIXES = {".f32": "slopes", ".learned": "learned map"}  # beside scores and maps
HISTORY = "input history"


@dataclass(frozen=True)
class PrivateFile:
    """bytes: its size. mode: the permissions. modified: seconds since 1970."""

    path: Path
    kind: str
    bytes: int
    mode: int
    modified: float

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "path": str(self.path), "mode": f"{self.mode:04o}"}


def private_files() -> list[PrivateFile]:
    """Return every file that the program has of a person: none of a model, and none that the user keeps elsewhere."""
    found = {path: _kind(path) for path in _paths()}
    return [_described(path, kind) for path, kind in sorted(found.items()) if path.is_file()]


def _paths() -> Iterator[Path]:
    for name in CACHED:
        yield from (cache.root() / name).rglob("*")
    for folder in (folders.data_root(), folders.state_root()):
        # on Windows, the cache lies in the folder of data
        yield from (path for path in folder.rglob("*") if not path.is_relative_to(cache.root()))
    yield from (folders.config_file(), folders.profile_file())  # others may keep theirs beside these


def _kind(path: Path) -> str:
    if path.is_relative_to(cache.root()):
        return SUFFIXES.get(path.suffix, CACHED[path.relative_to(cache.root()).parts[0]])
    if path.name.startswith(default_path().name):
        return "conversations"
    if path == folders.history_file():
        return HISTORY
    if path == folders.config_file():
        return "settings"
    return "profile" if path.suffix == ".json" else "other"


def _described(path: Path, kind: str) -> PrivateFile:
    status = path.stat()
    return PrivateFile(path, kind, status.st_size, stat.S_IMODE(status.st_mode), status.st_mtime)


@dataclass(frozen=True)
class Traces:
    """What the program has of one profile. files: in the cache, the input history, which is everyone's, and the
    profile itself where it lies in a folder of the program.
    """

    files: list[PrivateFile]
    conversations: list[Conversation]

    def __bool__(self) -> bool:
        return bool(self.conversations) or any(file.kind != HISTORY for file in self.files)

    @classmethod
    def of(cls, profile: Path) -> Traces:
        """Find the traces of the profile at a path, which may be gone."""
        owned = OwnedFiles(Profile(path=profile).identity)
        named = {*owned.files(), owned.path, folders.history_file()}
        files = [file for file in private_files() if file.path in named or file.path.resolve() == profile]
        conversations = []
        if default_path().is_file():
            with ConversationStore() as store:
                conversations = [c for c in store.all() if c.setup.person == str(profile)]
        return cls(files, conversations)

    def remove(self) -> None:
        """Remove all of it, conversations so that no word is left in their file."""
        for file in self.files:
            file.path.unlink(missing_ok=True)
        if default_path().is_file():
            with ConversationStore() as store:
                store.remove(self.conversations)
