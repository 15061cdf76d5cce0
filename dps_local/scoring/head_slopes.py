"""`HeadSlopes`: the slopes of all heads on a person's own texts, many texts in one backward pass."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dps_local.engine.context import N_UBATCH, Context, Run
from dps_local.engine.model import Model
from dps_local.engine.stream import common, in_batches
from dps_local.errors import NativeError
from dps_local.scoring.forked_sequences import ScoredText
from dps_local.scoring.slopes import Slopes
from dps_local.system.progress import Progress

NO_SLOPES = "no slopes of heads"  # how llama.cpp begins to say why
N_SEQ = 64  # texts of one backward pass, and the one that reads prompts
MAX_LOGITS = 1 << 26  # of one backward pass, which keeps three numbers for each: 800 MB
CELLS = 2048  # of the KV cache: more texts fit into one pass, but attention looks at all of them


def longest_target(model: Model) -> int:
    """Return how many tokens of one text can be differentiated at once."""
    return min(N_UBATCH, MAX_LOGITS // model.n_vocab)


@dataclass(frozen=True)
class _Pending:
    """A text whose prompt is in a sequence of its own, but for the prompt's last token."""

    i: int
    run: Run
    target: list[int]


class HeadSlopes:
    """Differentiates the log-likelihood of texts with respect to the scales of all heads, on the CPU.

    A text's prompt is a constant. Scales are those of the last prompt token and of the text ('generated' scope).
    Prompts that begin alike, as those of one chat that grows, are read once. length: the most tokens of a text and its
    prompt. A context manager, that frees its context and its copy of the weights, which llama.cpp must not repack.
    """

    def __init__(self, model: Model, length: int, n_threads: int | None = None) -> None:
        if not model.rewinds:
            raise NativeError(f"{NO_SLOPES}: recurrent layers have no backward pass")
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
        self._read: list[int] = []  # tokens of sequence 0
        self._pending: list[_Pending] = []
        self._cells = 0  # that the pending texts take, and the prompt that is being read

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

        No target is longer than `longest_target`. progress: counts texts. Raises NativeError where the architecture has
        an operation without a backward pass.
        """
        n, heads = len(texts), tuple(np.array(self.weights.heads()).T)
        slopes = Slopes(
            slopes=np.zeros((n, len(heads[0])), np.float32),
            tokens=np.array([len(text.target) for text in texts], np.int64),
            nll=np.zeros(n),
            samples=np.zeros((n, n_samples, len(heads[0])), np.float32),
        )

        def finish() -> None:
            pending, self._pending, self._cells = self._pending, [], len(self._read)
            targets = [text.target for text in pending]
            p, each = self._differentiate(pending, targets)
            drawn = self._draw(pending, [texts[text.i] for text in pending], n_samples, seed) if n_samples else []
            samples = [self._differentiate(pending, drawn_targets)[1] for drawn_targets in drawn]
            start = 0
            for k, text in enumerate(pending):
                end = start + len(text.target)
                slopes.nll[text.i] = -np.log(p[start:end].astype(np.float64)).sum()
                slopes.slopes[text.i] = each[k][heads]
                for s, sample in enumerate(samples):
                    slopes.samples[text.i, s] = sample[k][heads]
                self.context.truncate(text.run.seq, 0)
                start = end
            if progress:
                progress(int((slopes.nll > 0).sum()), n)

        for i, text in enumerate(texts):
            shared = common(self._read, text.prompt[:-1])
            needed = len(text.prompt) - shared + len(text.target)
            n_pending = sum(len(pending.target) for pending in self._pending)
            full = len(self._pending) == N_SEQ - 1 or n_pending + len(text.target) > self.largest
            if self._pending and (full or self._cells + needed > self.context.n_ctx):
                finish()
            self._fork(i, text, shared)
        if self._pending:
            finish()
        return slopes

    def _fork(self, i: int, text: ScoredText, shared: int) -> None:
        """Read a prompt but for its last token, and let a sequence of its own go on from there."""
        self.context.truncate(0, shared)
        prompt = text.prompt[:-1]
        start = shared
        for part in in_batches(prompt[shared:]):
            self.context.decode([Run(0, start, part)])
            start += len(part)
        self._read = prompt
        seq = len(self._pending) + 1
        self.context.copy(0, seq)
        run = Run(seq, len(prompt), [text.prompt[-1], *text.target[:-1]], len(text.target))
        self._pending.append(_Pending(i, run, text.target))
        self._cells += len(text.prompt) - shared + len(text.target)

    def _differentiate(
        self, pending: Sequence[_Pending], targets: Sequence[Sequence[int]]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return p of all target tokens in a row, and slopes F32 [n_pending, n_layer, n_head_max]."""
        self._rewind(pending)
        return self.context.slopes([text.run for text in pending], [token for target in targets for token in target])

    def _draw(
        self, pending: Sequence[_Pending], texts: Sequence[ScoredText], n_samples: int, seed: int
    ) -> list[list[list[int]]]:
        """Return, for each sample and each text, tokens that the model draws at the text's positions."""
        self._rewind(pending)
        logits = self.context.decode([text.run for text in pending])
        drawn: list[list[list[int]]] = [[] for _ in range(n_samples)]
        start = 0
        for text in texts:
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

    def _rewind(self, pending: Sequence[_Pending]) -> None:
        for text in pending:
            self.context.truncate(text.run.seq, text.run.start)
