from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dps_local.errors import ProfileError
from dps_local.prompting.profile import HistoryItem, Kind, Profile, examples, load_people, load_profiles, parse_profile

MARKER = 987_654_321  # a number where none is allowed
WHOLE = """{
  "name": "Mara",
  "about": "Skipper. Ünïcode ☕",
  "preferences": ["short", "blunt"],
  "history": [
    {"input": "Say hello.", "output": "Ahoy.", "rejected": "Dear Sir or Madam,"},
    {"output": "Rain again."}
  ]
}"""


def saved(folder: Path, text: str | bytes, name: str = "user.json") -> str:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


# what is accepted


def test_every_field_of_a_profile_is_read() -> None:
    assert parse_profile(WHOLE) == Profile(
        name="Mara",
        about="Skipper. Ünïcode ☕",
        preferences=("short", "blunt"),
        history=(
            HistoryItem("Ahoy.", input="Say hello.", rejected="Dear Sir or Madam,"),
            HistoryItem("Rain again.", input="", rejected=""),
        ),
    )


def test_an_item_knows_where_it_comes_from() -> None:
    item = """{"output": "Ahoy.", "source": "sent.mbox", "date": "2024-05-31T18:05:00+02:00", "kind": "edited"}"""
    assert parse_profile(f'{{"history": [{item}]}}').history == (
        HistoryItem("Ahoy.", source="sent.mbox", date="2024-05-31T18:05:00+02:00", kind="edited"),
    )
    old = parse_profile('{"history": [{"output": "Ahoy."}]}').history[0]
    assert (old.source, old.date, old.kind) == ("", "", "wrote")


@pytest.mark.parametrize("date", ["", "2024-05-31", "2024-05-31T18:05:00Z", "2024-05-31T18:05:00.25-03:30", "20240531"])
def test_dates_are_those_of_iso_8601(date: str) -> None:
    assert parse_profile(json.dumps({"history": [{"output": "x", "date": date}]})).history[0].date == date


def test_the_time_of_an_item_is_comparable_with_and_without_a_zone() -> None:
    utc = HistoryItem("x", date="2024-05-31T18:05:00").time
    assert utc == HistoryItem("x", date="2024-05-31T20:05:00+02:00").time
    assert str(utc) == "2024-05-31 18:05:00+00:00"
    assert HistoryItem("x", date="2024-05-31").time == HistoryItem("x", date="2024-05-31T00:00Z").time
    assert HistoryItem("x").time is None


def test_what_a_model_wrote_is_not_the_users_own() -> None:
    assert [HistoryItem("x", kind=kind).own for kind in ("wrote", "edited", "kept")] == [True, True, False]


def test_own_items_are_those_that_the_user_wrote_or_edited() -> None:
    kinds: list[Kind] = ["wrote", "kept", "edited", "kept", "wrote"]
    profile = Profile(history=tuple(HistoryItem("x", kind=kind) for kind in kinds))
    assert profile.own_items() == [0, 2, 4]
    assert [profile.own_items(n) for n in (0, 2, 9)] == [[], [2, 4], [0, 2, 4]]


# writing


def test_a_profile_is_written_without_what_is_empty(tmp_path: Path) -> None:
    parse_profile(WHOLE).save(tmp_path / "mara.json")
    assert json.loads((tmp_path / "mara.json").read_text(encoding="utf-8")) == json.loads(WHOLE)
    kept = HistoryItem("Ünï.", source="chat", date="2024-05-31", kind="kept")
    Profile(history=(HistoryItem("Hi"), kept)).save(tmp_path / "kept.json")
    assert (tmp_path / "kept.json").read_text(encoding="utf-8") == (
        '{\n  "history": [\n    {\n      "output": "Hi"\n    },\n    {\n      "output": "Ünï.",\n'
        '      "source": "chat",\n      "date": "2024-05-31",\n      "kind": "kept"\n    }\n  ]\n}\n'
    )


@pytest.mark.skipif(os.name == "nt", reason="has no such modes")
def test_a_profile_is_written_for_its_owners_eyes_only(tmp_path: Path) -> None:
    parse_profile(WHOLE).save(tmp_path / "mara.json")
    assert (tmp_path / "mara.json").stat().st_mode & 0o777 == 0o600


def test_half_a_surrogate_pair_is_written_as_it_is_read(tmp_path: Path) -> None:
    Profile(preferences=("a\ud800b",)).save(tmp_path / "x.json")
    assert Profile.load(tmp_path / "x.json").preferences == ("a?b",)


def test_preferences_alone_are_a_profile() -> None:
    assert parse_profile('{"preferences": ["be brief"]}') == Profile(preferences=("be brief",))


def test_history_alone_is_a_profile() -> None:
    assert parse_profile('{"history": [{"output": "Hi"}]}') == Profile(history=(HistoryItem("Hi"),))


def test_an_empty_list_beside_a_filled_one_is_fine() -> None:
    assert parse_profile('{"preferences": [], "history": [{"output": "Hi"}]}') == Profile(history=(HistoryItem("Hi"),))
    assert parse_profile('{"preferences": ["brief"], "history": []}') == Profile(preferences=("brief",))


def test_a_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    assert Profile.load(saved(tmp_path, b"\xef\xbb\xbf" + WHOLE.encode())) == parse_profile(WHOLE)


def test_windows_line_ends_are_accepted_and_counted_once(tmp_path: Path) -> None:
    assert Profile.load(saved(tmp_path, WHOLE.replace("\n", "\r\n"))) == parse_profile(WHOLE)
    wrong = saved(tmp_path, '{\r\n"name": "x",\r\n"about": 1}')
    with pytest.raises(ProfileError, match=r"line 3: about must be a string, not a number$"):
        Profile.load(wrong)


def test_text_is_kept_as_the_user_wrote_it() -> None:
    profile = parse_profile('{"history": [{"output": "  two\\nlines \\ud83d\\ude80 ", "input": " "}]}')
    assert profile.history == (HistoryItem("  two\nlines 🚀 ", input=" "),)


def test_half_a_surrogate_pair_becomes_a_question_mark() -> None:
    assert parse_profile('{"preferences": ["a\\ud800b"]}').preferences == ("a?b",)


def test_the_last_of_duplicate_keys_counts() -> None:
    assert parse_profile('{"preferences": 3, "preferences": ["b"]}').preferences == ("b",)


def test_an_error_in_the_last_of_duplicate_keys_is_found_on_its_own_line() -> None:
    with pytest.raises(ProfileError, match=r"^line 3: preferences must be a list, not a number$"):
        parse_profile('{\n"preferences": ["a"],\n"preferences": 3\n}')


def test_files_of_a_folder_that_are_no_profiles_are_left_out_and_named(tmp_path: Path) -> None:
    (tmp_path / "._a.json").write_bytes(b"\x00\x05\x16\x07\xff")  # as macOS leaves them
    (tmp_path / "package.json").write_text('{"name": "x", "version": "1"}')
    (tmp_path / "folder.json").mkdir()
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text(WHOLE.replace("Mara", name))
    notices: list[str] = []
    assert [profile.name for profile in load_profiles(tmp_path, notices.append)] == ["a", "b"]
    assert len(notices) == 3
    for name in ("._a.json is not UTF-8", "package.json: line 1: version is not", "folder.json is a folder"):
        assert sum(name in notice for notice in notices) == 1
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").unlink()
    with pytest.raises(ProfileError, match="no profile in"):
        load_profiles(tmp_path)


def test_a_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    saved(tmp_path, WHOLE)
    assert Profile.load("~/user.json").name == "Mara"


# what is refused


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "line 1: not valid JSON: Expecting value (column 1)"),
        ('{\n  "name": "x"\n  "about": "y"\n}', "line 3: not valid JSON: Expecting ',' delimiter (column 3)"),
        ('{"preferences": ["a"]} extra', "line 1: not valid JSON: Extra data (column 24)"),
        ('{"preferences": ["two\nlines"]}', "line 1: not valid JSON: Invalid control character at (column 22)"),
        ("[]", "line 1: the profile must be an object, not a list"),
        ('\n\n"hello"', "line 3: the profile must be an object, not a string"),
        ("null", "line 1: the profile must be an object, not null"),
        ('{"name":\n3, "preferences": ["a"]}', "line 2: name must be a string, not a number"),
        ('{"name": null, "preferences": ["a"]}', "line 1: name must be a string, not null"),
        ('{\n"about":\n["x"], "preferences": ["a"]}', "line 3: about must be a string, not a list"),
        ('{\n"about": NaN, "preferences": ["a"]}', "line 2: about must be a string, not a number"),
        ('{\n"preferences": "be brief"}', "line 2: preferences must be a list, not a string"),
        ('{"preferences": null}', "line 1: preferences must be a list, not null"),
        ('{"preferences": [\n"a",\n4.5\n]}', "line 3: preferences[1] must be a string, not a number"),
        ('{"preferences": [\n"a",\ntrue\n]}', "line 3: preferences[1] must be a string, not true or false"),
        ('{"preferences": [\n"a",\n\n" \\t"]}', "line 4: preferences[1] is empty"),
        ('{\n"history": {"output": "x"}}', "line 2: history must be a list, not an object"),
        ('{"history": [\n"x"]}', "line 2: history[0] must be an object, not a string"),
        ('{"history": [\n{"output": "x"},\n\n[]]}', "line 4: history[1] must be an object, not a list"),
        ('{"history": [\n{"output":\n\n{}}]}', "line 4: history[0].output must be a string, not an object"),
        ('{"history": [\n{"output": "x",\n"input": 0}]}', "line 3: history[0].input must be a string, not a number"),
        ('{"history": [{"rejected": [],"output": "x"}]}', "line 1: history[0].rejected must be a string, not a list"),
        ('{"history": [{"output": "x"},\n{"output": ""}]}', "line 2: history[1].output is empty"),
        ('{"history": [{"output": "x"},\n{"output": "\\n "}]}', "line 2: history[1].output is empty"),
        ('{"history": [{"output": "x",\n"source": 3}]}', "line 2: history[0].source must be a string, not a number"),
        ('{"history": [{"output": "x",\n"date": 2024}]}', "line 2: history[0].date must be a string, not a number"),
        (
            '{"history": [{"output": "x",\n"date": "31.5.2024"}]}',
            "line 2: history[0].date is not a date of ISO 8601,",
        ),
        ('{"history": [{"output": "x",\n"date": "2024-02-30"}]}', "line 2: history[0].date is not a date of ISO 8601"),
        ('{"history": [{"output": "x",\n"kind": ""}]}', "line 2: history[0].kind must be 'wrote', 'edited' or 'kept'"),
        (
            '{"history": [{"output": "x"},\n{"output": "x",\n"kind": "Wrote"}]}',
            "line 3: history[1].kind must be",
        ),
        ('{"history": [{"output": "x",\n"kind": ["kept"]}]}', "line 2: history[0].kind must be a string, not a list"),
        ('{"history": [\n{"input": "x"}]}', "line 2: history[0] lacks 'output', the user's own words"),
        ('{"history": [\n{}]}', "line 2: history[0] lacks 'output', the user's own words"),
        (
            '{\n"preferences": ["a"],\n"prefs": ["a"]}',
            "line 3: prefs is not a known key: expected name, about, preferences, history",
        ),
        (
            '{"history": [\n{"output": "x",\n"ouput": "y"}]}',
            "line 3: history[0].ouput is not a known key: expected input, output, rejected",
        ),
        ("{}", "line 1: the profile needs 'history' or 'preferences' with at least one entry"),
        ('\n{"name": "x"}', "line 2: the profile needs 'history' or 'preferences' with at least one entry"),
        ('{"history": [],\n"preferences": []}', "line 1: the profile needs 'history' or 'preferences' with at least"),
    ],
)
def test_an_error_names_the_field_and_the_line(text: str, problem: str) -> None:
    with pytest.raises(ProfileError, match="^" + re.escape(problem)):
        parse_profile(text)


def test_an_error_in_a_file_begins_with_its_path(tmp_path: Path) -> None:
    path = saved(tmp_path, '{\n"preferences": 1}')
    with pytest.raises(ProfileError, match=f"^{re.escape(path)}: line 2: preferences must be a list, not a number$"):
        Profile.load(path)


def test_the_line_is_right_after_a_byte_order_mark(tmp_path: Path) -> None:
    path = saved(tmp_path, b'\xef\xbb\xbf\n{"preferences": 1}')
    with pytest.raises(ProfileError, match="line 2: preferences must be a list"):
        Profile.load(path)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=f"^{re.escape(str(tmp_path))} is a folder: give the path of a profile"):
        Profile.load(str(tmp_path))


def test_a_missing_file_is_refused_with_the_names_of_the_examples(tmp_path: Path) -> None:
    with pytest.raises(
        ProfileError, match=r"^no profile '.*none.json': give a JSON file or one of idris, mara, nell, odile$"
    ):
        Profile.load(str(tmp_path / "none.json"))


def test_a_name_that_is_no_example_is_refused() -> None:
    said = r"^no profile 'nobody': give a JSON file or one of idris, mara, nell, odile$"
    with pytest.raises(ProfileError, match=said):
        Profile.load("nobody")


def test_text_that_is_not_utf_8_is_refused_with_the_place(tmp_path: Path) -> None:
    path = saved(tmp_path, b'{"name": "M' + "ä".encode("latin-1") + b'ra"}')
    with pytest.raises(ProfileError, match=f"^{re.escape(path)} is not UTF-8 text \\(byte 11\\): save it as UTF-8$"):
        Profile.load(path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, WHOLE)

    def denied(*_: Any, **__: Any) -> str:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(Path, "read_text", denied)
    with pytest.raises(ProfileError, match=f"^cannot read the profile {re.escape(repr(path))}: Permission denied$"):
        Profile.load(path)


def test_a_profile_pasted_in_place_of_its_path_is_refused() -> None:
    with pytest.raises(ProfileError):  # longer than a file name may be
        Profile.load(json.dumps({"preferences": ["be brief, and " * 400]}))


def test_a_home_folder_of_nobody_is_refused() -> None:
    with pytest.raises(ProfileError):
        Profile.load("~no-such-user-here/user.json")


def test_deep_nesting_is_refused() -> None:
    for depth in (2, 50, 500, *range(800, 1000), 2000, 100_000):
        with pytest.raises(ProfileError, match=r"nested too deeply|must be a string, not a list"):
            parse_profile('{"preferences": [' + "[" * depth + "]" * depth + "]}")


def test_a_number_of_thousands_of_digits_is_refused() -> None:
    with pytest.raises(ProfileError):
        parse_profile('{"preferences": [' + "1" * 5000 + "]}")


@pytest.mark.parametrize("key", ["two\\nlines", "bell\\u0007", "half\\ud800"])
def test_a_strange_key_still_makes_an_error_of_one_printable_line(key: str) -> None:
    with pytest.raises(ProfileError) as info:
        parse_profile(f'{{"preferences": ["a"], "{key}": 1}}')
    assert str(info.value).isprintable()


# the line is right however the JSON is laid out

strings = st.text(max_size=12).filter(lambda s: s.strip() != "" and str(MARKER) not in s)
provenance = {
    "source": strings,
    "date": st.one_of(st.dates(), st.datetimes()).map(lambda date: date.isoformat()),
    "kind": st.sampled_from(["wrote", "edited", "kept"]),
}
items = st.fixed_dictionaries({"output": strings}, optional={"input": strings, "rejected": strings} | provenance)
profiles = st.fixed_dictionaries(
    {
        "name": strings,
        "about": strings,
        "preferences": st.lists(strings, max_size=3),
        "history": st.lists(items, min_size=1, max_size=3),
    }
)
space = st.text(" \t\n\r", max_size=4)


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    members: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        members = list(value.items())
    elif isinstance(value, list):
        members = list(enumerate(value))
    return [path, *(place for key, member in members for place in places(member, (*path, key)))]


def replaced(value: Any, path: tuple[str | int, ...]) -> Any:
    if not path:
        return MARKER
    copy: Any = list(value) if isinstance(value, list) else dict(value)
    copy[path[0]] = replaced(value[path[0]], path[1:])
    return copy


@st.composite
def written(draw: st.DrawFn, value: Any) -> str:
    def scattered(value: Any) -> str:
        if isinstance(value, dict):
            keys = draw(st.permutations(list(value)))
            members = [f"{token(key)}:{scattered(value[key])}" for key in keys]
            return f"{draw(space)}{{{','.join(members) or draw(space)}}}{draw(space)}"
        if isinstance(value, list):
            return f"{draw(space)}[{','.join(map(scattered, value)) or draw(space)}]{draw(space)}"
        return token(value)

    def token(value: Any) -> str:
        return draw(space) + json.dumps(value, ensure_ascii=draw(st.booleans())) + draw(space)

    return scattered(value)


@settings(deadline=None)
@given(st.data())
def test_a_wrong_value_is_found_on_its_line_in_any_layout(data: st.DataObject) -> None:
    profile = data.draw(profiles)
    path = data.draw(st.sampled_from(places(profile)))
    text = data.draw(written(replaced(profile, path)))
    line = text[: text.index(str(MARKER))].count("\n") + 1
    with pytest.raises(ProfileError, match=rf"^line {line}: .*must be .*, not a number$") as info:
        parse_profile(text)
    for key in path:
        assert str(key) in str(info.value)


@settings(deadline=None)
@given(profiles)
def test_a_profile_that_is_written_and_read_is_the_same(data: dict[str, Any]) -> None:
    profile = parse_profile(json.dumps(data))
    assert parse_profile(json.dumps(profile.as_json())) == profile


@settings(deadline=None)
@given(st.data())
def test_any_layout_of_a_profile_has_the_same_digest(data: st.DataObject) -> None:
    profile = data.draw(profiles)
    assert parse_profile(data.draw(written(profile))).digest() == parse_profile(json.dumps(profile)).digest()


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["name", "about", "preferences", "history", "input", "output", "x"]), inner, max_size=4
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_a_profile_or_an_error_with_a_line(value: Any) -> None:
    problem = ""
    try:
        profile = parse_profile(json.dumps(value, indent=1))
    except ProfileError as exc:
        problem = str(exc)
    assert re.match(r"line \d+: ", problem) if problem else profile.preferences or profile.history


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_refused_with_a_line(text: str) -> None:
    with pytest.raises(ProfileError, match=r"^line \d+: "):
        parse_profile(text)


# digest


def test_the_digest_does_not_see_layout_order_or_spelled_out_defaults(tmp_path: Path) -> None:
    one = Profile.load(saved(tmp_path, '{"name": "Zoë", "preferences": ["a"]}', "one.json"))
    assert one.path == tmp_path.resolve() / "one.json"
    other = Profile.load(
        saved(tmp_path, b'\xef\xbb\xbf{\r\n "preferences" : [ "a" ],\r\n "about":"", "name": "Zo\\u00eb","history":[]}')
    )
    assert one.digest() == other.digest()
    assert re.fullmatch("[0-9a-f]{64}", one.digest())


def test_the_digest_does_not_see_where_words_come_from_only_whose_they_are() -> None:
    # of a program that knew none of source, date and kind
    assert parse_profile(WHOLE).digest() == "f095c91a3494a4668ef7be10a60f0749ded02e2d305ae2514477a91c4e038bc2"
    plain, *others = (
        parse_profile(f'{{"history": [{{"output": "Ahoy."{more}}}]}}').digest()
        for more in ("", ', "source": "x"', ', "date": "2024-05-31"', ', "kind": "wrote"', ', "kind": "edited"')
    )
    assert set(others) == {plain}
    assert parse_profile('{"history": [{"output": "Ahoy.", "kind": "kept"}]}').digest() != plain


def test_every_change_of_content_changes_the_digest() -> None:
    changes = [
        ('"Mara"', '"mara"'),
        ("Skipper.", "Skipper"),
        ('"short", "blunt"', '"blunt", "short"'),
        ('"short", "blunt"', '"short"'),
        ('"short", "blunt"', '"short, blunt"'),
        ("Ahoy.", "Ahoy!"),
        ("Say hello.", "Say hello"),
        ('"Dear Sir or Madam,"', '""'),
        ('{"output": "Rain again."}', '{"output": "Rain again.", "input": "x"}'),
        ('{"output": "Rain again."}', '{"output": "Rain again.", "rejected": "x"}'),
    ]
    texts = [WHOLE, *(WHOLE.replace(old, new) for old, new in changes)]
    assert len(set(texts)) == 11
    assert len({parse_profile(text).digest() for text in texts}) == 11


# the shipped examples


def test_four_examples_ship_with_the_package() -> None:
    assert examples() == ["idris", "mara", "nell", "odile"]


@pytest.mark.parametrize("name", ["idris", "mara", "nell", "odile"])
def test_an_example_loads_by_name_and_has_twenty_items_or_more(name: str) -> None:
    profile = Profile.load(name)
    assert profile.name.split()[0].lower() == name
    assert profile.about
    assert len(profile.preferences) >= 3
    assert len(profile.history) >= 20
    assert all(item.input and item.output for item in profile.history)
    assert len({item.output for item in profile.history}) == len(profile.history)
    assert all(item.rejected != item.output for item in profile.history)


def test_the_examples_are_different_people() -> None:
    profiles = [Profile.load(name) for name in examples()]
    assert len({p.digest() for p in profiles}) == 4
    outputs = [item.output for p in profiles for item in p.history]
    assert len(set(outputs)) == len(outputs)
    preferences = [p for profile in profiles for p in profile.preferences]
    assert len(set(preferences)) == len(preferences)


def test_a_file_of_the_user_comes_before_an_example_of_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path, '{"preferences": ["mine"]}', "mara")
    assert Profile.load("mara").preferences == ("mine",)


# many people


def test_people_come_from_profiles_folders_and_lines(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    one = saved(tmp_path, '{"history": [{"output": "1"}]}', "one.json")
    saved(folder, '{"history": [{"output": "2"}]}')
    saved(folder, "not JSON", "wrong.json")
    lines = '\ufeff{"history": [{"output": "3\u2028"}]}\r\n\r\n'
    lines += '{"history": [{"output": "4"}]}\n{"history": [{"output": "1"}]}'
    file = saved(tmp_path, lines, "more.jsonl")
    notices: list[str] = []
    people = load_people([Path(one), folder, Path(file), Path(one)], notices.append)
    assert [person.history[0].output for person in people] == ["1", "2", "3\u2028", "4"]
    assert len({str(person.identity) for person in people}) == 4
    assert len(notices) == 1


@pytest.mark.parametrize(
    ("last", "said"),
    [
        ('{"history": [{"output": 3}]}', r"line 3: history\[0\]\.output must be a string, not a number$"),
        ("[1, 2]", r"line 3: the profile must be an object, not a list$"),
        ('{"history": }', r"line 3: not valid JSON: Expecting value \(column 13\)$"),
    ],
)
def test_a_wrong_line_of_people_is_named(tmp_path: Path, last: str, said: str) -> None:
    path = saved(tmp_path, '{"history": [{"output": "1"}]}\n\n' + last, "more.jsonl")
    with pytest.raises(ProfileError, match=f"^{re.escape(path)}: {said}"):
        load_people([Path(path)])
