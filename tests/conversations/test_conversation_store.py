"""The file of conversations: its owner's alone, shared by chats at the same time, without a trace of what is gone."""

from __future__ import annotations

import sqlite3
import string
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dps_local.chat.messages import Message
from dps_local.conversations.conversation import KeptTurn
from dps_local.conversations.conversation_store import ChangedError, ConversationStore
from dps_local.conversations.setup import Setup
from dps_local.errors import ConversationError, StorageError

SETUP = Setup("Tiny", "f1", "h1", "contrast", "p1", 512, "v1", "/home/ada/me.json", {"model": "tiny", "temp": 0})
WRITER = """
import sys
from pathlib import Path
from dps_local.conversations.conversation import KeptTurn
from dps_local.conversations.conversation_store import ConversationStore
from dps_local.conversations.setup import Setup
with ConversationStore(Path(sys.argv[1])) as store:
    turns = [KeptTurn(f"{sys.argv[2]} asks 0", None)]
    kept = store.begin(Setup("Tiny", "f", "h", "", "p", 512, "v"), turns)
    for i in range(1, 30):
        turns.append(KeptTurn(f"{sys.argv[2]} asks {i}", None))
        kept = store.change(kept, kept.setup, i, turns[i:])
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ConversationStore]:
    with ConversationStore(tmp_path / "kept.db") as opened:
        yield opened


def turn(question: str, answer: str | None = None) -> KeptTurn:
    if answer is None:
        return KeptTurn(question, None)
    message: Message = {
        "role": "assistant",
        "content": answer,
        "tokens": [7, 300, 2],
        "n_decoded": 4,
        "n_predict": -1,
        "stop": "eog",
        "gamma": "0.5",
    }
    return KeptTurn(question, message)


def bytes_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_what_is_kept_comes_back_as_it_was(store: ConversationStore) -> None:
    turns = [turn("Where?\nSay.", "There."), turn("When?", "Ünd 👩\u200d🚀\x00 so"), turn("Who?")]
    kept = store.begin(SETUP, turns)
    with ConversationStore(store.path) as again:
        (found,) = again.all()
        assert found == kept
        assert (found.setup, found.turns, found.title) == (SETUP, 2, "Where? Say.")
        assert again.turns(found) == turns


def test_a_conversation_goes_on_from_any_of_its_turns(store: ConversationStore) -> None:
    assert store.unused
    kept = store.begin(SETUP, [turn("one", "1"), turn("two", "2"), turn("three")])
    other = replace(SETUP, fingerprint="f2")
    kept = store.change(kept, other, 1, [turn("zwei", "II")])
    assert store.turns(kept) == [turn("one", "1"), turn("zwei", "II")]
    assert (kept.setup, kept.turns, kept.title) == (other, 2, "one")
    store.change(kept, other, 0, [])
    assert store.all() == []
    assert not store.unused


def test_the_last_conversation_is_the_one_that_was_changed_last(store: ConversationStore) -> None:
    with pytest.raises(ConversationError, match="there is no conversation yet"):
        store.last()
    first, second = (store.begin(SETUP, [turn(question)]) for question in ("first", "second"))
    assert store.last().id == second.id
    store._db.execute("UPDATE conversation SET updated = '2020' WHERE id = ?", [second.id])
    assert store.last().id == first.id


def test_two_that_change_one_conversation_are_told(store: ConversationStore) -> None:
    kept = store.begin(SETUP, [turn("one", "1")])
    store.change(kept, SETUP, 1, [turn("two", "2")])
    with pytest.raises(ChangedError) as changed:
        store.change(kept, SETUP, 1, [turn("due", "2")])
    assert not changed.value.removed
    store.remove([kept])
    with pytest.raises(ChangedError) as changed:
        store.change(kept, SETUP, 1, [])
    assert changed.value.removed
    assert store.all() == []


def test_a_conversation_is_found_by_its_number_its_title_or_a_part_of_it(store: ConversationStore) -> None:
    titles = ["The harbour", "the harbour at night", "Über %_ 'quotes\" -- ; DROP", "2"]
    ids = [store.begin(SETUP, [turn(title)]).id for title in titles]
    for name, number in {"1": 1, "the HARBOUR": 1, "night": 2, "uber": 3, "%_ 'q": 3, "2": 2, "4": 4}.items():
        assert store.find(name).id == ids[number - 1], name
    with pytest.raises(ConversationError, match=r"several conversations are called 'harb': .* \(2, 1\)"):
        store.find("harb")
    assert store.find("%").id == 3  # no wildcard
    for name in ("none", "", "  ", "99"):
        with pytest.raises(ConversationError, match="there is no conversation"):
            store.find(name)


def test_search_is_for_parts_of_words_whatever_their_case_and_accents(store: ConversationStore) -> None:
    first = store.begin(
        SETUP, [turn("Où est le café?", "Am STRASSENRAND."), turn("港はどこですか", "x" * 500 + " needle")]
    )
    second = store.begin(SETUP, [turn("A cafe?")])

    def found(*words: str) -> list[tuple[int, int]]:
        return [(hit.conversation.id, hit.turn) for hit in store.search(words)]

    assert found("CAFÉ") == [(second.id, 0), (first.id, 0)]
    assert found("cafe", "straße") == [(first.id, 0)]
    assert found("cafe straßenrand") == [(first.id, 0)]
    assert found("どこ") == [(first.id, 1)]
    assert found("cafe", "needle") == []
    (hit,) = store.search(["needle"])
    assert hit.excerpt == f"…{'x' * 29} needle"


@settings(max_examples=60, deadline=None)
@given(st.text(min_size=1, max_size=40).filter(str.strip), st.text(max_size=20))
def test_any_words_are_plain_words(tmp_path_factory: pytest.TempPathFactory, title: str, after: str) -> None:
    """Also those of SQL's and FTS's syntax: the same text is found by itself, and a letter more finds nothing."""
    with ConversationStore(tmp_path_factory.mktemp("store") / "kept.db") as store:
        title = title.encode(errors="replace").decode()
        question = f"{title} {after.encode(errors='replace').decode()}"
        kept = store.begin(SETUP, [turn(question)])
        assert [hit.conversation.id for hit in store.search([title])] == [kept.id]
        assert store.search([f"{title}\N{SNOWMAN}"]) == [] or "\N{SNOWMAN}" in question
        assert store.find(kept.title).id == kept.id
        assert [t.question for t in store.turns(kept)] == [question]


@pytest.mark.parametrize(
    "word", ["AND", "OR NOT", '"', "x*", "NEAR(a b)", "title:x", "'; DROP TABLE turn; --", "%", "_"]
)
def test_syntax_finds_itself_alone(store: ConversationStore, word: str) -> None:
    store.begin(SETUP, [turn("plain")])
    kept = store.begin(SETUP, [turn(f"so {word} then")])
    assert [hit.conversation.id for hit in store.search([word])] == [kept.id]
    assert len(store.all()) == 2


def test_what_is_removed_leaves_no_word_in_any_file(store: ConversationStore) -> None:
    """Also words of long texts that span pages, of turns taken back, and with another chat open."""
    secret = "Xylofon-Geheimnis"
    with ConversationStore(store.path) as other:
        other.begin(SETUP, [turn("harmless", "words")])
        kept = store.begin(SETUP, [turn(f"{secret} {i} " * 40, f"{secret}! " * 400) for i in range(30)])
        kept = store.change(kept, SETUP, 20, [turn(f"{secret} again")])
        assert secret.encode() in bytes_of(store.path.parent)
        store.remove([kept])
        assert [c.title for c in other.all()] == ["harmless"]
        for part in (secret, secret[:5], secret[-5:]):
            assert part.encode() not in bytes_of(store.path.parent)
    assert b"harmless" in bytes_of(store.path.parent)


def test_the_file_and_its_log_are_their_owners_alone(store: ConversationStore) -> None:
    store.begin(SETUP, [turn("one")])
    files = sorted(store.path.parent.iterdir())
    assert [file.name for file in files] == ["kept.db", "kept.db-shm", "kept.db-wal"]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert store._db.execute("PRAGMA secure_delete").fetchone()[0] == 1


def test_a_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "kept.db"
    path.touch(0o644)
    path.chmod(0o644)
    with ConversationStore(path) as store:
        store.begin(SETUP, [turn("one")])
        assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}


def test_chats_at_the_same_time_do_not_lock_each_other(tmp_path: Path) -> None:
    path = tmp_path / "kept.db"
    command = [sys.executable, "-P", "-c", WRITER, str(path)]
    writers = [
        subprocess.Popen([*command, name], stderr=subprocess.PIPE, text=True) for name in string.ascii_uppercase[:4]
    ]
    for writer in writers:
        assert writer.communicate()[1] == ""
        assert writer.returncode == 0
    with ConversationStore(path) as store:
        assert len(store.all()) == 4
        for kept in store.all():
            name = kept.title[0]
            assert [t.question for t in store.turns(kept)] == [f"{name} asks {i}" for i in range(30)]


def test_what_is_no_store_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database, but longer than the header of one: " * 10)
    with pytest.raises(StorageError, match="file is not a database"):
        ConversationStore(tmp_path / "text.db")
    with pytest.raises(StorageError, match=r"cannot use .*none/kept.db: "):
        ConversationStore(tmp_path / "none" / "kept.db")
    with ConversationStore(tmp_path / "newer.db"):
        pass
    with sqlite3.connect(tmp_path / "newer.db") as newer:
        newer.execute("PRAGMA user_version = 2")
    newer.close()
    with pytest.raises(StorageError, match="written by another version of dps-local"):
        ConversationStore(tmp_path / "newer.db")
