from __future__ import annotations

import os
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from exports import NOTES, WHATSAPP, folder
from hypothesis import given, settings
from hypothesis import strategies as st

from dps_local.errors import DataError, MissingPackageError
from dps_local.importing import notes
from dps_local.importing.notes import LARGEST, LONGEST, Notes
from dps_local.importing.writing import Writing

BOAT = "2024-02-13T08:00:00"


def read(source: Path) -> tuple[list[Writing], Counter[str]]:
    dropped = Counter[str]()
    return list(Notes().read(source, [], dropped)), dropped


def texts(folder_: Path, note: str | bytes, name: str = "note.md") -> list[tuple[str, str]]:
    """Return (input, text) of the items of one note."""
    file = folder(folder_, {name: ""}) / name
    file.write_bytes(note.encode() if isinstance(note, str) else note)
    return [(item.input, item.text) for item in read(file)[0]]


def test_a_vault_is_read_without_templates_and_trash(tmp_path: Path) -> None:
    vault = folder(tmp_path, NOTES)
    os.utime(vault / "plain.txt", (1707811200, 1707811200))
    items, dropped = read(vault)
    assert items == [
        Writing("Wind all day. Slept badly.", "", "2024-02-14T00:00:00", "notes"),
        Writing("She leaks at the gland, see the log and Pump.", "Boat", BOAT, "notes"),
        Writing("- scrape twice\n- prime", "Boat — Paint", BOAT, "notes"),
        Writing("Just text.\n\nIn two paragraphs.", "plain", "2024-02-13T08:00:00+00:00", "notes"),
    ]
    assert dropped == {"template": 2}


def test_all_of_a_folder_is_the_persons_own(tmp_path: Path) -> None:
    assert Notes().authors(folder(tmp_path, NOTES)) == Counter()


@pytest.mark.parametrize(
    ("markdown", "text"),
    [
        ("a [b](https://x.example/(c)) d", "a b d"),
        ("a [b](<x y.md> 'title') d", "a b d"),
        ("a [b][ref] c [ref][]\n\n[ref]: https://x.example 'T'", "a b c ref"),
        ("a ![alt](i.png) b", "a  b"),
        ("[![badge](b.svg)](https://x.example) hi", "hi"),
        ("see [[Page#Part|the part]], [[Other]] and ![[embed]]", "see the part, Other and"),
        ("<https://x.example> and https://y.example", "https://x.example and https://y.example"),
        ("*emphasis*, **bold**, `code`, ~~no~~, ==mark==", "*emphasis*, **bold**, `code`, ~~no~~, mark"),
        ("before\n\n    indented code\n\nafter", "before\n\nafter"),
        ("before\n~~~\n```\n~~~\nafter", "before\nafter"),
        ("```\nnever closed\n\n# no heading", None),
        ("1. one\n2. two\n   ```\n   x\n   ```\n   more", "1. one\n2. two\n   more"),
        ("- a\n  > quoted in a list\n- b", "- a\n- b"),
        ("> [!quote]\n> said\n\nmine", "mine"),
        ("| a | b |\n|---|---|\n| 1 | 2 |\n\nmine", "mine"),
        ("<div>\nhtml\n</div>\n\nmine<!-- not -->", "mine"),
        ("a %%hidden\n\nlines%% b $$x\n= y$$ c", "a  b  c"),
        ("mine[^1]\n\n[^1]: the note", "mine"),
        ("- [ ] open\n- [x] done\n* [-] dropped", "- open\n- done\n* dropped"),
        ("mine ^block-1\n\n#tag #other/tag", "mine"),
        ("C# and #1 stay", "C# and #1 stay"),
        ("mine\r\n\r\n---\r\n\r\nlines", "mine\n\nlines"),
        ("💡 \u200fעברית", "💡 \u200fעברית"),
    ],
)
def test_of_markdown_only_what_was_written_is_read(markdown: str, text: str | None, tmp_path: Path) -> None:
    assert texts(tmp_path, markdown) == ([] if text is None else [("note", text)])


def test_a_note_is_cut_at_its_headings_which_are_its_subjects(tmp_path: Path) -> None:
    note = "Intro.\n\n# note\nOne.\n\n## Two **bold** [link](x)\n\nTwo.\n\nThree\n=====\n\nThird.\n\n## Empty\n"
    assert texts(tmp_path, note) == [
        ("note", "Intro."),
        ("note", "One."),
        ("note — Two **bold** link", "Two."),
        ("note — Three", "Third."),
    ]
    assert texts(tmp_path, "# Work\nWrote.", "2024-02-13.md") == [("Work", "Wrote.")]
    assert texts(tmp_path, "# no heading\nWrote.", "a.txt") == [("a", "# no heading\nWrote.")]


def test_a_long_section_is_cut_at_blank_lines(tmp_path: Path) -> None:
    paragraphs = [f"{n}: " + "word " * 99 + "end." for n in range(6)]  # of 101 words
    items = [text for _, text in texts(tmp_path, "\n\n".join(paragraphs))]
    assert items == ["\n\n".join(paragraphs[i : i + 2]) for i in (0, 2, 4)]
    (long,) = texts(tmp_path, "word " * (LONGEST + 50))
    assert len(long[1].split()) == LONGEST + 50


@pytest.mark.parametrize(
    ("front", "date"),
    [
        ("date: 2023-05-06", "2023-05-06T00:00:00"),
        ("created: '2023-05-06T07:08:09+02:00'", "2023-05-06T07:08:09+02:00"),
        ("date: 2023-05-06\ncreated: 2023-05-05 10:00", "2023-05-05T10:00:00"),
        ("date: soon", "2024-02-13T08:00:00+00:00"),
    ],
)
def test_a_note_is_dated_as_it_says_or_by_its_file(front: str, date: str, tmp_path: Path) -> None:
    file = folder(tmp_path, {"note.md": f"---\n{front}\n---\nWords."}) / "note.md"
    os.utime(file, (1707811200, 1707811200))
    assert [item.date for item in read(file)[0]] == [date]


@pytest.mark.parametrize(
    ("name", "note", "kind"),
    [
        ("a.md", "---\nsource: https://x.example/story\n---\nOnce upon", "clipping"),
        ("a.md", "---\nexcalidraw-plugin: parsed\n---\n{}", "drawing"),
        ("a.md", "# <% tp.file.title %>", "template"),
        ("a.md", "Today is {{date:YYYY}}", "template"),
        ("Clippings/a.md", "Once upon", "clipping"),
        ("a/Trash/a.md", "Once upon", "trash"),
        ("a.txt", "From jan@x.example Tue Feb 13\nSubject: x", "mail"),
        ("a.txt", WHATSAPP["android-german"], "chat"),
        ("a.txt", "\0\1\2", "not text"),
        ("a.md", "x" * (LARGEST + 1), "too large"),
    ],
)
def test_what_is_no_note_of_the_persons_is_counted(name: str, note: str, kind: str, tmp_path: Path) -> None:
    items, dropped = read(folder(tmp_path, {name: note, "b.md": "Mine."}))
    assert [item.text for item in items] == ["Mine."]
    assert dropped == {kind: 1}


def test_front_matter_of_other_kinds_goes_too(tmp_path: Path) -> None:
    assert texts(tmp_path, "+++\ntitle = 'x'\n+++\nMine.") == [("note", "Mine.")]
    assert texts(tmp_path, "---\n---\nMine.") == [("note", "Mine.")]
    assert texts(tmp_path, "Mine.\n\n---\nlater: stays\n") == [("note", "Mine.\n\nlater: stays")]


def test_texts_of_windows_are_read(tmp_path: Path) -> None:
    for data in (
        "Schöne Grüße".encode("cp1252"),
        "Schöne Grüße".encode("utf-16"),
        b"\xef\xbb\xbf" + "Schöne Grüße".encode(),
    ):
        assert texts(tmp_path, data, "a.txt") == [("a", "Schöne Grüße")]


def test_links_of_the_file_system_are_not_followed(tmp_path: Path) -> None:
    outside = folder(tmp_path / "outside", {"secret.md": "Not for you."})
    vault = folder(tmp_path / "vault", {"a.md": "Mine."})
    (vault / "link.md").symlink_to(outside / "secret.md")
    (vault / "folder").symlink_to(outside)
    assert [item.text for item in read(vault)[0]] == ["Mine."]


@pytest.mark.parametrize("mail", ["a.eml", "in/b.emlx", "mbox", "Sent.mbox/mbox", "sent.mbox", "cur/1:2,S"])
def test_a_folder_of_mail_is_none_of_notes(mail: str, tmp_path: Path) -> None:
    assert not Notes().recognises(folder(tmp_path, {"readme.txt": "Some mail.", mail: ""}))
    assert Notes().recognises(folder(tmp_path / "notes", {"readme.txt": "No mail.", "mbox.md": ""}))


def test_a_folder_without_notes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no notes: give Markdown or plain text"):
        read(folder(tmp_path, {".hidden/a.md": "x", "b.png": ""}))


@pytest.mark.parametrize(
    "piece", ["[", "[a](", "[[", "![", "> ", "- ", "*", "`", "<", "<!--", "%%a", "$$a", "==a", "a|", "#a"]
)
def test_hostile_notes_take_no_time(piece: str, tmp_path: Path) -> None:
    start = time.process_time()
    texts(tmp_path, (piece * LARGEST)[: LARGEST // 4])
    assert time.process_time() - start < 3


SIGNS = ["\n", " ", "#", ">", "`", "-", "[", "]", "(", ")", "|", "%", "a", "---\n", "```\n", "\r", "[[", "%%", "<!--"]


@settings(deadline=None)
@given(st.lists(st.sampled_from(SIGNS)).map("".join))
def test_any_markdown_is_read(tmp_path_factory: pytest.TempPathFactory, note: str) -> None:
    for _, text in texts(tmp_path_factory.getbasetemp(), note):
        assert text == text.strip() != ""


def test_words_outside_of_all_signs_are_kept(tmp_path: Path) -> None:
    """As a check from outside: no word of a note of plain paragraphs is lost, however long it is."""
    words = [f"w{n}" for n in range(3000)]
    note = "\n\n".join(" ".join(words[i : i + 40]) for i in range(0, 3000, 40))
    assert " ".join(text for _, text in texts(tmp_path, note)).split() == words


def test_markdown_it_is_asked_for_where_it_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "markdown_it", None)
    notes._markdown.cache_clear()
    with pytest.raises(
        MissingPackageError, match=r"^importing notes needs markdown-it-py: pip install 'dps-local\[import\]'"
    ):
        texts(tmp_path, "Mine.")
