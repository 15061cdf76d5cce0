from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dps_local.errors import MissingPackageError
from dps_local.importing.json_stream import _Valid, items, values

PIECES = ["\\\\", "\\x1b", "\\x07", "\\n", "a", "x1b", "\\\\\\\\x1b", '\\"', "é"]


class Slow(io.BytesIO):
    """Gives few bytes at a time."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__(data)
        self.size = size

    def read(self, _: int | None = -1) -> bytes:
        return super().read(self.size)


def test_the_values_of_a_list_are_read_one_by_one() -> None:
    assert list(items(io.BytesIO(b'\xef\xbb\xbf[1, {"a": [2]}, "x", 9007199254740993]'))) == [
        1,
        {"a": [2]},
        "x",
        2**53 + 1,
    ]


def test_values_are_found_where_they_are_asked_for() -> None:
    text = b'{"a": {"n": 1, "l": [{"x": 1}, {"x": {"y": 2}}]}, "n": 3, "l": [[], "s"]}'
    assert list(values(io.BytesIO(text), {"a.n", "a.l.item", "l.item", "n"})) == [
        ("a.n", 1),
        ("a.l.item", {"x": 1}),
        ("a.l.item", {"x": {"y": 2}}),
        ("n", 3),
        ("l.item", []),
        ("l.item", "s"),
    ]


@settings(deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=12), st.integers(1, 5))
def test_the_escapes_of_telegram_are_valid_wherever_they_are_cut(pieces: list[str], size: int) -> None:
    text = "".join(pieces)
    stream = _Valid(Slow(f'"{text}"'.encode(), size))
    valid = b"".join(iter(lambda: stream.read(size), b"")).decode()
    plain = {"\\\\": "\\", "\\x1b": "\x1b", "\\x07": "\x07", "\\n": "\n", "\\\\\\\\x1b": "\\\\x1b", '\\"': '"'}
    assert json.loads(valid) == "".join(plain.get(piece, piece) for piece in pieces)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)  # lone surrogates are replaced by ijson
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.lists(JSON, max_size=4), st.integers(1, 50))
def test_what_json_reads_is_read_the_same(value: list[Any], size: int) -> None:
    text = json.dumps(value)
    assert list(items(Slow(text.encode(), size))) == json.loads(text) == value


@pytest.mark.parametrize(
    "text",
    [
        b"[1, 2",
        b"[1,, 2]",
        b'["\xff"]',
        b"[1] 2",
        b"",
        b'["\\q"]',
        b"[NaN]",
        b"[18446744073709551616]",
        b"[" + b"1" * 5000 + b"]",
    ],
)
def test_what_is_damaged_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        list(items(io.BytesIO(text)))
    with pytest.raises(ValueError, match=r"."):
        list(values(io.BytesIO(text), {"item"}))


def test_what_is_nested_too_deeply_is_refused_at_once() -> None:
    assert list(items(io.BytesIO(b"[" * 50 + b"]" * 50)))
    for opening in (b"[", b'{"a":'):
        with pytest.raises(ValueError, match=r"^nested too deeply$"):
            list(items(io.BytesIO(opening * 1_000_000)))


def test_ijson_is_asked_for_where_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ijson", None)
    with pytest.raises(MissingPackageError, match=r"^importing this needs ijson: pip install 'dps-local\[import\]'$"):
        list(items(io.BytesIO(b"[]")))
