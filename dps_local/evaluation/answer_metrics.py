"""Metrics of one answer beside the gold one: pure functions of strings."""

from __future__ import annotations

import functools
import re
import string
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from dps_local.errors import MissingPackageError

EDGES = string.punctuation + string.whitespace + "“”‘’«»„…"  # around an answer, and no part of it
NUMBER = re.compile(r"(?:(?<!\w)-)?\d*\.?\d+")


def rouge(answer: str, references: Sequence[str]) -> dict[str, float]:
    """Return the F-measures rouge_1 and rouge_l of the reference that is best for each.

    Without stemming, as LaMP measures. Words are runs of a-z and 0-9: of other scripts, ROUGE sees nothing.
    """
    scores = load_rouge_scorer().score_multi(references, answer)
    return {"rouge_1": float(scores["rouge1"].fmeasure), "rouge_l": float(scores["rougeL"].fmeasure)}


def meteor(answer: str, references: Sequence[str]) -> tuple[str, float]:
    """Return METEOR of the best reference, and its name: meteor, or meteor_stem where WordNet is not installed.

    WordNet's synonyms count as matches; without it, the same words and the same stems do. Words are nltk's, without
    its search for the ends of sentences, which would need data.
    """
    tokenize, score = _meteor_parts()
    words = tokenize(answer)
    wordnet = load_wordnet()
    name = "meteor_stem" if isinstance(wordnet, _NoSynonyms) else "meteor"
    if not words:
        return name, 0.0
    return name, float(score([tokenize(r) for r in references], words, wordnet=wordnet))


def choice_of(answer: str, options: Sequence[str]) -> int:
    """Return the number of the option that an answer means, -1 for none of them.

    The option itself; or the first one that the answer names; or the one with the most in common by ROUGE-L.
    """
    plain_answer, plain_options = _plain(answer), [_plain(option) for option in options]
    if plain_answer in plain_options:
        return plain_options.index(plain_answer) if plain_answer else -1
    named = [
        (match.start(), -len(option), i)
        for i, option in enumerate(plain_options)
        if (match := _named(option, plain_answer))
    ]
    if named:
        return min(named)[2]
    scores = [rouge(answer, [option])["rouge_l"] for option in options]
    return scores.index(max(scores)) if any(scores) else -1


def number_of(answer: str) -> float | None:
    """Return the first number of an answer."""
    match = NUMBER.search(answer)
    return float(match[0]) if match else None


def number_or_worst(answer: str, gold: float, scale: tuple[float, float]) -> float:
    """Return the number of an answer; without one inside the scale, the end of the scale that is farthest from gold.

    LaMP does so where there is no number (of ends that are equally far it takes the upper), and keeps any other.
    """
    number, (low, high) = number_of(answer), scale
    if number is not None and low <= number <= high:
        return number
    return low if gold - low > high - gold else high


def repetition(answer: str) -> float:
    """Return the share of pairs of words that the answer had before; 0 for fewer than 3 words."""
    pairs = list(pairwise(answer.casefold().split()))
    return 1 - len(set(pairs)) / len(pairs) if len(pairs) > 1 else 0.0


def length_ratio(answer: str, gold: str) -> float:
    """Return the words of an answer, divided by those of the gold one."""
    return len(answer.split()) / max(1, len(gold.split()))


def _plain(text: str) -> str:
    return text.casefold().strip(EDGES)


def _named(option: str, answer: str) -> re.Match[str] | None:
    """Return where the answer has the option as words of its own."""
    return re.search(rf"(?<!\w){re.escape(option)}(?!\w)", answer) if option else None


class _NoSynonyms:
    """Stands for a WordNet that knows no word."""

    def synsets(self, _: str) -> list[Any]:
        return []


@functools.cache
def load_rouge_scorer() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer  # seconds that a start of the program need not wait for
    except ImportError as exc:
        raise _missing() from exc
    return RougeScorer(["rouge1", "rougeL"], use_stemmer=False)


def _meteor_parts() -> tuple[Any, Any]:
    """Return nltk's word tokenizer, the part of it that needs no data, and its METEOR."""
    try:
        from nltk.tokenize import NLTKWordTokenizer
        from nltk.translate.meteor_score import meteor_score
    except ImportError as exc:
        raise _missing() from exc
    return NLTKWordTokenizer().tokenize, meteor_score


@functools.cache
def load_wordnet() -> Any:
    """Return nltk's WordNet where its data is installed; it is never downloaded."""
    from nltk.corpus import wordnet

    try:
        wordnet.ensure_loaded()
    except LookupError:
        return _NoSynonyms()
    return wordnet


def _missing() -> MissingPackageError:
    return MissingPackageError("ROUGE and METEOR need rouge-score and nltk: pip install 'dps-local[eval]'")
