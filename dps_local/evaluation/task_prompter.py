"""`TaskPrompter`: prompts with what is most relevant of a user's items before the input."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import cached_property

from dps_local.engine.model import Model
from dps_local.evaluation.dataset import User
from dps_local.evaluation.evaluation_options import ItemSelection
from dps_local.evaluation.task import Task
from dps_local.prompting.chat_template import ChatTemplate, Exchange, in_words
from dps_local.prompting.profile import HistoryItem, Profile
from dps_local.prompting.prompt import Prompter, Request
from dps_local.prompting.retrieval import most_relevant


@dataclass(frozen=True, kw_only=True)
class TaskPrompter(Prompter):
    """Builds prompts of a task: there is no system message, and no item that every prompt shows.

    items: history item i of the profile, as the benchmark has it. most: at most so many items are in a prompt, the
    most relevant or the newest; `budget` is for them and the preferences, which stand with the input.
    """

    task: Task
    items: tuple[dict[str, str], ...]
    most: int
    chosen_by: ItemSelection = "bm25"

    @property
    def identity(self) -> list[object]:
        return [*super().identity, self.task.name, self.most, self.chosen_by]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what there is of the user."""
        return hashlib.sha256(json.dumps([self.profile.digest(), self.items]).encode()).hexdigest()

    @property
    def system(self) -> str:
        return ""

    def shown(self, before: int | None = None) -> range:  # noqa: ARG002 (none is)
        return range(0)

    def describe(self, before: int | None = None) -> str:
        newest = self._fitting(reversed(range(len(self.items[:before]))), self.budget)
        return in_words("\n\n".join(self._preferences()), list(map(self.exchange, reversed(newest))))

    def request(self, request: str, before: int | None = None, exclude: Container[int] = ()) -> Request:
        """Return a request behind the exchanges that go with it, the best last."""
        shown = self._shares(self._chosen(request, before, exclude))
        text = "\n\n".join([*self._preferences(), request])
        return Request(text, list(shown.values())[::-1], list(shown)[::-1])

    def _preferences(self) -> list[str]:
        wishes = "; ".join(wish.strip().rstrip(".") for wish in self.profile.preferences)
        return [f"My preferences: {wishes}."] if wishes else []

    def _chosen(self, request: str, before: int | None, exclude: Container[int]) -> list[int]:
        """Return the items to show, the best first; where too few are relevant, the newest of the others too."""
        texts = tuple(map(self.task.searched, self.items[:before]))
        relevant = most_relevant(texts, self.task.query(request)) if self.chosen_by == "bm25" else []
        best = dict.fromkeys([*relevant, *reversed(range(len(texts)))])
        return [i for i in best if i not in exclude][: self.most]

    def _shares(self, items: Sequence[int]) -> dict[int, Exchange]:
        """Return the exchanges of items: each has an equal share of the budget, and what the ones before it left."""
        room, exchanges, left = self.budget - sum(map(self._count, self._preferences())), dict[int, Exchange](), 0
        for i in items:
            left += room // len(items)
            exchange = self.exchange(i, left)
            if (cost := self._cost(exchange)) <= left:
                exchanges[i] = exchange
                left -= cost
        return exchanges


def task_prompter(
    model: Model,
    template: ChatTemplate,
    user: User,
    task: Task,
    budget: int,
    n_ctx: int,
    most: int,
    chosen_by: ItemSelection = "bm25",
) -> TaskPrompter:
    """Return the prompter of a user, whose items are examples of the task to score heads on."""
    history = tuple(HistoryItem(item[task.answer_field], task.request_of(item)) for item in user.items)
    profile = Profile(name=user.id, preferences=user.preferences, history=history)
    return TaskPrompter(
        model, template, profile, budget, n_ctx, task=task, items=user.items, most=most, chosen_by=chosen_by
    )
