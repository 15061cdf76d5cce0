"""Slopes of many texts at once, against each text alone; samples of the model, against sums over its vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny import TinyModel

from dps_local.engine.context import Context, Run
from dps_local.engine.model import Model
from dps_local.scoring.forked_sequences import ScoredText
from dps_local.scoring.head_slopes import HeadSlopes
from dps_local.scoring.slopes import Slopes

CHAT = b"Who wrote the letter? You did, word for word. Who read it? The editor read it on Sunday. Why? Nobody knows."
ENDS = (21, 46, 59, 86, 91, 104)  # of what is said in turn
# each answer after all that was said before it, and one text that begins otherwise
TEXTS = [ScoredText(list(CHAT[:start]), list(CHAT[start:end])) for start, end in pairwise(ENDS)]
TEXTS.append(ScoredText(list(b"Dear all, "), list(b"thanks")))


@pytest.fixture
def model(tiny_model: TinyModel, load: Callable[[Path], Model]) -> Model:
    return load(tiny_model("llama"))


@pytest.fixture
def head_slopes(model: Model) -> Iterator[HeadSlopes]:
    with HeadSlopes(model, 256, n_threads=1) as opened:
        yield opened


def alone(model: Model, text: ScoredText, targets: list[list[int]]) -> NDArray[np.float32]:
    """Return the slopes [n_targets, n_heads] of tokens at the text's positions, from a context with nothing else."""
    context = Context(model, 256, n_outputs=64, n_threads=1, slopes=True)
    context.decode([Run(0, 0, text.prompt[:-1])])
    each = []
    for target in targets:
        assert context.truncate(0, len(text.prompt) - 1)
        run = Run(0, len(text.prompt) - 1, [text.prompt[-1], *text.target[:-1]], len(text.target))
        each.append(context.slopes([run], target)[1][0].ravel().copy())
    context.close()
    return np.array(each)


def close(a: NDArray[np.floating], b: NDArray[np.floating]) -> bool:
    return bool(np.abs(a - b).max() < 1e-2 * np.abs(b).max())  # prompts in other batches, in a KV cache of F16


def test_many_texts_have_the_slopes_that_each_has_alone(model: Model, head_slopes: HeadSlopes) -> None:
    found = head_slopes.of(TEXTS)
    assert found.tokens.tolist() == [len(text.target) for text in TEXTS]
    for text, slopes in zip(TEXTS, found.slopes, strict=True):
        assert close(slopes, alone(model, text, [text.target])[0])


def test_a_pass_that_is_full_is_followed_by_another(head_slopes: HeadSlopes, monkeypatch: pytest.MonkeyPatch) -> None:
    together = head_slopes.of(TEXTS)
    monkeypatch.setattr(head_slopes, "largest", 30)  # tokens: two or three texts
    apart = head_slopes.of(TEXTS)
    for a, b in zip(apart.slopes, together.slopes, strict=True):
        assert close(a, b)
    assert np.allclose(apart.nll, together.nll, rtol=1e-3)


def test_progress_counts_texts(head_slopes: HeadSlopes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_slopes, "largest", 30)
    done: list[tuple[int, int]] = []
    head_slopes.of(TEXTS, progress=lambda n, total: done.append((n, total)))
    assert len(done) > 1
    assert done == sorted(done)
    assert done[-1] == (len(TEXTS), len(TEXTS))


def test_samples_are_the_same_wherever_a_text_stands(head_slopes: HeadSlopes) -> None:
    first = head_slopes.of(TEXTS, n_samples=2, seed=1)
    again = head_slopes.of(TEXTS[::-1], n_samples=2, seed=1)
    other = head_slopes.of(TEXTS, n_samples=2, seed=2)

    def equal(other: Slopes) -> int:
        pairs = zip(first.samples, other.samples, strict=True)
        return sum(close(a, b) for samples in pairs for a, b in zip(*samples, strict=True))

    again.samples[:] = again.samples[::-1]
    assert equal(again) >= len(TEXTS)  # of twice as many: a draw at the border of two tokens may turn with the rounding
    assert equal(other) == 0


def test_samples_give_the_fisher_matrix_that_the_whole_vocabulary_gives(model: Model, head_slopes: HeadSlopes) -> None:
    text = ScoredText(list(CHAT[:30]), list(CHAT[30:31]))
    n_vocab = model.n_vocab
    scores = alone(model, text, [[token] for token in range(n_vocab)]).astype(np.float64)
    context = Context(model, 256, n_outputs=1, n_threads=1)
    logits = context.decode([Run(0, 0, text.prompt, 1)])[0].astype(np.float64)
    context.close()
    p = np.exp(logits - logits.max())
    p /= p.sum()
    assert np.abs(p @ scores).max() < 1e-2 * np.sqrt(p @ scores**2).max()  # scores have the mean 0
    fisher = (scores.T * p) @ scores
    n = 600
    samples = head_slopes.of([text], n_samples=n).samples[0].astype(np.float64)
    estimate = samples.T @ samples / n
    # squares of products of scores say how far an estimate from n samples is off
    error = np.sqrt(np.maximum((scores.T**2 * p) @ scores**2 - fisher**2, 0) / n)
    assert (np.abs(estimate - fisher) <= 5 * error + 0.02 * np.abs(fisher).max()).all()


def test_half_of_the_fisher_length_is_the_kl_that_scaling_heads_costs(model: Model) -> None:
    text = ScoredText(list(CHAT[:30]), list(CHAT[30:31]))
    scores = alone(model, text, [[token] for token in range(model.n_vocab)]).astype(np.float64)
    delta = np.random.default_rng(0).normal(size=(model.n_layer, model.n_head_max))
    logs = []
    context = Context(model, 256, n_outputs=1, n_threads=1, slopes=True)
    run = Run(0, len(text.prompt) - 1, text.prompt[-1:], 1)
    context.decode([Run(0, 0, text.prompt[:-1])])
    for step in (0.0, 0.02):
        scales = (1 + step * delta).astype(np.float32)
        each = []
        with context.head_scales({0: scales}):
            for token in range(model.n_vocab):
                assert context.truncate(0, run.start)
                each.append(float(np.log(context.slopes([run], [token])[0][0].astype(np.float64))))
        logs.append(np.array(each))
    context.close()
    p = np.exp(logs[0])
    kl = float(p @ (logs[0] - logs[1]))
    expected = float(((scores @ (0.02 * delta.ravel())) ** 2) @ p) / 2
    assert kl == pytest.approx(expected, rel=0.1)
