"""The prompt that shows a profile to the model: the same for scoring and for chat."""

from __future__ import annotations

from dataclasses import dataclass

from dps_local.model import Model
from dps_local.profile import HistoryItem, Profile
from dps_local.template import ChatTemplate

DEFAULT_REQUEST = "Write something I would write."  # the task of a history item that has no input


@dataclass(frozen=True)
class Prompter:
    """Builds prompts for one model and profile; the profile takes at most `budget` tokens."""

    model: Model
    template: ChatTemplate
    profile: Profile
    budget: int

    def system(self, leave_out: int | None = None) -> tuple[str, int]:
        """Return the profile as a system message, and how many history items are in it.

        When the profile is too long, the newest items stay. leave_out: index of an item that must not be shown.
        """
        head = _head(self.profile)
        shown: list[str] = []
        left = self.budget - self._count(head)
        for i in range(len(self.profile.history) - 1, -1, -1):
            if i == leave_out:
                continue
            text = _item(self.profile.history[i])
            left -= self._count(text)
            if left < 0:
                break
            shown.insert(0, text)
        parts = [head, *(["Earlier writing:\n\n" + "\n\n".join(shown)] if shown else [])]
        return "\n\n".join(parts), len(shown)

    def _count(self, text: str) -> int:
        return len(self.model.tokenize(text, special=False)) + 2  # the blank line between parts

    def example(self, i: int) -> tuple[list[int], list[int]]:
        """Return (prompt tokens, target tokens) of history item i, with that item left out of the profile."""
        item = self.profile.history[i]
        prompt = self.template.first(self.system(leave_out=i)[0], item.input or DEFAULT_REQUEST)
        return self.model.prompt_tokens(prompt), self.model.tokenize(self.answer(item), special=False)

    def answer(self, item: HistoryItem) -> str:
        """Return an item's output as the model would begin it after the prompt."""
        return item.output.strip() if self.model.chat_template else f" {item.output.strip()}"


def _head(profile: Profile) -> str:
    name = profile.name or "the user"
    lines = [f"You write for {name}, in {name}'s own voice and habits."]
    if profile.about:
        lines.append(profile.about)
    if profile.preferences:
        lines.append("Preferences:\n" + "\n".join(f"- {p}" for p in profile.preferences))
    return "\n\n".join(lines)


def _item(item: HistoryItem) -> str:
    return f"Request: {item.input or DEFAULT_REQUEST}\nAnswer: {item.output.strip()}"
