"""Files are replaced whole or not at all; what is cached is for its owner's eyes only."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import platformdirs

from dps_local.errors import DpsError


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Write `path` through a sibling file (mode 0600) that takes its place only when complete.

    An OSError, the caller's own while writing included, becomes a DpsError of one line.
    """
    with _one_line(path):
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".dps-", suffix=".tmp")
        try:
            with os.fdopen(descriptor, "wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise DpsError(f"cannot write {path}: {exc.strerror or exc}") from exc


def cache_folder(name: str) -> Path:
    """Return the folder `name` of the cache, mode 0700, made if missing.

    The cache is `$DPS_LOCAL_CACHE` if that is set, otherwise the platform's cache folder for dps-local.
    """
    chosen = os.environ.get("DPS_LOCAL_CACHE")
    root = Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("dps-local")
    try:
        for folder in (root, root / name):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise DpsError(f"cannot make the cache folder {root}: {exc.strerror}") from exc
    return root / name
