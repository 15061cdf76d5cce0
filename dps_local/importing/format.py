"""`Format`: one kind of export, how it is recognised, who wrote in it, and what one of them wrote."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from dps_local.importing.writing import Writing


class Format(ABC):
    """A format of exports. It keeps nothing: methods read the source anew, streaming.

    name: of `--format`. looked_for: what a source of this format holds, for the error that nothing was recognised.
    prose: whether it is style by default (prompts to assistants are not).
    """

    name: str
    looked_for: str
    prose: bool = True

    @abstractmethod
    def recognises(self, source: Path) -> bool:
        """Return whether a file or a folder is of this format, from its beginning; never raises."""

    def authors(self, source: Path) -> Counter[str]:  # noqa: ARG002 - for those who have to look
        """Return who wrote in the source and how often: names or addresses, of which the person's are proposed.

        Empty where the source itself says which words are the person's own, or all are, as in a folder of notes.
        """
        return Counter()

    @abstractmethod
    def read(self, source: Path, me: Collection[str], dropped: Counter[str]) -> Iterator[Writing]:
        """Yield what the person wrote, as it stands in the source.

        me: names or addresses of the person, compared without case. dropped: counts by kind what is not their own
        words ("forward", "auto-reply", "deleted" …). Raises DataError where the source is damaged.
        """
