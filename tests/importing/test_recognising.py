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
from dps_local.importing.chatgpt import ChatGPT
from dps_local.importing.claude import Claude
from dps_local.importing.discord import Discord
from dps_local.importing.format import Format
from dps_local.importing.git import Git
from dps_local.importing.notes import Notes
from dps_local.importing.signal import Signal
from dps_local.importing.slack import Slack
from dps_local.importing.telegram import Telegram
from dps_local.importing.whatsapp import WhatsApp

FORMATS: list[Format] = [WhatsApp(), Telegram(), Discord(), Slack(), Signal(), ChatGPT(), Claude(), Notes(), Git()]
ROWS = [
    pytest.param(format, source, id=f"{format}, {row}")
    for format, rows in SOURCES.items()
    for row, source in rows.items()
]


@pytest.mark.parametrize(("format", "source"), ROWS)
def test_an_export_is_of_one_format(format: str, source: Source, tmp_path: Path) -> None:
    export = source(tmp_path / "export")
    assert [f.name for f in FORMATS if f.recognises(export)] == [format]


def test_every_format_has_a_name_a_description_and_sources() -> None:
    assert [f.name for f in FORMATS] == list(SOURCES)
    assert all(f.looked_for for f in FORMATS)
    assert [f.name for f in FORMATS if not f.prose] == ["chatgpt", "claude"]


@pytest.mark.parametrize("format", FORMATS, ids=lambda f: f.name)
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
