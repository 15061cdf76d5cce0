"""The prompt that shows a profile to the model: the same for scoring and for chat."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from dps_local.engine.control_tokens import prompt_tokens
from dps_local.engine.model import Model
from dps_local.errors import ModelError, ProfileError, Remedy
from dps_local.prompting.chat_template import ChatTemplate
from dps_local.prompting.profile import HistoryItem, Profile
from dps_local.prompting.retrieval import most_relevant
from dps_local.system.progress import Notice

VERSION = 5  # raised when prompts or targets change: what was scored with others does not hold
DEFAULT_REQUEST = "Write something I would write."  # the task of a history item that has no input
ITEM_SHARE = 4  # a history item takes at most this part (a quarter) of the profile's tokens, and loses its end
RELATED_SHARE = 4  # of a history that is too long, this part of the profile's tokens shows what goes with the request
TRUNCATION_MARGIN = 8  # tokens at most that a text may have more than the tokens it was cut to
EARLIER = "Earlier writing:"


@dataclass(frozen=True)
class Prompter:
    """Builds prompts for one model and profile; the profile takes at most `budget` tokens, an example n_ctx.

    All of the history is in the system message where it fits. Else the newest items are, which stay the same from one
    request to the next, and each request brings those of the others that have most to do with it (BM25).
    """

    model: Model
    template: ChatTemplate
    profile: Profile
    budget: int
    n_ctx: int = 4096

    @classmethod
    def of(
        cls,
        model: Model,
        profile: Profile,
        template: ChatTemplate | None = None,
        *,
        n_ctx: int = 4096,
        profile_tokens: int | None = None,
        notice: Notice | None = None,
    ) -> Self:
        """Make one with what chat takes by default: the model's own template, and a quarter of the context."""
        n_ctx = model.trained_ctx(n_ctx, notice)
        return cls(model, template or ChatTemplate(model), profile, profile_tokens or n_ctx // 4, n_ctx)

    @property
    def identity(self) -> list[object]:
        """What tells these prompts from those of other profiles and settings, whatever is added to the profile."""
        return [*self.profile.identity, self.budget, self.n_ctx]

    def system(self, before: int | None = None) -> tuple[str, int]:
        """Return the profile as a system message, and how many history items are in it, the newest.

        before: show only the items before this one.
        """
        head = _head(self.profile)
        room = self.budget - self._count(head)
        items = range(len(self.profile.history[:before]))
        shown = self._fitting(reversed(items), room)
        if len(shown) < len(items):
            shown = self._fitting(reversed(items), room - self.budget // RELATED_SHARE)
        texts = [self._item(i) for i in reversed(shown)]
        return "\n\n".join([head, *([EARLIER, *texts] if texts else [])]), len(shown)

    def not_shown(self, n_shown: int) -> str:
        """Say what a system message with so many history items leaves out, '' where that is nothing."""
        n_items = len(self.profile.history)
        if n_shown == n_items:
            return ""
        return (
            f"the profile is longer than its {self.budget} tokens: the model sees the newest {n_shown} of {n_items} "
            "history items, and those that go with a question (--profile-tokens shows more)"
        )

    def describe(self, before: int | None = None) -> str:
        """Return what the profile says about the user, to compare users by; before: as in `system`."""
        return self.system(before)[0]

    def request(self, request: str, before: int | None = None, exclude: Container[int] = ()) -> tuple[str, list[int]]:
        """Return a request behind the history items that go with it and are not in the system message; and which.

        before: as in `system`; exclude: items that are in the conversation already.
        """
        n = len(self.profile.history[:before]) - self.system(before)[1]
        others = tuple(f"{item.input} {item.output}" for item in self.profile.history[:n])
        related = [i for i in most_relevant(others, request) if i not in exclude] if n else []
        shown = self._fitting(related, self.budget // RELATED_SHARE)
        if not shown:
            return request, []
        return "\n\n".join([EARLIER, *map(self._item, shown), f"Request: {request}"]), shown

    def _fitting(self, items: Iterable[int], room: int) -> list[int]:
        """Return the first of the history items that together take at most `room` tokens."""
        shown = []
        for i in items:
            room -= self._count(self._item(i))
            if room < 0:
                break
            shown.append(i)
        return shown

    def _item(self, i: int) -> str:
        item = self.profile.history[i]
        return self.truncate(f"Request: {request_of(item)}\nAnswer: {item.output.strip()}", self.budget // ITEM_SHARE)

    def _count(self, text: str) -> int:
        return len(self.model.tokenize(text, special=False)) + 2  # the blank line between parts

    def truncate(self, text: str, n: int) -> str:
        """Return the beginning of a text that has more than n tokens, and any other text as it is."""
        tokens = self.model.tokenize(text[: 32 * n], special=False)  # a token of 32 characters on average is unheard of
        if len(tokens) <= n and len(text) <= 32 * n:
            return text
        return self.model.detokenize(tokens[:n]).strip().removesuffix("\N{REPLACEMENT CHARACTER}") + " …"

    def example(
        self, i: int, target_tokens: int, *, with_profile: bool = True
    ) -> tuple[list[int], list[int], list[int]]:
        """Return the tokens of a prompt, of the output of history item i and of its `rejected`, as in `target`.

        The prompt shows the profile as it was when the user wrote the item, with the items before it;
        with_profile=False: the request alone. A request that does not fit into n_ctx loses its end.
        """
        item = self.profile.history[i]
        system = self.system(before=i)[0] if with_profile else ""
        request = request_of(item)
        prompt = self.prompt(system, self.request(request, before=i)[0] if with_profile else request)
        if (excess := len(prompt) + target_tokens - self.n_ctx) > 0:
            prompt = self.prompt(system, request)
            excess = len(prompt) + target_tokens - self.n_ctx
        if excess > 0:
            room = len(self.model.tokenize(request, special=False)) - excess - TRUNCATION_MARGIN
            prompt = self.prompt(system, self.truncate(request, max(1, room)))
            if len(prompt) + target_tokens > self.n_ctx:
                raise ProfileError(
                    f"the profile leaves no room for a request in {self.n_ctx} tokens", Remedy.SMALLER_PROFILE
                )
        return prompt, self.target(item.output, target_tokens), self.target(item.rejected, target_tokens)

    def prompt(self, system: str, request: str) -> list[int]:
        """Return the tokens of a first turn, up to where the answer starts."""
        return self.model.with_bos(prompt_tokens(self.model, self.template.first, system, request))

    def target(self, text: str, n: int) -> list[int]:
        """Return the tokens of an answer that are scored: its end with them, unless that makes more than n; then n."""
        tokens = self.answer(text)
        return [*tokens, *self.end][:n] if tokens else []

    @cached_property
    def end(self) -> list[int]:
        """Tokens by which the model ends an answer: as its template writes them, or else its EOS.

        For a base model, what separates an answer from the next request.
        """
        if self.template.stop:
            return self.model.tokenize(self.template.stop[0], special=False)
        try:
            after = self.model.tokenize(self.template.next("", 1, "…"), special=True)
        except ModelError:  # a template of single turns
            after = []
        for n, token in enumerate(after, 1):
            if self.model.is_eog(token):
                return after[:n]
            if not self.model.piece(token).isspace():
                break  # it has no end-of-turn token, and the next turn begins
        return [self.model.eos] if self.model.eos >= 0 else []

    def answer(self, text: str) -> list[int]:
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
