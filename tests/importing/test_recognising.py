"""Each made-up export is recognised by its own format and by no other."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from exports import SOURCES, Source, folder, zipped
from hypothesis import given, settings
from hypothesis import strategies as st

from dps_local.errors import DataError
from dps_local.importing.format import Format
from dps_local.importing.formats import FORMATS
from dps_local.importing.meter import metered

ROWS = [
    pytest.param(format, source, id=f"{format}, {row}")
    for format, rows in SOURCES.items()
    for row, source in rows.items()
]


@pytest.mark.parametrize(("format", "source"), ROWS)
def test_an_export_is_of_one_format(format: str, source: Source, tmp_path: Path) -> None:
    export = source(tmp_path / "export")
    assert [f.name for f in FORMATS if f.recognises(export)] == [format]


@pytest.mark.parametrize(("format", "source"), [row for row in ROWS if row.values[0] != "git"])
def test_all_that_is_read_is_told_to_the_meter(format: str, source: Source, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    export = source(tmp_path / "export")
    with metered(lambda done, total: told.append((done, total))):
        list(next(f for f in FORMATS if f.name == format).read(export, ["Mara"], Counter()))
    assert told[-1][0] == told[-1][1] > 0
    assert all(done <= total for done, total in told)


def test_every_format_has_a_name_a_description_and_sources() -> None:
    assert sorted(f.name for f in FORMATS) == sorted([*SOURCES, "mail"])
    assert all(f.looked_for for f in FORMATS)
    assert [f.name for f in FORMATS if not f.prose] == ["chatgpt", "claude"]


@pytest.mark.parametrize("format", [f for f in FORMATS if f.name in SOURCES], ids=lambda f: f.name)
def test_what_is_nothing_is_not_recognised_and_refused_in_one_line(format: Format, tmp_path: Path) -> None:
    (tmp_path / "empty.bin").touch()
    (tmp_path / "cut.zip").write_bytes(zipped(tmp_path / "z", {"a.txt": "x" * 999}).read_bytes()[:150])
    os.mkfifo(tmp_path / "fifo")
    nothing = [folder(tmp_path / "empty", {"a.bin": ""}), tmp_path / "missing", Path("a\0b"), Path("x" * 300)]
    for source in (*nothing, tmp_path / "empty.bin", tmp_path / "cut.zip", tmp_path / "fifo"):
        assert not format.recognises(source)
        with pytest.raises(DataError, match=r"^[^\n]+$"):
            list(format.read(source, ["Mara"], Counter()))


@pytest.mark.parametrize(
    "name", ["a.txt", "a.md", "result.json", "conversations.json", "data.json", "chat.md", "a.zip"]
)
@settings(deadline=None)
@given(data=st.binary(max_size=300) | st.text().map(str.encode))
def test_recognising_never_raises(tmp_path_factory: pytest.TempPathFactory, name: str, data: bytes) -> None:
    source = tmp_path_factory.getbasetemp() / name
    source.write_bytes(data)
    assert sum(format.recognises(source) for format in FORMATS) <= 1
