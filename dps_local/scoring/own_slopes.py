"""`OwnSlopes`: the slopes of a person's history items, measured once and then kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dps_local.engine import native
from dps_local.errors import ProfileError
from dps_local.prompting import prompt
from dps_local.prompting.prompt import Prompter
from dps_local.scoring.forked_sequences import ScoredText
from dps_local.scoring.head_slopes import HeadSlopes, longest_target
from dps_local.scoring.slope_store import SlopeStore
from dps_local.scoring.slopes import Slopes, joined
from dps_local.system.files import cache_folder
from dps_local.system.progress import Progress

PART = 16  # texts that are kept together: a run that is stopped loses no more


@dataclass(frozen=True)
class OwnSlopes:
    """Slopes of history items, each after the items before it, with its end.

    An item that is longer than `longest_target`, or a quarter of the context, is cut, and has no end. n_samples: texts
    that the model draws for each, from which the Fisher matrix comes.
    """

    prompter: Prompter
    n_samples: int = 0
    n_threads: int | None = None

    @cached_property
    def texts(self) -> dict[int, ScoredText]:
        """The items that have a token, by number, oldest first."""
        longest = min(longest_target(self.prompter.model), self.prompter.n_ctx // 4)
        texts = {}
        for i, window in enumerate(self.prompter.windows()):
            try:
                tokens, target, _ = self.prompter.example(i, longest, window=window)
            except ProfileError:  # a large profile leaves less of the context
                tokens, target, _ = self.prompter.example(i, longest // 4, window=window)
            if target:
                texts[i] = ScoredText(tokens, target)
        return texts

    @cached_property
    def store(self) -> SlopeStore:
        model = self.prompter.model
        depends_on = [model.identity.digest, native.PATCH_VERSION, prompt.VERSION]
        return SlopeStore(cache_folder("scores"), len(model.heads()), self.n_samples, depends_on)

    def known(self, items: Sequence[int]) -> Slopes | None:
        """Return the slopes of items that were all measured before, None otherwise."""
        return self.store.load_all([self.texts[i] for i in items])

    def of(self, items: Sequence[int], progress: Progress | None = None) -> Slopes:
        """Return the slopes of items; those that are not known are measured now, and kept.

        Raises NativeError where the architecture has an operation without a backward pass.
        """
        texts = [self.texts[i] for i in items]
        known = {k: slopes for k, text in enumerate(texts) if (slopes := self.store.load(text))}
        missing = [k for k in range(len(texts)) if k not in known]
        done = len(known)
        if progress and texts:
            progress(done, len(texts))
        if missing:
            length = max(len(texts[k].prompt) + len(texts[k].target) for k in missing)
            with HeadSlopes(self.prompter.model, length, self.n_threads) as head_slopes:
                for start in range(0, len(missing), PART):
                    part = missing[start : start + PART]
                    slopes = head_slopes.of([texts[k] for k in part], self.n_samples)
                    self.store.save([texts[k] for k in part], slopes)
                    known |= {k: slopes.one(i) for i, k in enumerate(part)}
                    done += len(part)
                    if progress:
                        progress(done, len(texts))
        if not texts:
            n_heads = len(self.prompter.model.heads())
            none = np.empty((0, n_heads), np.float32)
            return Slopes(none, np.empty(0, np.int64), np.empty(0), none.reshape(0, self.n_samples, n_heads))
        return joined([known[k] for k in range(len(texts))])
