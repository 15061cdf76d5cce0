"""Sealed files: bytes behind their SHA-256, so that what is damaged is as good as missing."""

from __future__ import annotations

import hashlib
from pathlib import Path

from dps_local.system.files import atomic_write

DIGEST = hashlib.sha256().digest_size


def load_sealed(path: Path) -> memoryview | None:
    """Return what a sealed file holds; None where it is missing or damaged."""
    try:
        data = memoryview(path.read_bytes())
    except OSError:
        return None
    return data[DIGEST:] if hashlib.sha256(data[DIGEST:]).digest() == data[:DIGEST] else None


def save_sealed(path: Path, data: bytes) -> None:
    """Write a sealed file, whole or not at all; raises StorageError."""
    with atomic_write(path) as stream:
        stream.write(hashlib.sha256(data).digest())
        stream.write(data)
