"""The prompt that shows a profile to the model: the same for scoring and for chat."""

from __future__ import annotations

from dataclasses import dataclass

from dps_local.errors import ProfileError
from dps_local.model import Model
from dps_local.profile import HistoryItem, Profile
from dps_local.template import ChatTemplate

DEFAULT_REQUEST = "Write something I would write."  # the task of a history item that has no input
ITEM_SHARE = 4  # a history item takes at most this part (a quarter) of the profile's tokens, and loses its end


@dataclass(frozen=True)
class Prompter:
    """Builds prompts for one model and profile; the profile takes at most `budget` tokens, an example n_ctx."""

    model: Model
    template: ChatTemplate
    profile: Profile
    budget: int
    n_ctx: int = 4096

    def system(self, before: int | None = None) -> tuple[str, int]:
        """Return the profile as a system message, and how many history items are in it.

        When the profile is too long, the newest items stay. before: show only the items before this one.
        """
        head = _head(self.profile)
        shown: list[str] = []
        left = self.budget - self._count(head)
        for item in reversed(self.profile.history[:before]):
            text = self.cut(_item(item), self.budget // ITEM_SHARE)
            left -= self._count(text)
            if left < 0:
                break
            shown.insert(0, text)
        parts = [head, *(["Earlier writing:\n\n" + "\n\n".join(shown)] if shown else [])]
        return "\n\n".join(parts), len(shown)

    def _count(self, text: str) -> int:
        return len(self.model.tokenize(text, special=False)) + 2  # the blank line between parts

    def cut(self, text: str, n: int) -> str:
        """Return the beginning of a text that has more than n tokens, and any other text as it is."""
        tokens = self.model.tokenize(text[: 32 * n], special=False)  # a token of 32 characters on average is unheard of
        if len(tokens) <= n and len(text) <= 32 * n:
            return text
        return self.model.detokenize(tokens[:n]).strip().removesuffix("\N{REPLACEMENT CHARACTER}") + " …"

    def example(self, i: int, target_tokens: int, *, bare: bool = False) -> tuple[list[int], list[int], list[int]]:
        """Return the tokens of a prompt, of the output of history item i and of its `rejected`.

        The prompt shows the profile as it was when the user wrote the item, with the items before it; bare: the
        request alone. Outputs are cut to target_tokens; a request that does not fit into n_ctx loses its end.
        """
        item = self.profile.history[i]
        system = "" if bare else self.system(before=i)[0]
        request = request_of(item)
        prompt = self._prompt(system, request)
        if (excess := len(prompt) + target_tokens - self.n_ctx) > 0:
            room = len(self.model.tokenize(request, special=False)) - excess - 8  # what a cut may add
            prompt = self._prompt(system, self.cut(request, max(1, room)))
            if len(prompt) + target_tokens > self.n_ctx:
                raise ProfileError(
                    f"the profile leaves no room for a request in {self.n_ctx} tokens: "
                    "make --ctx-size larger, or --profile-tokens smaller"
                )
        return prompt, self._answer(item.output)[:target_tokens], self._answer(item.rejected)[:target_tokens]

    def _prompt(self, system: str, request: str) -> list[int]:
        return self.model.prompt_tokens(self.template.first(system, request))

    def _answer(self, text: str) -> list[int]:
        """Return the tokens of an answer as the model would begin it after the prompt."""
        text = text.strip()
        return self.model.tokenize(text if self.model.chat_template or not text else f" {text}", special=False)


def _head(profile: Profile) -> str:
    name = profile.name or "the user"
    lines = [f"You write for {name}, in {name}'s own voice and habits."]
    if profile.about:
        lines.append(profile.about)
    if profile.preferences:
        lines.append("Preferences:\n" + "\n".join(f"- {p}" for p in profile.preferences))
    return "\n\n".join(lines)


def request_of(item: HistoryItem) -> str:
    """Return what the user was asked for when they wrote an item."""
    return item.input or DEFAULT_REQUEST


def _item(item: HistoryItem) -> str:
    return f"Request: {request_of(item)}\nAnswer: {item.output.strip()}"
