"""`HeadSlopes`: the slopes of all heads on a person's own texts, many texts in one backward pass."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dps_local.engine.context import N_UBATCH, Context, Run
from dps_local.engine.model import Model
from dps_local.engine.stream import common, in_batches
from dps_local.errors import NoSlopesError
from dps_local.scoring.forked_sequences import ScoredText
from dps_local.scoring.slopes import Slopes, joined
from dps_local.system.progress import Progress

N_SEQ = 64  # texts of one backward pass, and the one that reads prompts
MAX_LOGITS = 1 << 26  # of one backward pass, which keeps three numbers for each: 800 MB
CELLS = 2048  # of the KV cache: more texts fit into one pass, but attention looks at all of them


def longest_target(model: Model) -> int:
    """Return how many tokens of one text can be differentiated at once."""
    return min(N_UBATCH, MAX_LOGITS // model.n_vocab)


@dataclass(frozen=True)
class _Fork:
    """A text, and its run in a sequence of its own, where the prompt is but for the last token."""

    text: ScoredText
    run: Run


class HeadSlopes:
    """Differentiates the log-likelihood of texts with respect to the scales of all heads, on the CPU.

    A text's prompt is a constant. Scales are those of the last prompt token and of the text ('generated' scope).
    Prompts that begin alike, as those of one chat that grows, are read once. length: the most tokens of a text and its
    prompt. A context manager, that frees its context and its copy of the weights, which llama.cpp must not repack.
    """

    def __init__(self, model: Model, length: int, n_threads: int | None = None) -> None:
        if not model.rewinds:
            why = "recurrent layers have no backward pass"
            raise NoSlopesError(f"{model.name}: {why}", why)
        self.weights = Model(model.path, n_gpu_layers=0, repack=False)
        self.largest = longest_target(model)
        self.context = Context(
            self.weights,
            max(CELLS, 2 * length),
            n_seq=N_SEQ,
            n_outputs=self.largest,
            n_threads=n_threads,
            slopes=True,
        )
        self._heads = tuple(np.array(self.weights.heads()).T)
        self._read: list[int] = []  # tokens of sequence 0

    def close(self) -> None:
        self.context.close()
        self.weights.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def of(
        self,
        texts: Sequence[ScoredText],
        n_samples: int = 0,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Slopes:
        """Return the slopes of texts, and of `n_samples` texts each that the model draws at the same positions.

        No target is longer than `longest_target`. progress: counts texts. Raises NoSlopesError where the architecture
        has an operation without a backward pass.
        """
        parts = [Slopes.none(len(self._heads[0]), n_samples)]
        for done, part in self.passes(texts, n_samples, seed):
            parts.append(part)
            if progress:
                progress(done, len(texts))
        return joined(parts)

    def passes(self, texts: Sequence[ScoredText], n_samples: int = 0, seed: int = 0) -> Iterator[tuple[int, Slopes]]:
        """Yield the slopes of as many of the next texts as one backward pass takes, and how many are done; as `of`."""
        done = 0
        for forks in self._forks(texts):
            targets = [fork.text.target for fork in forks]
            p, slopes = self._differentiate(forks, targets)
            drawn = self._draw(forks, n_samples, seed) if n_samples else []
            samples = [self._differentiate(forks, drawn_targets)[1] for drawn_targets in drawn]
            for fork in forks:
                self.context.truncate(fork.run.seq, 0)
            tokens = np.array([len(target) for target in targets], np.int64)
            nll = -np.add.reduceat(np.log(p.astype(np.float64)), np.cumsum(tokens) - tokens)
            none = np.empty((len(forks), 0, len(self._heads[0])), np.float32)
            done += len(forks)
            yield done, Slopes(slopes, tokens, nll, np.stack(samples, axis=1) if samples else none)

    def _forks(self, texts: Sequence[ScoredText]) -> Iterator[list[_Fork]]:
        """Read prompts, and yield texts whenever there are as many as one pass takes, in tokens and KV cells."""
        forks, n_targets, cells = list[_Fork](), 0, len(self._read)
        for text in texts:
            shared = common(self._read, text.prompt[:-1])
            needed = len(text.prompt) - shared + len(text.target)
            full = len(forks) == N_SEQ - 1 or n_targets + len(text.target) > self.largest
            if forks and (full or cells + needed > self.context.n_ctx):
                yield forks
                forks, n_targets, cells = [], 0, len(self._read)
            self._read_prompt(text.prompt[:-1], shared)
            seq, start = len(forks) + 1, len(self._read)
            self.context.copy(0, seq)
            run = Run(seq, start, [text.prompt[-1], *text.target[:-1]], len(text.target))
            forks.append(_Fork(text, run))
            n_targets, cells = n_targets + len(text.target), cells + needed
        if forks:
            yield forks

    def _read_prompt(self, prompt: list[int], shared: int) -> None:
        """Put a prompt into sequence 0, which has its first `shared` tokens."""
        self.context.truncate(0, shared)
        for start, part in zip(range(shared, len(prompt), N_UBATCH), in_batches(prompt[shared:]), strict=True):
            self.context.decode([Run(0, start, part)])
        self._read = prompt

    def _differentiate(
        self, forks: Sequence[_Fork], targets: Sequence[Sequence[int]]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return p of all target tokens in a row, and slopes F32 [n_forks, n_heads]."""
        self._rewind(forks)
        runs, tokens = [fork.run for fork in forks], [token for target in targets for token in target]
        p, slopes = self.context.slopes(runs, tokens)
        return p, slopes[:, *self._heads]

    def _draw(self, forks: Sequence[_Fork], n_samples: int, seed: int) -> list[list[list[int]]]:
        """Return, for each sample and each text, tokens that the model draws at the text's positions."""
        self._rewind(forks)
        logits = self.context.decode([fork.run for fork in forks])
        drawn: list[list[list[int]]] = [[] for _ in range(n_samples)]
        start = 0
        for text in (fork.text for fork in forks):
            rows = logits[start : start + len(text.target)]
            start += len(rows)
            # the same for a text wherever it stands
            digest = hashlib.sha256(np.array([*text.prompt, -1, *text.target], np.int64).tobytes()).digest()
            rng = np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])
            heights = np.exp(rows - rows.max(axis=1, keepdims=True)).cumsum(axis=1, dtype=np.float64)
            for sample in drawn:
                at = rng.random(len(rows)) * heights[:, -1]
                sample.append([int(np.searchsorted(row, x, side="right")) for row, x in zip(heights, at, strict=True)])
        return drawn

    def _rewind(self, forks: Sequence[_Fork]) -> None:
        for fork in forks:
            self.context.truncate(fork.run.seq, fork.run.start)
