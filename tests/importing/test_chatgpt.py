from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from exports import CHATGPT, CHATGPT_CONVERSATION, SOURCES, folder
from hypothesis import given, settings
from hypothesis import strategies as st

from dps_local.errors import DataError
from dps_local.importing.chatgpt import ChatGPT
from dps_local.importing.writing import Writing

AT = "2024-02-13T08:01:00+00:00"
ANODE = Writing("Which anode for brackish water?", "", AT, "ChatGPT")
SWAP = Writing("And how often do I swap it?", "Aluminium is the usual choice.", AT, "ChatGPT")


def read(folder_: Path, conversation: Any) -> tuple[list[Writing], Counter[str]]:
    dropped = Counter[str]()
    source = folder(folder_, {"conversations.json": json.dumps([conversation])}) / "conversations.json"
    return list(ChatGPT().read(source, [], dropped)), dropped


def test_all_parts_are_read_and_of_each_conversation_the_branch_that_is_shown(tmp_path: Path) -> None:
    for source in ("parts", "zip"):
        items = list(ChatGPT().read(SOURCES["chatgpt"][source](tmp_path / source), [], Counter()))
        assert items == [ANODE, SWAP, Writing("Hello!", "", AT, "ChatGPT")]


def test_own_prompts_are_marked_and_no_style(tmp_path: Path) -> None:
    assert ChatGPT().authors(folder(tmp_path, CHATGPT)) == Counter()
    assert not ChatGPT.prose


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"content": {"content_type": "multimodal_text", "parts": [{"asset": 1}, "What is this?"]}}, "What is this?"),
        ({"content": {"content_type": "multimodal_text", "parts": [{"asset": 1}]}}, None),
        ({"content": {"content_type": "user_editable_context", "user_profile": "I am Mara"}}, None),
        ({"content": {"content_type": "text", "parts": ["a", "b"]}}, "a\nb"),
        ({"content": {"content_type": "text", "parts": 3}}, None),
        ({"content": None}, None),
        ({"author": None}, None),
        ({"author": {"role": "system"}}, None),
        ({"metadata": {"is_user_system_message": True}}, None),
        ({"create_time": "never"}, "Which anode for brackish water?"),
    ],
)
def test_only_what_the_person_typed_is_read(change: dict[str, Any], kept: str | None, tmp_path: Path) -> None:
    conversation = copy.deepcopy(CHATGPT_CONVERSATION)
    conversation["mapping"]["a2"]["message"] |= change
    items, _ = read(tmp_path, conversation)
    assert [item.text for item in items] == ([kept] if kept else []) + [SWAP.text]


@pytest.mark.parametrize(
    "change",
    [
        {"current_node": "root"},
        {"current_node": "gone"},
        {"current_node": 3},
        {"mapping": None},
        {"mapping": [3]},
        {"mapping": {"d": {"parent": "d", "message": None}}},
        {"mapping": {"d": {"parent": "e"}, "e": {"parent": "d", "message": {}}}},
    ],
)
def test_a_broken_tree_ends_where_it_breaks(change: dict[str, Any], tmp_path: Path) -> None:
    assert read(tmp_path, {"mapping": {}} | CHATGPT_CONVERSATION | change) == ([], Counter())


def test_what_is_damaged_is_refused_in_one_line(tmp_path: Path) -> None:
    whole = json.dumps([CHATGPT_CONVERSATION])
    for text in (whole[:-1], whole[:900], whole.replace("Aluminium", "\x01"), whole + "]"):
        with pytest.raises(DataError, match=r"^cannot read [^\n]*damaged[^\n]*$"):
            list(ChatGPT().read(folder(tmp_path, {"conversations.json": text}), [], Counter()))


SHAPES = st.recursive(
    st.none() | st.text(max_size=5) | st.integers(0, 3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["role", "parts", "a2", "message"]), inner)
    ),
    max_leaves=6,
)


@settings(deadline=None)
@given(st.sampled_from(["author", "content", "metadata", "create_time", "recipient"]), SHAPES, SHAPES)
def test_a_message_of_any_shape_is_read(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: Any, parent: Any
) -> None:
    conversation = copy.deepcopy(CHATGPT_CONVERSATION)
    conversation["mapping"]["a2"]["message"][key] = value
    conversation["mapping"]["c"]["parent"] = parent
    read(tmp_path_factory.getbasetemp(), conversation)
