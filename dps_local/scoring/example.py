"""`Example`: a history item as it is scored."""

from __future__ import annotations

from dataclasses import dataclass

from dps_local.prompting.prompt import Prompter
from dps_local.scoring.forked_sequences import ScoredText
from dps_local.scoring.options import ScoringOptions


@dataclass(frozen=True)
class Example:
    """A history item as it is scored: after the profile; without the profile; the answer that was rejected."""

    text: ScoredText
    without_profile: ScoredText | None = None
    rejected: ScoredText | None = None

    def texts(self) -> list[ScoredText]:
        return [text for text in (self.text, self.rejected, self.without_profile) if text]


def make_example(prompter: Prompter, i: int, options: ScoringOptions) -> Example | None:
    """Return history item i as an example, None when it has no tokens."""
    request, target, rejected = prompter.example(i, options.target_tokens)
    if not target:
        return None
    without_profile = None
    if options.contrast or options.ranking == "contrast":
        alone = prompter.example(i, options.target_tokens, with_profile=False)[0]
        without_profile = ScoredText(alone, target)
    return Example(ScoredText(request, target), without_profile, ScoredText(request, rejected) if rejected else None)
