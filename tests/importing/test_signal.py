from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from exports import SIGNAL, folder
from hypothesis import given, settings
from hypothesis import strategies as st

from dps_local.errors import DataError
from dps_local.importing.signal import Signal
from dps_local.importing.writing import Writing

SAIL = Writing("Came back patched. 🎉\nGood stitching.", "Did the sail come back?", "2024-02-13T08:02:00", "Signal")
SOUP = Writing("Yes please.\nWith bread.", "Soup?", "2024-02-13T09:02:00", "Signal")
LOOK = Writing("Look", "", "2024-02-13T09:30:00", "Signal")


def test_a_chat_is_read_from_its_json_or_else_from_its_markdown(tmp_path: Path) -> None:
    dropped = Counter[str]()
    assert list(Signal().read(folder(tmp_path, SIGNAL), [], dropped)) == [SOUP, LOOK, SAIL]
    assert dropped == {"media": 1, "call": 1, "deleted": 2}


def test_own_messages_are_marked(tmp_path: Path) -> None:
    assert Signal().authors(folder(tmp_path, SIGNAL)) == Counter()


def test_one_file_is_read_alone(tmp_path: Path) -> None:
    source = folder(tmp_path, SIGNAL)
    assert list(Signal().read(source / "Jan/data.json", [], Counter())) == [SAIL]
    assert list(Signal().read(source / "Ida/chat.md", [], Counter())) == [SOUP, LOOK]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("One  \n[8:00] two: three  ", "One  \n[8:00] two: three"),
        ("Nice\n(- Ida: 👍, Jan: ❤️ -)", "Nice"),
        ("Bye\n(( 👋 ))", "Bye"),
        ("[👋](../exported_stickers/a/1.webp)  ", None),
        ("see [a.pdf](./media/a.pdf)  ", "see"),
        ("a [link](https://x.example) stays", "a [link](https://x.example) stays"),
        ("> not a quote of Signal's", "> not a quote of Signal's"),
        ("\n\n> q1\n> q2\n\nanswer\n> said I", "answer\n> said I"),
        ("Missed call", None),
        ("Missed call with you", "Missed call with you"),
        ("עברית \u200fהיא RTL", "עברית \u200fהיא RTL"),
    ],
)
def test_of_markdown_only_what_was_typed_is_read(body: str, text: str | None, tmp_path: Path) -> None:
    source = folder(tmp_path, {"chat.md": f"[2024-02-13 08:00] Me: {body}\n\n"}) / "chat.md"
    assert [item.text for item in Signal().read(source, [], Counter())] == ([] if text is None else [text])


@pytest.mark.parametrize("line", ['{"date": ', "3", '{"body": "x"} more'])
def test_a_damaged_line_is_refused_in_one_line(line: str, tmp_path: Path) -> None:
    source = folder(tmp_path, {"data.json": SIGNAL["Jan/data.json"] + line}) / "data.json"
    with pytest.raises(DataError, match=r"^cannot read [^\n]*damaged[^\n]*$"):
        list(Signal().read(source, [], Counter()))


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["sender", "body", "date", "deleted", "call"]), st.text() | st.integers() | st.none()
    )
)
def test_a_message_of_any_shape_is_read(tmp_path_factory: pytest.TempPathFactory, row: dict[str, object]) -> None:
    text = SIGNAL["Jan/data.json"] + json.dumps(row) + "\n\n"
    list(Signal().read(folder(tmp_path_factory.getbasetemp(), {"data.json": text}) / "data.json", [], Counter()))


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_markdown_is_read(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    source = folder(tmp_path_factory.getbasetemp(), {"chat.md": f"[2024-02-13 08:00:00] Me: {text}"})
    list(Signal().read(source / "chat.md", [], Counter()))
