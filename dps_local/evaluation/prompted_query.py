"""`PromptedQuery`: a query of one user, and the prompts that it makes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from dps_local.evaluation.dataset import Query
from dps_local.evaluation.task_prompter import TaskPrompter
from dps_local.evaluation.treatment import PromptKind, Treatment
from dps_local.prompting.prompt import Request
from dps_local.scoring.forked_sequences import ScoredText


@dataclass(frozen=True)
class PromptedQuery:
    """A query of the user of a prompter. n_target: tokens of a gold text that count, at most."""

    prompter: TaskPrompter
    query: Query
    n_target: int

    @cached_property
    def question(self) -> str:
        """The input; one that leaves little room for the profile and an answer loses its end."""
        return self.prompter.truncate(self.query.input, (self.prompter.n_ctx - self.prompter.budget) // 2)

    def request(self, prompt_kind: PromptKind) -> Request:
        """Return what the user's turn says, and the exchanges before it."""
        if prompt_kind == "question":
            return Request(self.question)
        prompter = self.prompter if prompt_kind == "profile" else replace(self.prompter, most=prompt_kind)
        return prompter.request(self.question)

    @cached_property
    def options(self) -> Sequence[str]:
        return self.query.options or self.prompter.task.options_of(self.query.input)

    @cached_property
    def n_end(self) -> int:
        """How many tokens at the end of the gold text's target are the end of the answer; 0 where it is cut."""
        n_end = len(self.prompter.end)
        whole = len(self.prompter.answer(self.query.output)) + n_end <= self.n_target
        return n_end if whole else 0

    @cached_property
    def _prompts(self) -> dict[PromptKind, list[int]]:
        return {}

    def _prompt(self, kind: PromptKind) -> list[int]:
        if kind not in self._prompts:
            self._prompts[kind] = self.prompter.prompt("", self.request(kind))
        return self._prompts[kind]

    def tokens(self, kind: PromptKind) -> list[list[int]]:
        """Return all that the model reads of it where this much of the profile is shown."""
        return [self._prompt(kind), self._prompt("question"), *self.targets]

    @cached_property
    def targets(self) -> list[list[int]]:
        """Tokens of the gold text, then those of the options, each with its end."""
        return [self.prompter.target(text, self.n_target) for text in (self.query.output, *self.options)]

    def prompts(self, treatments: Iterable[Treatment]) -> dict[PromptKind, list[int]]:
        """Return the tokens of each prompt that these treatments show, up to where the answer starts."""
        kinds: set[PromptKind] = {"profile", "question", *(treatment.prompt_kind for treatment in treatments)}
        return {kind: self._prompt(kind) for kind in kinds}

    def texts(self, treatments: Iterable[Treatment], n_answer: int) -> list[ScoredText]:
        """Return what `Likelihood` may be asked for: each prompt with targets, or an answer of n_answer tokens."""
        longest = max([n_answer, *map(len, self.targets)])
        return [ScoredText(prompt, [0] * longest) for prompt in self.prompts(treatments).values()]
