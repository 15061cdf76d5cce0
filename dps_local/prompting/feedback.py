"""Feedback: what a person kept of a model's answers, edited or preferred in a chat, as history items of their profile.

What is kept goes into the profile's file, as any other item; its source tells it from the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from dps_local.errors import ProfileError
from dps_local.prompting.profile import HistoryItem, Kind, Profile
from dps_local.system.files import StrPath, locked

SOURCE = "chat"
History = Sequence[HistoryItem]


def feedback_item(question: str, output: str, rejected: str = "", kind: Kind = "kept") -> HistoryItem:
    """Return the item of an answer of now; rejected: the one that the person liked less, '' where there is none."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return HistoryItem(output, question, "" if rejected == output else rejected, SOURCE, now, kind)


def feedback_of(profile: Profile) -> list[HistoryItem]:
    return [item for item in profile.history if item.source == SOURCE]


def add_feedback(path: StrPath, item: HistoryItem) -> bool:
    """Add an item to the profile of a file, which other programs may add to at the same time; False if it has it.

    Raises ProfileError where the file does not hold a profile any more, StorageError where it cannot be written.
    """

    def added(history: History) -> History:
        known = {replace(one, date=item.date) for one in history}
        return history if item in known else [*history, item]

    return _change(path, added)


def remove_feedback(path: StrPath, items: Iterable[HistoryItem]) -> None:
    """Remove items from the profile of a file, each once; raises as `add_feedback`."""

    def rest(history: History) -> History:
        left = list(history)
        for item in items:
            if item in left:
                left.remove(item)
        return left

    _change(path, rest)


def _change(path: StrPath, change: Callable[[History], History]) -> bool:
    """Read a profile's history, and write what `change` makes of it; whether that is another one."""
    with locked(path):
        profile = Profile.load(path)
        history = tuple(change(profile.history))
        if not history and not profile.preferences:
            raise ProfileError(f"{path} would be empty, and a profile is not: delete the file instead")
        if history != profile.history:
            replace(profile, history=history).save(path)
        return history != profile.history


def preference_pairs(items: Iterable[HistoryItem]) -> Iterator[dict[str, Any]]:
    """Yield {prompt, chosen, rejected} of the items that have both answers, as TRL's DPOTrainer reads messages."""
    for item in items:
        if item.rejected:
            yield {
                "prompt": _message("user", item.input),
                "chosen": _message("assistant", item.output),
                "rejected": _message("assistant", item.rejected),
            }


def labelled_answers(items: Iterable[HistoryItem]) -> Iterator[dict[str, Any]]:
    """Yield {prompt, completion, label} of each answer, label: whether it was liked, as TRL's KTOTrainer does."""
    for item in items:
        for text, label in ((item.output, True), (item.rejected, False)):
            if text:
                prompt, completion = _message("user", item.input), _message("assistant", text)
                yield {"prompt": prompt, "completion": completion, "label": label}


def _message(role: str, content: str) -> list[dict[str, str]]:
    return [{"role": role, "content": content}]
