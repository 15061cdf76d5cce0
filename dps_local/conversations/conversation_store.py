"""`ConversationStore`: the conversations of a user, in one SQLite file that its owner alone can read."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, cast

from dps_local.chat.messages import Message
from dps_local.conversations.conversation import Conversation, KeptTurn, title_of
from dps_local.conversations.search import excerpt, folded
from dps_local.conversations.setup import Setup
from dps_local.errors import ConversationError, Remedy, StorageError
from dps_local.system.folders import data_root, private_folder

FORMAT = 1
PATIENCE = 10.0  # seconds to wait for another program that writes
SCHEMA = f"""
CREATE TABLE conversation (
    id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT NOT NULL, model TEXT NOT NULL, fingerprint TEXT NOT NULL,
    head_map TEXT NOT NULL, mode TEXT NOT NULL, profile TEXT NOT NULL, n_ctx INTEGER NOT NULL, version TEXT NOT NULL,
    person TEXT NOT NULL, options TEXT NOT NULL, created TEXT NOT NULL, updated TEXT NOT NULL, revision INTEGER NOT NULL
);
CREATE TABLE turn (
    conversation INTEGER NOT NULL REFERENCES conversation ON DELETE CASCADE, n INTEGER NOT NULL,
    question TEXT NOT NULL, answer TEXT, gamma TEXT, tokens TEXT, n_decoded INTEGER, n_predict INTEGER, stop TEXT,
    PRIMARY KEY (conversation, n)
);
PRAGMA user_version = {FORMAT};
"""
SETUP = ("model", "fingerprint", "head_map", "mode", "profile", "n_ctx", "version", "person", "options")
COLUMNS = ("title", *SETUP, "created", "updated", "revision")
ANSWER = ("gamma", "tokens", "n_decoded", "n_predict", "stop")  # of a `Message`, beside its content
SELECT = f"""
SELECT id, title, created, updated, revision, {", ".join(SETUP)},
    (SELECT COUNT(answer) FROM turn WHERE conversation = id) AS turns
FROM conversation
"""


@dataclass(frozen=True)
class Found:
    """A turn that has the words that were searched, and about where."""

    conversation: Conversation
    turn: int
    excerpt: str


class ConversationStore:
    """A context manager, that closes the file. Every change is one short transaction, so that chats at the same time
    wait for each other for milliseconds.

    What is removed is overwritten, in the file and in its log. Raises StorageError where the file cannot be read or
    written.
    """

    def __init__(self, path: Path | None = None) -> None:
        if path is None:
            private_folder(data_root())
        self.path = path or default_path()
        with self._one_line():
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            self.path.chmod(0o600)  # its log gets the same mode
            self._db = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None)
            self._db.row_factory = sqlite3.Row
            try:
                self._open()
            except BaseException:
                self._db.close()
                raise

    def _open(self) -> None:
        self._db.executescript("PRAGMA secure_delete = ON; PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY;")
        found = self._format()
        if not found:
            self._db.execute("PRAGMA journal_mode = WAL")
            with self._writing():
                if not self._format():  # else another chat was faster
                    for statement in SCHEMA.split(";"):
                        self._db.execute(statement)
        elif found != FORMAT:
            raise StorageError(f"{self.path} was written by another version of dps-local: use that one")

    def _format(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _one_line(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as exc:
            raise StorageError(f"cannot use {self.path}: {exc}") from exc

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # --- what chats write

    def begin(self, setup: Setup, turns: Sequence[KeptTurn]) -> Conversation:
        """Keep a new conversation; its title comes from its first question."""
        now = _now()
        values = [title_of(turns[0].question), *_setup_values(setup), now, now, 0]
        with self._one_line(), self._writing():
            marks = ", ".join("?" * len(COLUMNS))
            added = self._db.execute(f"INSERT INTO conversation ({', '.join(COLUMNS)}) VALUES ({marks})", values)
            self._insert(added.lastrowid or 0, 0, turns)
            return self._one(added.lastrowid or 0)

    def change(self, conversation: Conversation, setup: Setup, n: int, turns: Sequence[KeptTurn]) -> Conversation:
        """Let a conversation go on with `turns` after its first n, in place of what it had there.

        One that has no turns left is removed. Raises ChangedError where it is not as `conversation` says any more.
        """
        named = ", ".join(f"{name} = ?" for name in SETUP)
        with self._one_line(), self._writing():
            changed = self._db.execute(
                f"UPDATE conversation SET {named}, updated = ?, revision = revision + 1 WHERE id = ? AND revision = ?",
                [*_setup_values(setup), _now(), conversation.id, conversation.revision],
            )
            if not changed.rowcount:
                known = self._db.execute("SELECT 1 FROM conversation WHERE id = ?", [conversation.id]).fetchone()
                raise ChangedError(removed=known is None)
            self._db.execute("DELETE FROM turn WHERE conversation = ? AND n >= ?", [conversation.id, n])
            self._insert(conversation.id, n, turns)
            changed_one = self._one(conversation.id)
            if not n and not turns:
                self._db.execute("DELETE FROM conversation WHERE id = ?", [conversation.id])
            return changed_one

    def _insert(self, conversation: int, n: int, turns: Sequence[KeptTurn]) -> None:
        rows = [[conversation, n + i, turn.question, *_answer_values(turn.answer)] for i, turn in enumerate(turns)]
        self._db.executemany("INSERT INTO turn VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def _one(self, id_: int) -> Conversation:
        return _conversation(self._db.execute(f"{SELECT} WHERE id = ?", [id_]).fetchone())

    # --- what is read

    @property
    def unused(self) -> bool:
        """Whether no conversation was ever kept here."""
        with self._one_line():
            return self._db.execute("SELECT 1 FROM sqlite_sequence").fetchone() is None

    def all(self) -> list[Conversation]:
        """Return all conversations, the last one first."""
        with self._one_line():
            rows = self._db.execute(f"{SELECT} ORDER BY updated DESC, id DESC").fetchall()
        return [_conversation(row) for row in rows]

    def last(self) -> Conversation:
        """Return the conversation that was changed last; raises ConversationError where there is none."""
        for conversation in self.all():
            return conversation
        raise ConversationError("there is no conversation yet")

    def find(self, name: str) -> Conversation:
        """Return the conversation with this number, this title, or the only one whose title has these words.

        Raises ConversationError.
        """
        known = self.all()
        for conversation in known:
            if name.strip() == str(conversation.id):
                return conversation
        wanted = folded(name.strip())
        titles = [folded(conversation.title) for conversation in known]
        same = [c for c, title in zip(known, titles, strict=True) if title == wanted]
        found = same or [c for c, title in zip(known, titles, strict=True) if wanted and wanted in title]
        if len(found) > 1:
            numbers = ", ".join(str(conversation.id) for conversation in found)
            raise ConversationError(f"several conversations are called {name!r}: name one by its number ({numbers})")
        if not found:
            raise ConversationError(f"there is no conversation {name!r}", Remedy.KNOWN_CONVERSATION)
        return found[0]

    def turns(self, conversation: Conversation) -> list[KeptTurn]:
        with self._one_line():
            rows = self._db.execute("SELECT * FROM turn WHERE conversation = ? ORDER BY n", [conversation.id])
            return [_turn(row) for row in rows]

    def search(self, words: Sequence[str]) -> list[Found]:
        """Return the turns that have all of the words, those of the last conversations first."""
        wanted = [word for text in words for word in folded(text).split()]
        known, found = {conversation.id: conversation for conversation in self.all()}, list[Found]()
        with self._one_line():
            rows = self._db.execute("SELECT conversation, n, question, answer FROM turn ORDER BY conversation, n")
            for id_, n, question, answer in rows:
                shown = excerpt(f"{question}\n{answer or ''}", wanted)
                if shown is not None and id_ in known:
                    found.append(Found(known[id_], n, shown))
        places = {id_: place for place, id_ in enumerate(known)}
        return sorted(found, key=lambda hit: (places[hit.conversation.id], hit.turn))

    # --- what is removed

    def remove(self, conversations: Sequence[Conversation]) -> None:
        """Remove conversations so that no word of them is left in the file or its log.

        Removed rows are overwritten, but pages that were rearranged may hold copies: so the file is written anew.
        """
        with self._one_line():
            with self._writing():
                ids = [[conversation.id] for conversation in conversations]
                self._db.executemany("DELETE FROM conversation WHERE id = ?", ids)
            self._db.execute("VACUUM")
            if self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                raise StorageError(f"another program reads {self.path}: remove again when it has ended")


class ChangedError(Exception):
    """Another program has changed a conversation, or removed it."""

    def __init__(self, *, removed: bool) -> None:
        super().__init__()
        self.removed = removed


def default_path() -> Path:
    return data_root() / "conversations.db"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _setup_values(setup: Setup) -> list[Any]:
    values = [getattr(setup, name) for name in SETUP]
    return [*values[:-1], json.dumps(values[-1])]


def _answer_values(answer: Message | None) -> list[Any]:
    if answer is None:
        return [None] * (1 + len(ANSWER))
    values = {name: answer.get(name) for name in ANSWER}
    return [answer["content"], *(values | {"tokens": json.dumps(values["tokens"])}).values()]


def _conversation(row: sqlite3.Row) -> Conversation:
    setup = {name: row[name] for name in SETUP}
    return Conversation(
        row["id"],
        row["title"],
        Setup(**setup | {"options": json.loads(row["options"])}),
        row["created"],
        row["updated"],
        row["turns"],
        row["revision"],
    )


def _turn(row: sqlite3.Row) -> KeptTurn:
    if row["answer"] is None:
        return KeptTurn(row["question"], None)
    values = {name: row[name] for name in ANSWER} | {"tokens": json.loads(row["tokens"])}
    known = {name: value for name, value in values.items() if value is not None}
    return KeptTurn(row["question"], cast(Message, {"role": "assistant", "content": row["answer"], **known}))
