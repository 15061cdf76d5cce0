"""`OwnedFiles`: which cached files were made of one person's texts. They are named by hashes of what is in them."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dps_local.system import cache

FOLDER = "owners"
_NAME = re.compile(r"(maps|scores|prefixes)/[0-9a-f]{32}(\.\w+)+")


@dataclass(frozen=True)
class OwnedFiles:
    """A list in the cache, one name a line, under a hash of whose they are: of a profile's `identity`.

    A file is noted by every run that makes or uses it, so that it is known even when the profile was moved.
    """

    whose: Sequence[str]

    @property
    def path(self) -> Path:
        name = hashlib.sha256(json.dumps(list(self.whose)).encode()).hexdigest()[:32]
        return cache.root() / FOLDER / f"{name}.txt"

    def files(self) -> list[Path]:
        """Return the files, there or not, without the list itself."""
        return [cache.root() / name for name in sorted(self._names())]

    def _names(self) -> set[str]:
        try:
            lines = self.path.read_text(errors="replace").splitlines()
        except OSError:
            return set()
        return {line for line in lines if _NAME.fullmatch(line)}  # a killed program may have written half of one

    def note(self, files: Iterable[Path]) -> None:
        """Add files that are not noted yet, best before they are written; where nothing can be, they cannot either."""
        new = {file.relative_to(cache.root()).as_posix() for file in files} - self._names()
        if not new:
            return
        with suppress(OSError):
            cache.make(FOLDER)
            with os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w") as stream:
                stream.write("".join(f"\n{name}\n" for name in sorted(new)))
