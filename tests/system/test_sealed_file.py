"""Sealed files: what was written comes back, and nothing else does."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dps_local.system.sealed_file import DIGEST, PIECE, load_sealed, save_sealed

SIZES = (0, 1, PIECE, PIECE + 1, 3 * PIECE)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file"


def some(size: int) -> bytes:
    return np.random.default_rng(size).bytes(size)


@pytest.mark.parametrize("size", SIZES)
def test_what_was_sealed_comes_back(file: Path, size: int) -> None:
    save_sealed(file, some(size))
    found = load_sealed(file)
    assert found is not None
    assert bytes(found) == some(size)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_seal_is_the_digest_of_the_data_or_of_its_pieces_digests(file: Path) -> None:
    save_sealed(file, some(PIECE))
    assert file.read_bytes() == hashlib.sha256(some(PIECE)).digest() + some(PIECE)
    data = some(2 * PIECE + 5)
    save_sealed(file, memoryview(data))
    parts = (data[:PIECE], data[PIECE : 2 * PIECE], data[2 * PIECE :])
    digests = b"".join(hashlib.sha256(part).digest() for part in parts)
    assert file.read_bytes() == hashlib.sha256(digests).digest() + data


def flipped(at: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "digest": flipped(0),
    "first": flipped(DIGEST),
    "second": flipped(DIGEST + PIECE),
    "last": flipped(-1),
    "shorter": lambda data: data[:-1],
    "longer": lambda data: data + b"\0",
    "a piece less": lambda data: data[: DIGEST + 2 * PIECE],
    "exchanged": lambda data: data[:DIGEST] + data[-PIECE:] + data[DIGEST:-PIECE],
    "half of a digest": lambda data: data[: DIGEST // 2],
    "empty": lambda data: data[:0],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
def test_what_is_damaged_is_as_good_as_missing(file: Path, damage: Callable[[bytes], bytes]) -> None:
    assert load_sealed(file) is None
    save_sealed(file, some(3 * PIECE))
    file.write_bytes(damage(file.read_bytes()))
    assert load_sealed(file) is None
