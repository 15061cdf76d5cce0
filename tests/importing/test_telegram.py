from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from exports import SOURCES, TELEGRAM_ALL, TELEGRAM_CHAT, folder
from hypothesis import given, settings
from hypothesis import strategies as st

from dps_local.errors import DataError
from dps_local.importing.telegram import Telegram
from dps_local.importing.writing import Writing

MOORING = Writing(
    "Paid it on Friday, see https://harbour.example for 2024.\nReceipt is in the tin.",
    "Is the mooring paid?",
    "2024-02-13T08:02:00+00:00",
    "Telegram",
)


def read(folder_: Path, export: Any, *me: str) -> tuple[list[Writing], Counter[str]]:
    dropped = Counter[str]()
    source = folder(folder_, {"result.json": export if isinstance(export, str) else json.dumps(export)})
    return list(Telegram().read(source / "result.json", me, dropped)), dropped


def test_one_chat_is_read_by_name_or_id(tmp_path: Path) -> None:
    for me in ("mara", "user11"):
        items, dropped = read(tmp_path, TELEGRAM_CHAT, me)
        assert items == [MOORING]
        assert dropped == {"system": 1, "forward": 1, "media": 1, "bot": 1}


def test_the_people_of_a_chat_are_those_who_typed(tmp_path: Path) -> None:
    assert Telegram().authors(SOURCES["telegram"]["chat"](tmp_path)) == {"Jan de Vries": 1, "Mara": 3}


def test_an_export_of_all_chats_says_whose_it_is(tmp_path: Path) -> None:
    items, dropped = read(tmp_path, TELEGRAM_ALL)
    assert items == [MOORING, Writing("Order two litres of primer", "", "2024-02-13T08:09:00+00:00", "Telegram")]
    assert dropped["bot"] == 2  # what is said to a bot is no prose
    assert Telegram().authors(tmp_path / "result.json") == Counter()


def test_an_export_from_before_2021_has_numbers_and_local_times(tmp_path: Path) -> None:
    message = {
        "id": 1,
        "type": "message",
        "date": "2019-05-06T10:00:00",
        "from": "Mara",
        "from_id": 4295,
        "text": "Aye",
    }
    chat = {"name": "J", "type": "personal_chat", "id": 2, "messages": [message]}
    export = {"about": "", "personal_information": {"user_id": 4295}, "chats": {"list": [chat]}}
    assert read(tmp_path, export)[0] == [Writing("Aye", "", "2019-05-06T10:00:00", "Telegram")]


@pytest.mark.parametrize(
    ("text", "read_as"),
    [
        ("Plain\n\ntext", "Plain\n\ntext"),
        (["a ", {"type": "bold", "text": "b"}, " c"], "a b c"),
        ([{"type": "mention", "text": "@jan"}, " look"], "@jan look"),
        ([{"type": "text_link", "text": "the list", "href": "https://x.example"}], "the list"),
        ([{"type": "custom_emoji", "text": "⚓", "document_id": "1"}, " ahoy"], "⚓ ahoy"),
        ([{"type": "blockquote", "text": "he said"}, "\nno"], "no"),
        ([{"type": "pre", "text": "rm -rf", "language": "sh"}, "that worked"], "that worked"),
        ([{"type": "bot_command", "text": "/start"}, " now"], None),
        ([{"type": "code", "text": "0 files"}], "0 files"),
        ([], None),
        ("", None),
        ([3, None, {"type": "bold"}], None),
        (None, None),
        ("\ud800 alone", "? alone"),
    ],
)
def test_a_text_is_a_string_or_a_list_of_entities(text: Any, read_as: str | None, tmp_path: Path) -> None:
    message = {"id": 1, "type": "message", "date_unixtime": "1", "from": "Mara", "from_id": "user1", "text": text}
    items, dropped = read(tmp_path, {"name": "x", "type": "private_group", "id": 1, "messages": [message]}, "Mara")
    assert [item.text for item in items] == ([] if read_as is None else [read_as])
    assert bool(dropped) == (read_as is None)


def test_chats_are_not_joined(tmp_path: Path) -> None:
    message = {"type": "message", "date_unixtime": "1707811200", "from": "Mara", "from_id": "user1", "text": "Hello"}
    chats = [{"name": name, "type": "personal_chat", "id": 1, "messages": [message]} for name in ("a", "b")]
    items, _ = read(tmp_path, {"about": "", "chats": {"about": "", "list": chats}}, "Mara")
    assert [item.text for item in items] == ["Hello", "Hello"]


def test_the_escapes_of_telegram_desktop_are_read(tmp_path: Path) -> None:
    text = json.dumps(TELEGRAM_CHAT).replace("Receipt is", r"Bell\x07 and \\x07, receipt is")
    (item,), _ = read(tmp_path, text, "Mara")
    assert item.text.endswith("Bell\x07 and \\x07, receipt is in the tin.")


@pytest.mark.parametrize("cut", [300, 900, -1])
def test_an_export_that_is_cut_off_is_refused_in_one_line(cut: int, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^cannot read .*result\.json \(it is damaged: [^\n]+$"):
        read(tmp_path, json.dumps(TELEGRAM_CHAT)[:cut], "Mara")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=9,
)
KEYS = ("type", "from", "from_id", "date", "date_unixtime", "text", "forwarded_from")


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(KEYS), JSON) | JSON, max_size=4), JSON)
def test_messages_of_any_shape_are_read(
    tmp_path_factory: pytest.TempPathFactory, messages: list[Any], type_: Any
) -> None:
    export = {
        "name": "x",
        "type": "personal_chat",
        "id": 1,
        "messages": [*messages, {"type": "message", "text": type_}],
    }
    read(tmp_path_factory.getbasetemp(), export, "Mara")
