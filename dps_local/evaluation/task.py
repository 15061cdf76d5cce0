"""`Task`: how profile items of a benchmark are shown and scored on, and how its answers are measured."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Literal

AnswerKind = Literal["text", "choice", "number"]  # ROUGE and METEOR; accuracy and macro-F1; MAE and RMSE


@dataclass(frozen=True)
class Task:
    """A task as data: {name} stands for a field of a profile item.

    request, answer_field: what an item was written for ("" where nobody knows), and the field that was written.
    search_fields: those that BM25 searches, with the part of a query's input that follows query_after. options_in: the
    word before the list of options in an input. scale: the ends of a number's.
    """

    name: str
    kind: AnswerKind
    request: str = ""
    answer_field: str = ""
    search_fields: tuple[str, ...] = ()
    query_after: str = ""
    options: tuple[str, ...] = ()
    options_in: str = ""
    scale: tuple[float, float] | None = None

    @property
    def fields(self) -> list[str]:
        """The fields that a profile item needs."""
        in_request = [name for _, name, _, _ in Formatter().parse(self.request) if name]
        return sorted({*in_request, *self.search_fields, *([self.answer_field] if self.answer_field else [])})

    def request_of(self, item: Mapping[str, str]) -> str:
        """Return the input of the same task that an item answers."""
        return self.request.format(**item)

    def searched(self, item: Mapping[str, str]) -> str:
        """Return the words of an item that retrieval compares with a query's."""
        return " ".join(item[field] for field in self.search_fields)

    def query(self, text: str) -> str:
        """Return the words of an input that retrieval looks for: without its fixed beginning, where it has one."""
        return text.partition(self.query_after)[2] or text if self.query_after else text

    def options_of(self, text: str) -> tuple[str, ...]:
        """Return the options that an input lists, or those of the task."""
        listed = re.search(rf"\b{self.options_in}: \[([^]]+)\]", text) if self.options_in else None
        return tuple(option.strip() for option in listed[1].split(",")) if listed else self.options
