from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from exports import SLACK, SOURCES, folder

from dps_local.errors import DataError
from dps_local.importing.slack import Slack
from dps_local.importing.writing import Writing


def one(folder_: Path, /, text: Any = "Hello", **more: Any) -> tuple[list[str], Counter[str]]:
    """Read one message of Mara's."""
    message = {"type": "message", "user": "U1", "text": text, "ts": "1707811260.000100"} | more
    dropped = Counter[str]()
    source = folder(folder_, SLACK | {"yard/2024-02-13.json": json.dumps([message]), "yard/2024-02-14.json": "[]"})
    return [item.text for item in Slack().read(source, ["U1"], dropped)], dropped


@pytest.mark.parametrize("source", SOURCES["slack"].values(), ids=SOURCES["slack"])
@pytest.mark.parametrize("me", ["U1", "mara", "MARA VOSS", "mara@harbour.example"])
def test_channels_and_threads_are_read_by_any_name_of_the_person(source: object, me: str, tmp_path: Path) -> None:
    dropped = Counter[str]()
    assert callable(source)
    items = list(Slack().read(source(tmp_path), [me], dropped))
    assert items == [
        Writing(
            "@Jan de Vries on the hook & locked\nSee the list.",
            "Who has the key?",
            "2024-02-13T08:02:00+00:00",
            "Slack",
        ),
        Writing("Monday at nine.", "Crane on Monday?", "2024-02-13T18:46:40+00:00", "Slack"),
    ]
    assert dropped == {"system": 1, "bot": 1}


def test_people_are_named_as_others_see_them(tmp_path: Path) -> None:
    assert Slack().authors(folder(tmp_path, SLACK)) == {"Mara Voss": 3, "Jan de Vries": 2}


@pytest.mark.parametrize(
    ("text", "read_as"),
    [
        ("<@U2|jan> hi", "@jan hi"),
        ("<@U9> hi", "@U9 hi"),
        ("in <#C1|yard> and <#C2>", "in #yard and #C2"),
        ("<!here> and <!subteam^S1|@crew>, <!channel>", "@here and @crew, @channel"),
        ("<!date^1392734382^{date}|Feb 18th> then", "Feb 18th then"),
        ("<https://x.example/a|a page> <https://y.example>", "a page https://y.example"),
        ("<mailto:a@x.example|a@x.example>", "a@x.example"),
        ("5 &lt; 6 &amp;&amp; 7 &gt; 6", "5 < 6 && 7 > 6"),
        ("&gt; quoted\nmine", "mine"),
        ("```code```\nmine :wave:", "mine :wave:"),
        ("*bold* _it_ ~no~ `x`", "*bold* _it_ ~no~ `x`"),
    ],
)
def test_a_message_is_read_as_it_was_seen(text: str, read_as: str, tmp_path: Path) -> None:
    assert one(tmp_path, text) == ([read_as], Counter())


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        ({"subtype": "channel_topic"}, "system"),
        ({"subtype": "bot_message"}, "bot"),
        ({"bot_id": "B1"}, "bot"),
        ({"user": "USLACKBOT"}, "bot"),
        ({"subtype": "tombstone"}, "deleted"),
        ({"type": "other"}, "system"),
        ({"text": ""}, "media"),
        ({"text": ["no string"]}, "media"),
    ],
)
def test_what_nobody_typed_is_counted(more: dict[str, Any], kind: str, tmp_path: Path) -> None:
    assert one(tmp_path, **more) == ([], Counter({kind: 1}))


@pytest.mark.parametrize("subtype", ["me_message", "thread_broadcast", "file_share"])
def test_some_subtypes_are_typed(subtype: str, tmp_path: Path) -> None:
    assert one(tmp_path, subtype=subtype) == (["Hello"], Counter())


@pytest.mark.parametrize("users", ["3", "[3]", '[{"id": "U1", "profile": 3, "name": 4}]'])
def test_users_of_any_shape_are_read(users: str, tmp_path: Path) -> None:
    source = folder(tmp_path, SLACK | {"users.json": users})
    assert len(list(Slack().read(source, ["U1"], Counter()))) == 2


def test_a_damaged_day_is_refused_in_one_line(tmp_path: Path) -> None:
    source = folder(tmp_path, SLACK | {"yard/2024-02-13.json": "[" * 100_000})
    with pytest.raises(DataError, match=r"^cannot read [^\n]*$"):
        list(Slack().read(source, ["U1"], Counter()))
