"""Files are replaced whole or not at all; what is cached is for its owner's eyes only."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dps_local import cache
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
    """Return the folder `name` of the cache, mode 0700, made if missing."""
    try:
        return cache.make(name)
    except OSError as exc:
        raise DpsError(f"cannot make the cache folder {cache.root()}: {exc.strerror}") from exc
