"""What was measured is kept, found again, and never believed when it is damaged."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dps_local.scoring.score_store import Measured, ScoreStore

TEXT = [[1, 2, 3], [4, 5]]


@pytest.fixture
def store(tmp_path: Path) -> ScoreStore:
    return ScoreStore(tmp_path, 3, "model", 0.0)


def measured() -> Measured:
    text = Measured(3)
    text.nll, text.null = 3.25, 0.0
    text.effects[1] = [0.1, 1 / 3, 1e-9]
    return text


def test_numbers_come_back_bit_for_bit(store: ScoreStore) -> None:
    store.save(TEXT, measured())
    loaded = store.load(TEXT)
    assert (loaded.nll, loaded.null) == (3.25, 0.0)
    assert np.array_equal(loaded.effects, measured().effects, equal_nan=True)
    assert not loaded.missing([1])
    assert loaded.missing([0, 1])
    assert store.path(TEXT).stat().st_mode & 0o777 == 0o600


def test_effects_of_some_heads_leave_the_others_out() -> None:
    known = measured()
    known.effects[2] = 7
    assert np.array_equal(known.effects_of([1]), measured().effects, equal_nan=True)


def test_every_text_model_and_option_has_a_place_of_its_own(store: ScoreStore, tmp_path: Path) -> None:
    others = [
        store.path([[1, 2], [3, 4, 5]]),
        ScoreStore(tmp_path, 3, "other", 0.0).path(TEXT),
        ScoreStore(tmp_path, 3, "model", 0.9).path(TEXT),
    ]
    assert len({store.path(TEXT), *others}) == 4


def npy(array: NDArray[Any], save: Any = np.save) -> bytes:
    stream = io.BytesIO()
    save(stream, array)
    return stream.getvalue()


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut": lambda data: data[:-5],
    "cut at a number": lambda data: data[:-8],
    "longer": lambda data: data + bytes(24),
    "a bit of a number": lambda data: data[:-30] + bytes([data[-30] ^ 1]) + data[-29:],
    "text": lambda _: b"not numpy",
    "the format before": lambda _: npy(np.zeros((4, 3))),
    "a broken header of numpy": lambda _: npy(np.zeros((4, 3))).replace(b"}", b"("),
    "shape": lambda _: npy(np.zeros((9, 3))),
    "type": lambda _: npy(np.zeros((4, 3), np.float32)),
    "nan": lambda _: npy(np.full((4, 3), np.nan)),
    "zip": lambda _: npy(np.zeros((4, 3)), np.savez),
    "no zip": lambda _: b"PK\x03\x04" + bytes(200),
    "another model": lambda _: hashlib.sha256(bytes(24)).digest() + bytes(24),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_as_if_it_were_not_there(damage: str, store: ScoreStore) -> None:
    assert np.isnan(store.load(TEXT).nll)
    store.save(TEXT, measured())
    path = store.path(TEXT)
    data = path.read_bytes()
    assert DAMAGE[damage](data) != data
    path.write_bytes(DAMAGE[damage](data))
    loaded = store.load(TEXT)
    assert np.isnan(loaded.nll)
    assert np.isnan(loaded.effects).all()


def test_a_plan_says_what_is_known_and_forgets_what_is_no_longer_wanted(store: ScoreStore) -> None:
    first, second, third = [[1], [2]], [[3], [4]], [[5], [6]]
    assert str(store.plan("ada", [first, second])) == ""
    store.save(first, measured())
    assert str(store.plan("ada", [first, second])) == "taking up an earlier run: 1 of 2 texts are known"
    store.save(second, measured())
    news = str(store.plan("ada", [second, third]))
    assert news == "the profile has changed: 1 of 2 texts are known, the others are scored now"
    assert not store.path(first).exists()
    assert store.path(second).exists()
    assert (
        str(store.plan("ada", [[[7], [8]]]))
        == "the profile has changed since it was last scored: scoring starts afresh"
    )
    assert str(store.plan("grace", [third])) == ""


def test_a_damaged_plan_is_written_anew(store: ScoreStore, tmp_path: Path) -> None:
    store.plan("ada", [TEXT])
    (note,) = tmp_path.glob("*.json")
    for content in ("", "{", "5", "null", "[" * 100_000, "[5]"):
        note.write_text(content)
        assert str(store.plan("ada", [TEXT])) == ""


def test_a_damaged_plan_takes_no_other_files_away(tmp_path: Path) -> None:
    store, other = ScoreStore(tmp_path / "scores", 3), tmp_path / "letter"
    store.folder.mkdir()
    other.touch()
    store.plan("ada", [TEXT])
    (note,) = store.folder.glob("*.json")
    note.write_text(json.dumps(["../letter", str(other), "", ".", "\0", "a" * 999]))
    assert str(store.plan("ada", [TEXT])) == ""
    assert other.exists()
