"""`Example`: a history item as it is scored."""

from __future__ import annotations

from dataclasses import dataclass

from dps_local.prompting.prompt import Prompter
from dps_local.scoring.forked_sequences import MAX_TARGET, ScoredText
from dps_local.scoring.options import LONGER, ScoringOptions


@dataclass(frozen=True)
class Example:
    """A history item as it is scored: after the profile; without the profile; the answer that was rejected.

    longer: the first, with LONGER times as many tokens of a long item, as it is held out to calibrate: each steering
    is tried once, where ablation takes hundreds of heads. n_end: its last tokens that end it; 0 where it was cut.
    """

    text: ScoredText
    longer: ScoredText
    n_end: int
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
    room = min(LONGER * options.target_tokens, MAX_TARGET, prompter.n_ctx - len(request))
    longer = prompter.target(prompter.profile.history[i].output, room)
    return Example(
        ScoredText(request, target),
        ScoredText(request, longer),
        len(prompter.end) if longer[-len(prompter.end) or len(longer) :] == prompter.end else 0,
        without_profile,
        ScoredText(request, rejected) if rejected else None,
    )
