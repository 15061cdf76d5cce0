"""The prompt that shows a profile to the model: the same for scoring and for chat."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import NamedTuple, Self

from dps_local.engine.model import Model
from dps_local.errors import ModelError, ProfileError, Remedy
from dps_local.prompting.chat_template import ChatTemplate, Exchange, in_words
from dps_local.prompting.profile import HistoryItem, Profile
from dps_local.prompting.retrieval import most_relevant, passage
from dps_local.system.progress import Notice

VERSION = 7  # raised when prompts or targets change: what was scored with others does not hold
DEFAULT_REQUEST = "Write something I would write."  # the task of a history item that has no input
ITEM_SHARE = 4  # a history item takes at most this part (a quarter) of the profile's tokens, and loses its end
# Of a history that is too long, a small part of the profile's tokens shows what goes with a request, as that is read
# anew each time: this part, but at least so many tokens (or an item's share). An item takes half of them, or so many.
RELATED_SHARE, RELATED_LEAST, RELATED_ITEM = 12, 64, 42
TRUNCATION_MARGIN = 8  # tokens at most that a text may have more than the tokens it was cut to


class Request(NamedTuple):
    """What a user asks, and the exchanges that go with it and stand before it. items: their numbers in the history."""

    text: str
    exchanges: Sequence[Exchange] = ()
    items: Sequence[int] = ()


@dataclass(frozen=True)
class Prompter:
    """Builds prompts for one model and profile; the profile takes at most `budget` tokens, an example n_ctx.

    What the profile says is the system message, and history items are earlier turns of the chat: all of them where they
    fit. Else the newest are, which stay the same from one request to the next, and each request brings those of the
    others that have most to do with it (BM25).
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

    @property
    def system(self) -> str:
        """What the profile says, without its history: the system message."""
        name = self.profile.name or "the user"
        lines = [f"You write for {name}, in {name}'s own voice and habits."]
        if self.profile.about:
            lines.append(self.profile.about)
        if self.profile.preferences:
            lines.append("Preferences:\n" + "\n".join(f"- {p}" for p in self.profile.preferences))
        return "\n\n".join(lines)

    @property
    def related_tokens(self) -> int:
        """Tokens that the items which go with a request take at most."""
        return max(self.budget // RELATED_SHARE, min(RELATED_LEAST, self.budget // ITEM_SHARE))

    def shown(self, before: int | None = None) -> range:
        """Return the history items that every prompt shows, the newest.

        before: show only the items before this one.
        """
        room = self.budget - self._count(self.system)
        items = range(len(self.profile.history[:before]))
        n = len(self._fitting(reversed(items), room))
        if n < len(items):
            n = len(self._fitting(reversed(items), room - self.related_tokens))
        return items[len(items) - n :]

    def earlier(self, before: int | None = None) -> list[Exchange]:
        """Return the exchanges that every prompt shows; before: as in `shown`."""
        return list(map(self.exchange, self.shown(before)))

    def windows(self) -> list[range]:
        """Return, for each history item, the items before it that its prompt shows where many prompts are read in turn.

        Each window goes on from the one before, so that a prompt begins with another one, as in a chat that grows. One
        that would take more than the profile's tokens is halved from its start.
        """
        room = self.budget - self._count(self.system)
        costs = [self._cost(self.exchange(i)) for i in range(len(self.profile.history))]
        windows, start, used = list[range](), 0, 0
        for i, cost in enumerate(costs):
            windows.append(range(start, i))
            used += cost
            if used > room:
                while start <= i and used > room // 2:
                    used -= costs[start]
                    start += 1
        return windows

    def not_shown(self) -> str:
        """Say what prompts leave out of the history, '' where that is nothing."""
        n_items, n_shown = len(self.profile.history), len(self.shown())
        if n_shown == n_items:
            return ""
        return (
            f"the profile is longer than its {self.budget} tokens: the model sees the newest {n_shown} of {n_items} "
            "history items, and those that go with a question (--profile-tokens shows more)"
        )

    def describe(self, before: int | None = None) -> str:
        """Return what the profile says about the user, to compare users by: none of a model's words.

        before: as in `shown`.
        """
        own = replace(self.profile, history=tuple(item for item in self.profile.history[:before] if item.own))
        return in_words(self.system, replace(self, profile=own).earlier())

    def request(self, request: str, before: int | None = None, exclude: Container[int] = ()) -> Request:
        """Return a request with the history items that go with it and are not in every prompt, the best last.

        before: as in `shown`; exclude: items that are in the conversation already.
        """
        n = self.shown(before).start
        others = tuple(f"{item.input} {item.output}" for item in self.profile.history[:n])
        related = [i for i in most_relevant(others, request) if i not in exclude] if n else []
        room = self.related_tokens
        shown = partial(self.exchange, n=max(room // 2, min(room, RELATED_ITEM)), about=request)
        items = self._fitting(related, room, shown)[::-1]
        return Request(request, list(map(shown, items)), items)

    def exchange(self, i: int, n: int | None = None, about: str = "") -> Exchange:
        """Return a history item as it is shown, in at most n tokens (None for its share of the profile's).

        Its texts lose their ends: the request as far as half of the room, and then the answer, which begins with the
        sentence that has most to do with what the item is shown for.
        """
        item, n = self.profile.history[i], self.budget // ITEM_SHARE if n is None else n
        request, answer = whole = Exchange(request_of(item), item.output.strip())
        if self._frame + sum(self._length(text, n) for text in whole) <= n:
            return whole
        room = max(2, n - self._frame - 2 * TRUNCATION_MARGIN)
        request = self.truncate(request, max(room // 2, room - self._length(answer, room)))
        left = room + TRUNCATION_MARGIN - self._length(request, room)
        return Exchange(request, self.truncate(passage(answer, about), max(1, left)))

    def _fitting(self, items: Iterable[int], room: int, exchange: Callable[[int], Exchange] | None = None) -> list[int]:
        """Return the first of the history items that take at most `room` tokens; exchange: how one is shown."""
        shown = []
        for i in items:
            room -= self._cost((exchange or self.exchange)(i))
            if room < 0:
                break
            shown.append(i)
        return shown

    def _cost(self, exchange: Exchange) -> int:
        return self._frame + sum(len(self.model.tokenize(text, special=False)) for text in exchange)

    @cached_property
    def _frame(self) -> int:
        """Tokens that are around the texts of an exchange."""
        text = "x"
        one, two = (len(self.prompt("", Request(text, [Exchange(text, text)] * n))) for n in (1, 2))
        return two - one - 2 * len(self.model.tokenize(text, special=False))

    def _length(self, text: str, n: int) -> int:
        """Return how many tokens a text has, or more than n, if there are more."""
        return len(self.model.tokenize(text[: 32 * n], special=False)) + (len(text) > 32 * n)

    def _count(self, text: str) -> int:
        return len(self.model.tokenize(text, special=False)) + 2  # the blank line between parts

    def truncate(self, text: str, n: int) -> str:
        """Return the beginning of a text that has more than n tokens, and any other text as it is."""
        tokens = self.model.tokenize(text[: 32 * n], special=False)  # a token of 32 characters on average is unheard of
        if len(tokens) <= n and len(text) <= 32 * n:
            return text
        return self.model.detokenize(tokens[:n]).strip().removesuffix("\N{REPLACEMENT CHARACTER}") + " …"

    def example(
        self, i: int, target_tokens: int, *, with_profile: bool = True, window: range | None = None
    ) -> tuple[list[int], list[int], list[int]]:
        """Return the tokens of a prompt, of the output of history item i and of its `rejected`, as in `target`.

        The prompt shows the profile as it was when the user wrote the item, with the items before it;
        with_profile=False: the request alone. window: show these items, and none that go with the request. A request
        that does not fit into n_ctx loses its end.
        """
        item = self.profile.history[i]
        request = shown = Request(request_of(item))
        system, earlier = self.system if with_profile else "", list[Exchange]()
        if window is not None:
            earlier = list(map(self.exchange, window))
        elif with_profile:
            earlier, shown = self.earlier(before=i), self.request(request.text, before=i)
        prompt = self.prompt(system, shown, earlier)
        if (excess := len(prompt) + target_tokens - self.n_ctx) > 0:
            prompt = self.prompt(system, request, earlier)
            excess = len(prompt) + target_tokens - self.n_ctx
        if excess > 0:
            room = len(self.model.tokenize(request.text, special=False)) - excess - TRUNCATION_MARGIN
            prompt = self.prompt(system, Request(self.truncate(request.text, max(1, room))), earlier)
            if len(prompt) + target_tokens > self.n_ctx:
                raise ProfileError(
                    f"the profile leaves no room for a request in {self.n_ctx} tokens", Remedy.SMALLER_PROFILE
                )
        return prompt, self.target(item.output, target_tokens), self.target(item.rejected, target_tokens)

    def prompt(self, system: str, request: Request, earlier: Sequence[Exchange] = ()) -> list[int]:
        """Return the tokens of a first turn behind earlier ones, up to where the answer starts."""
        return self.template.first_tokens(system, request.text, [*earlier, *request.exchanges])

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


def request_of(item: HistoryItem) -> str:
    """Return what the user was asked for when they wrote an item."""
    return item.input or DEFAULT_REQUEST
