from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from exports import DISCORD, SOURCES, folder

from dps_local.errors import DataError
from dps_local.importing.discord import Discord
from dps_local.importing.writing import Writing


@pytest.mark.parametrize("source", SOURCES["discord"].values(), ids=SOURCES["discord"])
def test_a_package_is_read_in_both_of_its_forms(source: object, tmp_path: Path) -> None:
    dropped = Counter[str]()
    assert callable(source)
    items = list(Discord().read(source(tmp_path), [], dropped))
    assert items == [
        Writing("The pump is fixed.\nThanks :anchor:", "", "2024-02-13T08:01:00+00:00", "Discord"),
        Writing("Two lines,\nwith a comma", "", "2020-08-25T22:54:05+00:00", "Discord"),
        Writing("Later on the secret", "", "2020-08-25T23:54:05+00:00", "Discord"),
    ]
    assert dropped == {"media": 1}


def test_all_of_a_package_is_the_persons_own(tmp_path: Path) -> None:
    assert Discord().authors(folder(tmp_path, DISCORD)) == Counter()


@pytest.mark.parametrize(
    ("contents", "text"),
    [
        ("Hi <@123> and <@!123> in <#456>, all <@&789>", "Hi and in , all"),
        ("<a:wave:123> at <t:1700000000:R>", ":wave: at"),
        ("```py\nprint()\n```\nthat is it", "that is it"),
        ("> quoted\n>>> more\nmine", "mine"),
        ("||hidden|| plain", "hidden plain"),
        ("1 < 2 > 0 and a  b", "1 < 2 > 0 and a b"),
        ("🇳🇱 👩‍🔧", "🇳🇱 👩‍🔧"),
        ("```never closed", None),
    ],
)
def test_what_stands_for_a_number_is_not_read(contents: str, text: str | None, tmp_path: Path) -> None:
    rows = [{"ID": 1, "Timestamp": "2024-02-13 08:00:00", "Contents": contents, "Attachments": ""}]
    source = folder(tmp_path, {"messages/c123456/messages.json": json.dumps(rows)})
    assert [item.text for item in Discord().read(source, [], Counter())] == ([] if text is None else [text])


@pytest.mark.parametrize("rows", ["3", "{}", "[3, null]", '[{"Contents": 3}]', '[{"Contents": "a", "Timestamp": [1]}]'])
def test_a_channel_of_any_shape_is_read(rows: str, tmp_path: Path) -> None:
    list(Discord().read(folder(tmp_path, {"messages/c123456/messages.json": rows}), [], Counter()))


def test_a_damaged_channel_is_refused_in_one_line(tmp_path: Path) -> None:
    for name, text in (("messages.json", '[{"ID": 1'), ("messages.csv", 'ID,Contents\n1,"' + "x" * 200_000)):
        source = folder(tmp_path / name, {f"messages/c123456/{name}": text})
        with pytest.raises(DataError, match=r"^cannot read [^\n]*damaged[^\n]*$"):
            list(Discord().read(source, [], Counter()))
