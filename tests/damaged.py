"""Files that were cut off or changed: what every reader of files is tried with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def cut_anywhere(path: Path) -> Iterator[Path]:
    """Leave ever more of a file; zeros at its end are padding, and what lacks only these is whole."""
    whole = path.read_bytes()
    for n in range(len(whole.rstrip(b"\0")) - 2):
        path.write_bytes(whole[:n])
        yield path


def with_one_byte_changed(path: Path) -> Iterator[Path]:
    """Turn round all bits of one byte of a file after another."""
    whole = bytearray(path.read_bytes())
    for n in range(len(whole)):
        changed = whole.copy()
        changed[n] ^= 0xFF
        path.write_bytes(changed)
        yield path
