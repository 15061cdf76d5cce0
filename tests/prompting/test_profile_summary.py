"""What a profile holds, in numbers."""

from __future__ import annotations

import sys

import pytest

from dps_local.prompting.profile import HistoryItem, Profile
from dps_local.prompting.profile_summary import ProfileSummary, language_identifier, n_words

PROFILE = Profile(
    name="Mara",
    preferences=("short",),
    history=(
        HistoryItem("Tea's on at six.", "When?", "At six o'clock.", "mail", "2024-06-01T00:00:00+02:00"),
        HistoryItem("Certainly! Here you are.", source="chat", kind="kept"),
        HistoryItem("Rain again.", source="mail", date="2024-05-31T23:00:00Z", kind="edited"),
        HistoryItem("Off.", date="2023-01-02"),
    ),
)


def test_a_summary_counts_what_the_person_wrote() -> None:
    assert ProfileSummary.of(PROFILE, n_tokens=len).as_json() == {
        "name": "Mara",
        "items": 4,
        "kinds": {"wrote": 2, "edited": 1, "kept": 1},
        "words": 4 + 2 + 1,
        "tokens": 16 + 11 + 4,
        "with_input": 1,
        "with_rejected": 1,
        "preferences": 1,
        "dated": 3,
        "first": "2023-01-02",
        "last": "2024-05-31T23:00:00Z",  # an hour after the one in summer time
        "sources": {"mail": 2, "chat": 1},
        "languages": None,
    }


def test_preferences_alone_are_no_text() -> None:
    summary = ProfileSummary.of(Profile(preferences=("short",)))
    assert (summary.items, summary.words, summary.tokens, summary.first) == (0, 0, None, "")


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("", 0),
        ("Tea's on – at six (6 pm).", 6),
        ("well-known\nfacts\t…", 2),
        ("明日はどう", 5),
        ("See 東京 soon", 4),
        ("Привет, мир!", 2),
    ],
)
def test_words_are_those_between_spaces_or_characters_of_scripts_without(text: str, n: int) -> None:
    assert n_words(text) == n


def test_languages_of_texts_that_are_long_enough_are_told() -> None:
    texts = [
        "Thanks, I will look at the ladder tomorrow and tell you.",
        "I am back on Monday, and shall bring the blue paint.",
        "Danke, das passt mir gut. Ich bringe die Leiter am Samstag mit.",
        "Merci beaucoup, nous arrivons demain matin avec les enfants.",
        "ok",
    ]
    summary = ProfileSummary.of(Profile(history=tuple(map(HistoryItem, texts))), language_of=language_identifier())
    assert summary.languages == {"en": 2, "de": 1, "fr": 1, "short": 1}


def test_without_the_extra_no_language_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "py3langid", None)
    assert language_identifier() is None
