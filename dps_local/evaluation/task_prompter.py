"""`TaskPrompter`: prompts as LaMP makes them, with what is most relevant of a user's items beside the input."""

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
from dps_local.prompting.chat_template import ChatTemplate
from dps_local.prompting.profile import HistoryItem, Profile
from dps_local.prompting.prompt import ITEM_SHARE, TRUNCATION_MARGIN, Prompter
from dps_local.prompting.retrieval import most_relevant


@dataclass(frozen=True, kw_only=True)
class TaskPrompter(Prompter):
    """Builds prompts of a task. All that the model sees of a user stands with the input; there is no system message.

    items: history item i of the profile, as the benchmark has it. most: at most so many items are in a prompt, the
    most relevant or the newest; `budget` is for their phrases and the preferences.
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

    def system(self, before: int | None = None) -> tuple[str, int]:  # noqa: ARG002 (there is none)
        return "", 0

    def describe(self, before: int | None = None) -> str:
        newest = self._fitting(reversed(range(len(self.items[:before]))), self.budget)
        return "\n\n".join([*self._preferences(), *(self._item(i) for i in reversed(newest))])

    def request(self, request: str, before: int | None = None, exclude: Container[int] = ()) -> tuple[str, list[int]]:
        shown = self.phrases(self._chosen(request, before, exclude))
        if shown:
            request = self.task.prompt(list(shown.values()), request)
        return "\n\n".join([*self._preferences(), request]), list(shown)

    def _preferences(self) -> list[str]:
        wishes = "; ".join(wish.strip().rstrip(".") for wish in self.profile.preferences)
        return [f"My preferences: {wishes}."] if wishes else []

    def _chosen(self, request: str, before: int | None, exclude: Container[int]) -> list[int]:
        """Return the items to show, the best first; where too few are relevant, the newest of the others too."""
        texts = tuple(map(self.task.searched, self.items[:before]))
        relevant = most_relevant(texts, self.task.query(request)) if self.chosen_by == "bm25" else []
        best = dict.fromkeys([*relevant, *reversed(range(len(texts)))])
        return [i for i in best if i not in exclude][: self.most]

    def phrases(self, items: Sequence[int]) -> dict[int, str]:
        """Return the phrases of items: each has an equal share of the budget, and what the ones before it left."""
        room = self.budget - sum(map(self._count, [*self._preferences(), self.task.prompt([], "")]))
        phrases, left = {}, 0
        for i in items:
            left += room // len(items)
            if phrase := self.phrase(i, left):
                phrases[i] = phrase
                left -= self._cost(phrase)
        return phrases

    def phrase(self, i: int, share: int) -> str:
        """Return an item's phrase in `share` tokens, its long field cut; "" where the others alone take more."""
        item, field = self.items[i], self.task.long_field
        phrase = self.task.phrase.format(**item)
        if (excess := self._cost(phrase) - share) <= 0:
            return phrase
        room = len(self.model.tokenize(item[field], special=False)) - excess - TRUNCATION_MARGIN
        return self.task.phrase.format(**{**item, field: self.truncate(item[field], room)}) if room > 0 else ""

    def _cost(self, phrase: str) -> int:
        return len(self.model.tokenize(f", and {phrase}", special=False))

    def _item(self, i: int) -> str:
        return self.phrase(i, self.budget // ITEM_SHARE)


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
