"""`ProfileSummary`: what a profile holds, in numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Self, get_args

from dps_local.prompting.profile import Kind, Profile

CHARACTERS = r"\u3040-\u30ff\u3400-\u9fff"  # of scripts that do not part words by spaces: a word each
WORD = re.compile(rf"[{CHARACTERS}]|[^\W{CHARACTERS}][^\s{CHARACTERS}]*")
TELLING = 20  # characters, about five words: of texts that are shorter, every second one is told wrong
UNTOLD = "short"  # the language of these


@dataclass(frozen=True)
class ProfileSummary:
    """words, tokens, languages: of the person's own texts; None where nothing counts them.

    first, last: dates as in the profile, '' where there is none. languages: items by ISO 639 code, and UNTOLD.
    """

    name: str
    items: int
    kinds: dict[str, int]
    words: int
    tokens: int | None
    with_input: int
    with_rejected: int
    preferences: int
    dated: int
    first: str
    last: str
    sources: dict[str, int]
    languages: dict[str, int] | None

    @classmethod
    def of(
        cls,
        profile: Profile,
        n_tokens: Callable[[str], int] | None = None,
        language_of: Callable[[str], str] | None = None,
    ) -> Self:
        history = profile.history
        own = [history[i].output for i in profile.own_items()]
        dated = sorted((item.time, item.date) for item in history if item.time)
        return cls(
            name=profile.name,
            items=len(history),
            kinds={kind: sum(item.kind == kind for item in history) for kind in get_args(Kind)},
            words=sum(map(n_words, own)),
            tokens=sum(map(n_tokens, own)) if n_tokens else None,
            with_input=sum(bool(item.input) for item in history),
            with_rejected=sum(bool(item.rejected) for item in history),
            preferences=len(profile.preferences),
            dated=len(dated),
            first=dated[0][1] if dated else "",
            last=dated[-1][1] if dated else "",
            sources=_counted(item.source for item in history if item.source),
            languages=_counted(map(language_of, own)) if language_of else None,
        )

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def n_words(text: str) -> int:
    return len(WORD.findall(text))


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())


def language_identifier() -> Callable[[str], str] | None:
    """Return what tells the language of a text (py3langid); None where the extra `import` is not installed."""
    try:
        import py3langid
    except ImportError:
        return None
    return lambda text: str(py3langid.classify(text)[0]) if len(text.strip()) >= TELLING else UNTOLD
