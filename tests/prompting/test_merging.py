"""Several profiles of one person as one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dps_local.prompting.merging import merged, unique
from dps_local.prompting.profile import HistoryItem, Profile

MAIL = Profile(
    name="Mara",
    preferences=("short", "blunt"),
    history=(
        HistoryItem("May.", date="2024-05-31", source="mail"),
        HistoryItem("June, in Berlin.", date="2024-06-01T01:00:00+02:00", source="mail"),
        HistoryItem("After June.", source="mail"),
    ),
)
CHAT = Profile(
    name="Mara P.",
    about="Skipper.",
    preferences=("blunt", "warm"),
    history=(
        HistoryItem("Undated."),
        HistoryItem("June, before it.", date="2024-05-31T22:30:00Z"),
        HistoryItem("July.", date="2024-07-01"),
    ),
)


def said(profile: Profile) -> list[str]:
    return [item.output for item in profile.history]


def test_history_is_oldest_first_where_dates_are_known() -> None:
    both = ["Undated.", "May.", "June, before it.", "June, in Berlin.", "After June.", "July."]
    assert said(merged([MAIL, CHAT]).profile) == both
    assert said(merged([CHAT, MAIL]).profile) == both


def test_a_file_without_dates_stands_first_and_keeps_its_order() -> None:
    by_hand = Profile(history=(HistoryItem("B."), HistoryItem("A.")))
    assert said(merged([MAIL, by_hand]).profile)[:2] == ["B.", "A."]


def test_what_is_no_history_comes_from_the_first_that_has_it() -> None:
    both = merged([MAIL, CHAT]).profile
    assert (both.name, both.about, both.preferences) == ("Mara", "Skipper.", ("short", "blunt", "warm"))


def test_what_comes_twice_stays_once_with_all_that_is_known_of_it() -> None:
    whole = merged(
        [
            Profile(history=(HistoryItem("See you  at six."), HistoryItem("Rain."))),
            Profile(history=(HistoryItem("See you at\nsix.", "When?", source="chat", date="2024-05-31"),)),
        ]
    )
    assert whole.duplicates == 1
    assert whole.profile.history == (
        HistoryItem("See you  at six.", "When?", source="chat", date="2024-05-31"),
        HistoryItem("Rain."),
    )


def test_a_profile_merged_with_itself_is_itself() -> None:
    assert merged([MAIL, MAIL]).profile == MAIL
    assert merged([MAIL, MAIL]).duplicates == 3


def test_what_a_model_wrote_and_the_person_sent_is_a_models() -> None:
    kept, own = HistoryItem("Certainly, six it is.", kind="kept"), HistoryItem("Certainly, six it is.")
    for items in ([kept, own], [own, kept], [own, kept, own]):
        assert [item.kind for item in unique(items)] == ["kept"]


@given(st.lists(st.lists(st.sampled_from("abcdef"), max_size=4), max_size=4))
def test_nothing_is_lost_and_nothing_comes_twice(texts: list[list[str]]) -> None:
    profiles = [Profile(history=tuple(map(HistoryItem, its))) for its in texts]
    whole = merged(profiles)
    assert sorted(said(whole.profile)) == sorted({text for its in texts for text in its})
    assert whole.duplicates == sum(map(len, texts)) - len(whole.profile.history)
