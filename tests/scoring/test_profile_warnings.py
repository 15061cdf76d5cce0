"""What is valid in a profile, and of no use to scoring."""

from __future__ import annotations

import json

from dps_local.prompting.profile import Profile, parse_profile
from dps_local.scoring.profile_warnings import profile_warnings

WHOLE = """{
  "history": [
    {"output": "Rain again, and no end."},
    {"output": "Off."},
    {"input": "Say it again.",
     "output": "Rain again,  and no end."},
    {"output": "See you at six.",
     "date": "2024-06-01",
     "rejected": "See you at six. "},
    {"output": "Tea's on at five.", "date": "2024-05-31T10:00:00Z"}
  ]
}"""


def said(text: str) -> list[str]:
    return [str(warning) for warning in profile_warnings(parse_profile(text), text)]


def test_what_is_of_no_use_is_named_by_line_and_field() -> None:
    assert said(WHOLE) == [
        "line 2: history has 5 texts of your own: it takes 6 to find out whether steering helps",
        "line 4: history[1].output has fewer than 3 words: it says little of how you write",
        "line 6: history[2].output says the same as history[0]: leave one out",
        "line 9: history[3].rejected is the same as its output: there is nothing to prefer",
        "line 10: history[4].date is before that of an earlier item: history is oldest first",
    ]


def test_a_good_profile_has_no_warnings() -> None:
    for name in ("mara", "idris", "odile"):
        profile = Profile.load(name)
        assert profile_warnings(profile, json.dumps(profile.as_json())) == []


def test_texts_of_a_model_are_none_of_your_own() -> None:
    kept = [{"output": f"Certainly, that makes {i}.", "kind": "kept"} for i in range(9)]
    assert said(json.dumps({"history": kept})) == [
        "line 1: history has 0 texts of your own: it takes 6 to find out whether steering helps"
    ]


def test_wishes_alone_are_nothing_to_score() -> None:
    assert said('\n{"preferences": ["short"]}') == [
        "line 2: the profile has no history: heads are scored on what you wrote"
    ]


def test_thousands_of_warnings_take_no_time() -> None:
    """Each used to be looked for from the start of the file."""
    text = json.dumps({"history": [{"output": f"{i}."} for i in range(5000)]}, indent=1)
    warnings = profile_warnings(parse_profile(text), text)
    assert len(warnings) == 5000
    assert warnings[-1].line == 3 + 4999 * 3 + 1
