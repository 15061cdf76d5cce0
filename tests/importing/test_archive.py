from __future__ import annotations

import csv
import struct
import zipfile
from pathlib import Path

import pytest
from exports import folder, zipped

from dps_local.errors import DataError
from dps_local.importing import archive as module
from dps_local.importing.archive import looks_like, opened

FILES = {"b.txt": "b", "a/c.txt": "c\r\nd\n", "a/d.json": '{"e": 1}'}


def test_a_folder_and_a_zip_look_the_same(tmp_path: Path) -> None:
    for source in (folder(tmp_path / "f", FILES | {".DS_Store": "x"}), zipped(tmp_path / "z", FILES)):
        with opened(source) as archive:
            assert list(archive.names()) == ["b.txt", "a/c.txt", "a/d.json"]
            assert archive.head("b.txt") == "b"
            assert list(archive.lines("a/c.txt")) == ["c", "d"]
            assert archive.json("a/d.json") == {"e": 1}


def test_a_file_is_an_archive_of_itself(tmp_path: Path) -> None:
    with opened(folder(tmp_path, FILES) / "b.txt") as archive:
        assert list(archive.names()) == ["b.txt"]
        assert archive.head("b.txt") == "b"


def test_an_overlong_line_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINE", 4)
    with opened(folder(tmp_path, {"a": "123456789\nabc\nabcd\nabcde"}) / "a") as archive:
        assert list(archive.lines("a")) == ["1234", "abc", "abcd", "abcd"]


def test_a_zip_that_unpacks_to_far_more_is_refused_before_it_is_read(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("_chat.txt", b"0" * (100 << 20))
    with (
        pytest.raises(DataError, match=r"^\S+bomb\.zip would unpack to 100 MB, which no export does: not read$"),
        opened(bomb),
    ):
        pass
    assert not looks_like(bomb, lambda _, __: True)


def test_a_zip_unpacks_to_no_more_than_it_says(tmp_path: Path) -> None:
    source = zipped(tmp_path, {"a.txt": "x" * 100_000})
    data = bytearray(source.read_bytes())
    at = data.index(b"PK\x01\x02") + 24  # uncompressed size, in the central directory
    assert struct.unpack_from("<I", data, at) == (100_000,)
    struct.pack_into("<I", data, at, 10)
    source.write_bytes(data)
    with pytest.raises(DataError, match=r"^cannot read [^\n]*damaged[^\n]*$"), opened(source) as archive:
        assert archive.head("a.txt") == "x" * 10


def test_a_file_that_does_not_fit_into_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WHOLE", 1 << 20)
    source = folder(tmp_path, {"a.json": "[" + " " * (1 << 20) + "]"})
    with pytest.raises(DataError, match=r"^a\.json of \S+ is larger than 1 MB: not read$"), opened(source) as archive:
        archive.json("a.json")


def test_an_encrypted_zip_is_refused_in_one_line(tmp_path: Path) -> None:
    source = zipped(tmp_path, {"a.txt": "secret"})
    data = bytearray(source.read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + at] |= 1
    source.write_bytes(data)
    with pytest.raises(DataError, match=r"^cannot read \S+ \(it is encrypted\)"), opened(source) as archive:
        archive.head("a.txt")


@pytest.mark.parametrize(
    "fault", [ValueError("a\nb"), OSError(5, "Input/output error"), RecursionError("x"), csv.Error()]
)
def test_a_fault_on_the_way_is_one_line(fault: Exception, tmp_path: Path) -> None:
    pattern = r"^cannot read [^\n]+ \([^\n]+\): is it the export as it was downloaded\?$"
    with pytest.raises(DataError, match=pattern), opened(tmp_path):
        raise fault


def test_a_damaged_zip_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    whole = zipped(tmp_path, FILES).read_bytes()
    for end in range(4, len(whole)):
        (tmp_path / "export.zip").write_bytes(whole[:end])
        with pytest.raises(DataError, match=r"^[^\n]+$"), opened(tmp_path / "export.zip") as archive:
            [archive.head(name) for name in archive.names()]
