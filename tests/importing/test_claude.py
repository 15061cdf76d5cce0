from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from exports import CLAUDE, SOURCES, folder

from dps_local.importing.claude import Claude
from dps_local.importing.writing import Writing

EXPECTED = [
    Writing("What's a good knot for a fender?", "", "2024-02-13T08:03:00+00:00", "Claude"),
    Writing("Doubled how?", "A clove hitch, doubled.", "2024-02-13T08:05:00+00:00", "Claude"),
    Writing("Old export, no blocks.", "", "", "Claude"),
]


@pytest.mark.parametrize("source", SOURCES["claude"].values(), ids=SOURCES["claude"])
def test_the_branch_of_the_newest_message_is_read(source: object, tmp_path: Path) -> None:
    assert callable(source)
    assert list(Claude().read(source(tmp_path), [], Counter())) == EXPECTED


def test_own_prompts_are_marked_and_no_style(tmp_path: Path) -> None:
    assert Claude().authors(folder(tmp_path, CLAUDE)) == Counter()
    assert not Claude.prose


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (
            {"text": "", "content": [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]},
            "a\nb",
        ),
        ({"text": "flat", "content": [{"type": "tool_result", "text": "no"}]}, "flat"),
        ({"text": "", "attachments": [{"extracted_content": "pasted"}]}, None),
        ({"text": 3, "content": 4}, None),
        ({"text": "x", "created_at": 5, "uuid": 6, "parent_message_uuid": 7}, None),
        ({"text": "x", "created_at": "yesterday"}, "x"),
    ],
)
def test_a_message_of_any_shape_is_read(message: dict[str, Any], text: str | None, tmp_path: Path) -> None:
    conversation = {"uuid": "1", "chat_messages": [{"sender": "human", **message}, 3, None]}
    source = folder(tmp_path, {"conversations.json": json.dumps([conversation, 4, {"chat_messages": 5}])})
    assert [item.text for item in Claude().read(source, [], Counter())] == ([] if text is None else [text])
