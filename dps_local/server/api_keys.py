"""`ApiKeys`: who may ask, and for whose profiles."""

from __future__ import annotations

import hmac
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from dps_local.errors import SettingsError


@dataclass(frozen=True)
class ApiKeys:
    """Keys, and the profiles that each may use; None stands for all of them."""

    keys: dict[str, frozenset[str] | None]

    @classmethod
    def load(cls, path: Path, profiles: set[str]) -> ApiKeys:
        """Read a file with a key a line, and behind it the names of its profiles; with none, it may use all.

        Raises SettingsError where the file is empty, names a profile that is not served, or others may read it.
        """
        try:
            lines = [line.split() for line in path.read_text().splitlines()]
            mode = path.stat().st_mode
        except (OSError, UnicodeDecodeError) as exc:
            raise SettingsError(f"cannot read the keys in {path}: {exc}") from exc
        if sys.platform != "win32" and mode & 0o077:
            raise SettingsError(f"others may read the keys in {path}: run `chmod 600 {path}`")
        keys = {key: frozenset(names) or None for key, *names in filter(None, lines)}
        if not keys:
            raise SettingsError(f"there is no key in {path}: write one a line")
        for names in keys.values():
            if unknown := sorted((names or frozenset()) - profiles):
                raise SettingsError(f"{path} names the profile {unknown[0]}, which is not served: give it by --profile")
        return cls(keys)

    def profiles(self, key: str) -> frozenset[str] | None:
        """Return the profiles of a key, None for all; raises KeyError where there is no such key."""
        given = os.fsencode(key)
        found = [known for known in self.keys if hmac.compare_digest(os.fsencode(known), given)]
        return self.keys[found[0]] if found else self.keys[""]  # no key is empty
