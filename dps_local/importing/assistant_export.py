"""What exports of assistants share: files of conversations, and the person's prompts on the branch that counts."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from dps_local.errors import DataError
from dps_local.importing.archive import Archive, looks_like, opened
from dps_local.importing.conversation import without_code_and_quotes, writing
from dps_local.importing.format import Format
from dps_local.importing.json_stream import objects
from dps_local.importing.writing import Writing

# one file, or numbered parts of it
_CONVERSATIONS = re.compile(r"(?:.*/)?conversations(?:-\d{1,6})?\.json")
_KEY = re.compile(r'"(mapping|chat_messages)"\s*:')  # which tells whose export it is


@dataclass(frozen=True)
class Turn:
    """A text of the person's (own), or of the assistant's."""

    text: str
    own: bool
    at: datetime | None = None


class AssistantExport(Format):
    """title: of the assistant. key: of its conversations, which others' have not."""

    title: str
    key: str
    prose = False

    @abstractmethod
    def turns(self, conversation: dict[str, Any], dropped: Counter[str]) -> Iterator[Turn]:
        """Yield the turns of the branch that is shown, in their order; what was not typed is counted."""

    def recognises(self, source: Path) -> bool:
        return looks_like(source, lambda archive, names: any(self._has(archive, name) for name in names))

    def read(self, source: Path, me: Collection[str], dropped: Counter[str]) -> Iterator[Writing]:  # noqa: ARG002
        with opened(source) as archive:
            names = [name for name in archive.names() if self._has(archive, name)]
            if not names:
                raise DataError(f"{source} has no conversations of {self.title}: give the export or conversations.json")
            for name in names:
                with archive.open(name) as stream:
                    for conversation in objects(stream):
                        yield from self._prompts(conversation, dropped)

    def _has(self, archive: Archive, name: str) -> bool:
        """Return whether a file holds conversations with this assistant."""
        if archive.source.name != name and not _CONVERSATIONS.fullmatch(name):
            return False
        if not name.endswith(".json"):
            return False
        head = archive.head(name)
        key = _KEY.search(head) if head.lstrip().startswith("[") else None
        return key is not None and key[1] == self.key

    def _prompts(self, conversation: dict[str, Any], dropped: Counter[str]) -> Iterator[Writing]:
        answer = ""
        for turn in self.turns(conversation, dropped):
            if not turn.own:
                answer = turn.text
            elif text := without_code_and_quotes(turn.text):
                yield writing(text, self.title, turn.at, answer)
            else:
                dropped["code"] += 1


def branch(messages: dict[str, dict[str, Any]], leaf: object, parent: str) -> list[dict[str, Any]]:
    """Return the messages from the root to a leaf; parent: the key under which each has its parent's id."""
    found = dict[str, dict[str, Any]]()
    while isinstance(leaf, str) and leaf in messages and leaf not in found:
        found[leaf] = messages[leaf]
        leaf = messages[leaf].get(parent)
    return list(found.values())[::-1]
