from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from exports import LRM, NNBSP, WHATSAPP, folder, zipped
from hypothesis import given, settings
from hypothesis import strategies as st

from dps_local.errors import DataError
from dps_local.importing.whatsapp import WhatsApp
from dps_local.importing.writing import Writing


def read(folder_: Path, text: str, me: str = "Mara") -> tuple[list[Writing], Counter[str]]:
    dropped = Counter[str]()
    source = folder(folder_, {"chat.txt": text}) / "chat.txt"
    return list(WhatsApp().read(source, [me], dropped)), dropped


@pytest.mark.parametrize("locale", WHATSAPP)
def test_the_same_chat_is_read_from_each_locale(locale: str, tmp_path: Path) -> None:
    (item,), dropped = read(tmp_path, WHATSAPP[locale])
    assert item.text == "Low water at six.\nBring the ladder."
    assert item.input == "When can we paint the hull?"
    assert item.date[:16] == "2024-02-13T08:18"
    assert item.source == "WhatsApp"
    if locale == "android-iso":  # says neither what was deleted nor what was left out
        assert dropped == {"system": 1, "media": 2}
    else:
        assert dropped == {"media": 1, "deleted": 1} | ({"system": 1} if locale.startswith("android") else {})


@pytest.mark.parametrize("locale", WHATSAPP)
def test_the_people_of_a_chat_are_those_who_wrote(locale: str, tmp_path: Path) -> None:
    authors = WhatsApp().authors(folder(tmp_path, {"chat.txt": WHATSAPP[locale]}) / "chat.txt")
    assert set(authors) == {"Jan de Vries", "Mara"}


def test_a_zip_is_read_as_it_is(tmp_path: Path) -> None:
    files = {"_chat.txt": WHATSAPP["ios-english-us"], "notes.txt": "Mara: not a chat", "00000003-PHOTO.jpg": "\0"}
    source = zipped(tmp_path, files)
    before = sorted(tmp_path.rglob("*"))
    items = list(WhatsApp().read(source, ["mara"], Counter()))
    assert [item.text for item in items] == ["Low water at six.\nBring the ladder."]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("stamp", "date"),
    [
        ("12/31/23, 11:59 PM - ", "2023-12-31T23:59:00"),
        (f"12/31/23, 12:05{NNBSP}AM - ", "2023-12-31T00:05:00"),
        (f"[31/12/2023, 12:05:09{NNBSP}pm] ", "2023-12-31T12:05:09"),
        ("31/12/2023, 23:59 - ", "2023-12-31T23:59:00"),
        ("31/12/2023 à 23:59 - ", "2023-12-31T23:59:00"),
        ("31.12.23, 23:59 - ", "2023-12-31T23:59:00"),
        ("[31.12.23, 23:59:58] ", "2023-12-31T23:59:58"),
        ("31-12-2023 23:59 - ", "2023-12-31T23:59:00"),
        ("2023/12/31 23:59 - ", "2023-12-31T23:59:00"),
        ("2023-12-31, 11:59 p.m. - ", "2023-12-31T23:59:00"),
        ("31/12/23, 11:59 p. m. - ", "2023-12-31T23:59:00"),
        ("[2023/12/31 下午11:59:58] ", "2023-12-31T23:59:58"),
        ("2023. 12. 31. 오후 11:59 - ", "2023-12-31T23:59:00"),
        ("31/12/23 11:59 μ.μ. - ", "2023-12-31T23:59:00"),
        ("31.12.2023, 11:59 nachm. - ", "2023-12-31T23:59:00"),
        ("\u200f٣١\u200f/١٢\u200f/٢٠٢٣، ١١:٥٩ م - ", "2023-12-31T23:59:00"),
        ("31/12/2566 23:59 - ", ""),  # of the Buddhist era
        ("45/45/2023 23:59 - ", ""),
    ],
)
def test_a_date_is_read_in_the_form_of_its_locale(stamp: str, date: str, tmp_path: Path) -> None:
    (item,), _ = read(tmp_path, f"{stamp}Mara: Happy new year to you all 🎆\n")
    assert (item.text, item.date) == ("Happy new year to you all 🎆", date)


@pytest.mark.parametrize(
    ("dates", "first"),
    [
        (("3/4/24, 8:00", "3/13/24, 8:00"), "2024-03-04"),  # no month is a thirteenth
        (("3/4/24, 8:00", "13/4/24, 8:00"), "2024-04-03"),
        (("3/4/24, 8:00", "4/4/24, 8:00", "5/4/24, 8:00", "1/5/24, 8:00"), "2024-04-03"),  # or else time goes back
        (("4/3/24, 8:00", "4/4/24, 8:00", "4/5/24, 8:00", "5/1/24, 8:00"), "2024-04-03"),
        (("3/4/24, 8:00",), "2024-04-03"),
        (("3/4/24, 8:00 AM",), "2024-03-04"),  # as in the United States
        (("3/4/2024, 8:00 am",), "2024-04-03"),  # as in Australia
    ],
)
def test_the_order_of_day_and_month_is_that_of_the_whole_chat(
    dates: tuple[str, ...], first: str, tmp_path: Path
) -> None:
    items, _ = read(tmp_path, "".join(f"{date} - Mara: Good morning, yard\n" for date in dates))
    assert items[0].date[:10] == first


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("IMG-20240213-WA0001.jpg (file attached)", None),
        (f"{LRM}IMG-20240213-WA0001.jpg (Datei angehängt)\nThe new mast", "The new mast"),
        ("<Medien ausgeschlossen>\nThe new mast", "The new mast"),
        ("plan of the mast.pdf (archivo adjunto)\nplan of the mast", None),
        ("plan.pdf (fichier joint)\nplan.pdf", None),
        ("The new mast " + LRM + "<attached: 00000012-PHOTO-2024-02-13-08-20-00.jpg>", "The new mast"),
        (f"{LRM}<adjunto: 00000012-PHOTO.jpg>", None),
        (f"plan.pdf • {LRM}2 pages {LRM}document omitted", f"plan.pdf • {LRM}2 pages {LRM}document omitted"),
        ("Bild weggelassen", None),
        ("I rewrote main.py (again)", "I rewrote main.py (again)"),
        ("It was deleted: this message was deleted", "It was deleted: this message was deleted"),
        ("See you at four <This message was edited>", "See you at four"),
        (f"See you at four {LRM}<Tätä viestiä muokattiin>", "See you at four"),
        ("2 < 3 and 5 > 4", "2 < 3 and 5 > 4"),
        ("Ask @\u2068Jan de Vries\u2069 about it", "Ask @Jan de Vries about it"),
        ("location: https://maps.google.com/?q=53.17,5.41", None),
        ("POLL:\nWhen?\nOPTION: Now (1 vote)", None),
        (f"{LRM}Missed voice call", None),
        ("null", None),
        ("Time: half past: four", "Time: half past: four"),
        ("שלום \u200fעולם, how are you", "שלום \u200fעולם, how are you"),
        ("one\u2028still one\x0bline", "one\u2028still one\x0bline"),
        ("\n  indented\n\nlast", "indented\n\nlast"),
        ("👩‍👩‍👧 family 👍🏽", "👩‍👩‍👧 family 👍🏽"),
    ],
)
def test_of_a_message_only_what_was_typed_is_read(body: str, text: str | None, tmp_path: Path) -> None:
    items, dropped = read(tmp_path, f"13/02/2024, 08:18 - Mara: {body}\n13/02/2024, 08:19 - Jan: ok\n")
    assert [item.text for item in items] == ([] if text is None else [text])
    assert bool(dropped) == (text is None or (text == "The new mast" and "<attached" not in body))


def test_names_are_compared_without_case_marks_and_kinds_of_space(tmp_path: Path) -> None:
    chat = "13/02/2024, 08:18 - \u202a+49 151\u00a0555\u202f01\u202c: On my way\n"
    items, _ = read(tmp_path, chat, "+49 151 555 01")
    assert [item.text for item in items] == ["On my way"]
    assert WhatsApp().authors(tmp_path / "chat.txt") == {"+49 151\u00a0555\u202f01": 1}


def test_a_message_that_looks_like_a_system_line_is_nobodys(tmp_path: Path) -> None:
    items, dropped = read(tmp_path, "13/02/2024, 08:18 - Mara added Jan\n13/02/2024, 08:19 - Mara: Welcome\n")
    assert [item.text for item in items] == ["Welcome"]
    assert dropped == {"system": 1}


def test_what_is_no_chat_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no chat of WhatsApp"):
        read(tmp_path, "Dear diary,\n13/02/2024, 08:18 - Mara: On my way\n")


@pytest.mark.parametrize(
    "piece", ["1", "1/", "1/1/24, ", "a: ", "\u200e", "[", "- ", "<", " ", "@\u2068", "(", "x.y ("]
)
def test_hostile_lines_take_no_time(piece: str, tmp_path: Path) -> None:
    chat = "13/02/2024, 08:18 - Mara: On my way\n" + (piece * 300_000)[:300_000] + "\n"
    chat += f"13/02/2024, 08:19 - Mara: {(piece * 60_000)[:60_000]}\n"
    start = time.process_time()
    read(tmp_path, chat)
    assert time.process_time() - start < 2


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder_ = tmp_path_factory.getbasetemp()
    read(folder_, f"13/02/2024, 08:18 - Mara: {text}")
    with suppress(DataError):
        read(folder_, text)
