"""`NgramCache`: a person's own phrases, mixed into the logits (the cache language model of Kuhn and De Mori, 1990)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from dps_local.engine.context import Context
from dps_local.engine.sampler import Sampler, Sampling
from dps_local.steering.mixing import Logits

ORDER = 3  # tokens of an n-gram
START = -1  # stands before the first token of a text
Probabilities = NDArray[np.float64]  # [n_vocab]


class NgramModel:
    """Predicts a token from the two before it, with back-off to fewer by Witten and Bell's weights.

    A context that was followed n times, by t distinct tokens, keeps t / (n + t) of what the shorter one predicts.
    """

    def __init__(self, texts: Iterable[Sequence[int]]) -> None:
        counts: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for text in texts:
            tokens = (START, *text)
            for end in range(1, len(tokens)):
                for start in range(max(0, end - ORDER + 1), end + 1):
                    counts[tokens[start:end]][tokens[end]] += 1
        self.counts = {context: np.array(list(n.items()), np.int64).T for context, n in counts.items()}

    def predict(self, answer: Sequence[int], prior: Probabilities) -> Probabilities:
        """Return the probabilities of what follows the tokens of an answer; prior: where nothing is known."""
        tokens, p = (START, *answer), prior.copy()
        for n_before in range(min(ORDER, len(tokens) + 1)):
            followers = self.counts.get(tokens[len(tokens) - n_before :])
            if followers is None:
                break
            ids, n = followers
            p *= ids.size / (n.sum() + ids.size)
            p[ids] += n / (n.sum() + ids.size)
        return p


class NgramCache:
    """Adds strength · log(p_person / p_background) to logits.

    own: the person's texts; the background is what others wrote for the same task, so that it is no gain to be like
    everyone. A person's model starts from the background's, so a token that tells nothing gets the same as the others.
    """

    def __init__(self, own: NgramModel, background: NgramModel, n_vocab: int, strength: float) -> None:
        self.own, self.background, self.n_vocab, self.strength = own, background, n_vocab, strength

    def bias(self, answer: Sequence[int]) -> Logits:
        """Return what is added to the logits F32 [n_vocab] of the token that follows an answer's."""
        background = self.background.predict(answer, np.full(self.n_vocab, 1 / self.n_vocab))
        own = self.own.predict(answer, background)
        return np.asarray(self.strength * np.log(own / background), np.float32)

    def biases(self, target: Sequence[int]) -> Logits:
        """Return the bias of each token of a text: F32 [n_target, n_vocab]."""
        return np.array([self.bias(target[:i]) for i in range(len(target))])


class CacheSampler(Sampler):
    """Draws from the logits with a cache's bias."""

    def __init__(self, sampling: Sampling, cache: NgramCache) -> None:
        super().__init__(sampling)
        self.cache, self.answer = cache, list[int]()

    def sample_last(self, context: Context, logits: Logits) -> int:  # noqa: ARG002 (the context's are without bias)
        return self.sample(logits + self.cache.bias(self.answer))

    def accept(self, tokens: Iterable[int]) -> None:
        tokens = list(tokens)
        super().accept(tokens)
        self.answer += tokens

    def recount(self, tokens: Iterable[int]) -> None:
        super().recount(tokens)
        self.answer = []  # these stand before it
