"""Sealed files: bytes behind their SHA-256, so that what is damaged is as good as missing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path

import numpy as np

from dps_local.system.files import atomic_write

DIGEST = hashlib.sha256().digest_size
PIECE = 1 << 20  # bytes that one processor hashes; of more, the digest is the SHA-256 of the SHA-256s of such pieces


def load_sealed(path: Path) -> memoryview | None:
    """Return what a sealed file holds; None where it is missing or damaged."""
    try:
        with path.open("rb", buffering=0) as file:
            digest = file.read(DIGEST)
            size = os.fstat(file.fileno()).st_size - DIGEST
            data = np.empty(max(0, size), np.uint8).data  # in large pages, which are there sooner
            return data if _digest(_read(file, data), size) == digest else None
    except OSError:
        return None


def save_sealed(path: Path, data: bytes | memoryview) -> None:
    """Write a sealed file, whole or not at all; raises StorageError."""
    with atomic_write(path) as stream:
        stream.write(_digest(_pieces(memoryview(data)), len(data)))
        stream.write(data)


def _read(file: FileIO, data: memoryview) -> Iterator[memoryview]:
    """Fill data with what is in a file, and yield each piece as soon as it is there."""
    for piece in _pieces(data):
        file.readinto(piece)
        yield piece


def _pieces(data: memoryview) -> Iterator[memoryview]:
    return (data[i : i + PIECE] for i in range(0, len(data), PIECE))


def _digest(pieces: Iterator[memoryview], size: int) -> bytes:
    if size <= PIECE:
        return hashlib.sha256(b"".join(pieces)).digest()
    with ThreadPoolExecutor() as pool:  # which begins with a piece while the next one is read
        return hashlib.sha256(b"".join(pool.map(_sha256, pieces))).digest()


def _sha256(piece: memoryview) -> bytes:
    return hashlib.sha256(piece).digest()
