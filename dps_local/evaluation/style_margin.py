"""`StyleMargin`: how much more a text is like what one person wrote than like what others did."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

LENGTHS = (2, 3, 4)  # of n-grams, in characters


class StyleMargin:
    """Compares texts by the TF-IDF vectors of their character n-grams, with case and punctuation.

    texts: of each person, all of one task. A person's vector is the mean of those of their texts, each of length 1, so
    that a long text counts as much as a short one. Weights are counts · (log((1 + n) / (1 + n_with)) + 1) over all n
    texts; n-grams that none of these has are left out.
    """

    def __init__(self, texts: Mapping[str, Sequence[str]]) -> None:
        self.people = [person for person in texts if texts[person]]
        self._of_person = [[ngrams(text) for text in texts[person]] for person in self.people]
        n_texts = sum(map(len, self._of_person))
        n_with = Counter(ngram for its in self._of_person for text in its for ngram in text)
        self._columns = {ngram: i for i, ngram in enumerate(n_with)}
        self._idf = np.array([math.log((1 + n_texts) / (1 + n)) + 1 for n in n_with.values()])

    @cached_property
    def _people(self) -> sparse.csr_array:
        """The vector of each person, [n_people, n_ngrams], of length 1."""
        rows = [sparse.csr_array(self._vectors(its).sum(axis=0)[None]) for its in self._of_person]
        return _unit(sparse.csr_array(sparse.vstack(rows)))

    def __call__(self, person: str, text: str) -> float | None:
        """Return the cosine of a text to a person's own, minus its mean to those of each other; None without texts."""
        if person not in self.people or len(self.people) < 2:
            return None
        cosines = (self._people @ self._vectors([ngrams(text)]).T).toarray()[:, 0]
        own = cosines[self.people.index(person)]
        return float(own - (cosines.sum() - own) / (len(cosines) - 1))

    def _vectors(self, texts: Sequence[Counter[str]]) -> sparse.csr_array:
        """Return the vector of each text, [n_texts, n_ngrams], of length 1, or 0 where nothing is known of it."""
        known = [[(self._columns[ngram], n) for ngram, n in text.items() if ngram in self._columns] for text in texts]
        columns = np.array([column for text in known for column, _ in text], np.int64)
        counts = np.array([n for text in known for _, n in text], np.float64)
        ends = np.cumsum([0, *map(len, known)])
        weights = counts * self._idf[columns]
        return _unit(sparse.csr_array((weights, columns, ends), shape=(len(texts), len(self._columns))))


def ngrams(text: str) -> Counter[str]:
    """Return how often a text has each n-gram; white space of any length is one space."""
    text = " ".join(text.split())
    return Counter(text[i : i + n] for n in LENGTHS for i in range(len(text) - n + 1))


def _unit(vectors: sparse.csr_array) -> sparse.csr_array:
    """Return rows of length 1; those of 0 stay."""
    lengths: NDArray[np.float64] = np.sqrt(vectors.multiply(vectors).sum(axis=1))
    return sparse.csr_array(sparse.diags_array(1 / np.where(lengths > 0, lengths, 1)) @ vectors)
