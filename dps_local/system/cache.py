"""Where the cache lies, and who may look into it. The build (patches/prepare.py) loads this file by itself."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import platformdirs


def root() -> Path:
    """Return the cache: `$DPS_LOCAL_CACHE` if that is set, otherwise the platform's cache folder for dps-local."""
    return chosen("DPS_LOCAL_CACHE", platformdirs.user_cache_path("dps-local"))


def chosen(variable: str, default: Path) -> Path:
    """Return the path that an environment variable names, where it is set and not empty."""
    path = os.environ.get(variable)
    return Path(path).expanduser() if path else default


def make(name: str) -> Path:
    """Return the folder `name` of the cache, mode 0700 as the cache's own, made if missing. Raises OSError.

    A folder that is there stays as it is, as a chosen one may be shared; the platform's own is closed to others.
    """
    folder = root()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.environ.get("DPS_LOCAL_CACHE") and sys.platform != "win32":
        status = folder.lstat()  # not what a link leads to: that is someone's choice, too
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and status.st_mode & 0o077:
            folder.chmod(0o700)
    (folder / name).mkdir(mode=0o700, exist_ok=True)
    return folder / name
