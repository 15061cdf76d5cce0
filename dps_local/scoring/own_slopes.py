"""`OwnSlopes`: the slopes of what a person wrote, measured once and then kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from dps_local.engine import native
from dps_local.errors import ProfileError
from dps_local.prompting.prompt import Prompter
from dps_local.scoring.forked_sequences import ScoredText
from dps_local.scoring.head_slopes import HeadSlopes, longest_target
from dps_local.scoring.slope_store import SlopeStore
from dps_local.scoring.slopes import Slopes, joined
from dps_local.system.files import cache_folder
from dps_local.system.progress import Progress


@dataclass(frozen=True)
class OwnSlopes:
    """Slopes of the history items that are the person's own, each after the items before it, with its end.

    An item that is longer than `longest_target`, or a quarter of the context, is cut, and has no end. n_samples: texts
    that the model draws for each, from which the Fisher matrix comes. newest: so many items at most; None for all.
    """

    prompter: Prompter
    n_samples: int = 0
    n_threads: int | None = None
    newest: int | None = None

    @cached_property
    def texts(self) -> dict[int, ScoredText]:
        """The person's own items that have a token, by number, oldest first."""
        texts, windows = dict[int, ScoredText](), self.prompter.windows()
        for i in reversed(self.prompter.profile.own_items()):
            if len(texts) == self.newest:
                break
            if (text := self._text(i, windows[i])).target:
                texts[i] = text
        return dict(reversed(texts.items()))

    def _text(self, i: int, window: range) -> ScoredText:
        longest = min(longest_target(self.prompter.model), self.prompter.n_ctx // 4)
        try:
            prompt, target, _ = self.prompter.example(i, longest, window=window)
        except ProfileError:  # a large profile leaves less of the context
            prompt, target, _ = self.prompter.example(i, longest // 4, window=window)
        return ScoredText(prompt, target)

    @cached_property
    def store(self) -> SlopeStore:
        model = self.prompter.model
        depends_on = [model.identity.digest, native.PATCH_VERSION]
        return SlopeStore(cache_folder("scores"), len(model.heads()), self.n_samples, *depends_on)

    def of(self, items: Sequence[int], progress: Progress | None = None) -> Slopes:
        """Return the slopes of items; those that are not known are measured now, and kept pass by pass.

        Raises NoSlopesError where the architecture has an operation without a backward pass.
        """
        texts = [self.texts[i] for i in items]
        self.prompter.profile.cached.note(map(self.store.path, texts))
        known = {k: slopes for k, text in enumerate(texts) if (slopes := self.store.load(text))}
        missing = [k for k in range(len(texts)) if k not in known]
        if progress and texts:
            progress(len(known), len(texts))
        if missing:
            length = max(len(texts[k].prompt) + len(texts[k].target) for k in missing)
            with HeadSlopes(self.prompter.model, length, self.n_threads) as head_slopes:
                for done, slopes in head_slopes.passes([texts[k] for k in missing], self.n_samples):
                    part = missing[done - len(slopes.tokens) : done]
                    self.store.save([texts[k] for k in part], slopes)
                    known |= {k: slopes.one(i) for i, k in enumerate(part)}
                    if progress:
                        progress(len(known), len(texts))
        none = Slopes.none(len(self.prompter.model.heads()), self.n_samples)
        return joined([none, *(known[k] for k in range(len(texts)))])
