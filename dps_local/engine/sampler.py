"""`Sampler`: llama.cpp's own sampler chain, over logits from numpy or those of a context."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dps_local.engine import native
from dps_local.errors import NativeError, Remedy

if TYPE_CHECKING:
    from dps_local.engine.context import Context
    from dps_local.engine.grammar import Grammar

RANDOM_SEED = 0xFFFFFFFF  # LLAMA_DEFAULT_SEED: llama.cpp draws one
_TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # struct llama_token_data


@dataclass(frozen=True)
class Sampling:
    """Sampler settings with llama.cpp's names and defaults; temp 0 is greedy."""

    temp: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repeat_last_n: int = 64
    seed: int = RANDOM_SEED

    @property
    def penalties(self) -> tuple[float, float, float]:
        """Those for what was drawn before; (1, 0, 0) are none."""
        return self.repeat_penalty, self.frequency_penalty, self.presence_penalty


class Sampler:
    """A chain in llama.cpp's order: grammar, penalties, top-k, top-p, min-p, temperature, draw."""

    grammar: Grammar | None = None

    def __init__(self, sampling: Sampling, grammar: Grammar | None = None) -> None:
        self.llama, self.sampling, self.temp, self.grammar = native.load().llama, sampling, sampling.temp, grammar
        self._room, self._ids = np.zeros(0, _TOKEN_DATA), np.zeros(0, np.int32)
        self.chain: Any = self.llama.llama_sampler_chain_init(self.llama.llama_sampler_chain_default_params())
        # n_vocab (1) matters to samplers that run on a device only
        self._add(self.llama.llama_sampler_init_penalties(1, sampling.repeat_last_n, *sampling.penalties))
        if sampling.temp <= 0:
            self._add(self.llama.llama_sampler_init_greedy())
            return
        self._add(self.llama.llama_sampler_init_top_k(sampling.top_k))
        self._add(self.llama.llama_sampler_init_top_p(sampling.top_p, 1))
        self._add(self.llama.llama_sampler_init_min_p(sampling.min_p, 1))
        self._add(self.llama.llama_sampler_init_temp(sampling.temp))
        self._add(self.llama.llama_sampler_init_dist(sampling.seed & 0xFFFFFFFF))

    def _add(self, sampler: Any) -> None:
        self.llama.llama_sampler_chain_add(self.chain, sampler)

    def __del__(self) -> None:
        if getattr(self, "chain", None):
            self.llama.llama_sampler_free(self.chain)

    def _candidates(self, n: int) -> NDArray[np.void]:
        """Return room for n candidates; a large vocabulary's is kept, as new memory takes longer than the draw."""
        if self._room.size < n:
            self._room, self._ids = np.zeros(n, _TOKEN_DATA), np.arange(n, dtype=np.int32)
        return self._room[:n]

    def clone(self) -> Sampler:
        """Return a sampler that will draw as this one would."""
        other = object.__new__(Sampler)
        other.llama, other.temp, other._room, other._ids = self.llama, self.temp, self._room, self._ids
        other.sampling = self.sampling
        other.chain = self.llama.llama_sampler_clone(self.chain)
        other.grammar = self.grammar.clone() if self.grammar else None
        return other

    def restore(self, clone: Sampler) -> None:
        """Go back to the state of a clone, which cannot be used any more."""
        self.llama.llama_sampler_free(self.chain)
        self.chain, clone.chain = clone.chain, None
        self.grammar = clone.grammar

    def sample(self, logits: NDArray[np.float32], tokens: NDArray[np.integer] | None = None) -> int:
        """Draw a token from logits [n_vocab], or from those of some tokens, in rising order; those at -inf are out.

        It counts for the penalties from then on, and the grammar goes on from it.
        """
        _, array = self._allowed(logits, tokens)
        self.llama.llama_sampler_apply(self.chain, ctypes.byref(array))
        token = int(array.data[array.selected].id)  # a sampler may have moved the array
        self.accept([token])
        if self.grammar:
            self.grammar.accept(token)
        return token

    def needs_few(self, n: int) -> bool:
        """Whether a draw from the n largest logits of all tokens is one from all of them."""
        if self.grammar or (self.sampling.penalties != (1, 0, 0) and self.sampling.repeat_last_n):
            return False
        return self.temp <= 0 or 0 < self.sampling.top_k <= n

    def allowed(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return logits [n_vocab] with -inf where the grammar rules a token out."""
        return self._allowed(logits)[0]["logit"].copy() if self.grammar else logits

    def _allowed(self, logits: NDArray[np.float32], tokens: NDArray[np.integer] | None = None) -> tuple[Any, Any]:
        """Return the candidates that `sample` draws from, as an array and as llama.cpp's struct over it."""
        _check(logits)
        data = self._candidates(logits.size)
        data["id"], data["logit"] = self._ids[: logits.size] if tokens is None else tokens, logits
        array = self.llama.llama_token_data_array(
            data=data.ctypes.data_as(self.llama.llama_token_data_p), size=data.size, selected=-1, sorted=False
        )
        if self.grammar:
            self.grammar.rule_out(array, data["id"], data["logit"])
        return data, array

    def sample_last(self, context: Context, logits: NDArray[np.float32]) -> int:
        """Draw a token as `sample` does, from the last logits of a context, where llama.cpp has them.

        logits: the same ones F32 [n_vocab].
        """
        if self.grammar:
            return self.sample(logits)
        _check(logits)
        return int(self.llama.llama_sampler_sample(self.chain, context.handle, -1))  # which counts it, too

    def accept(self, tokens: Iterable[int]) -> None:
        """Count tokens for the penalties, as llama.cpp counts those of the prompt."""
        for token in tokens:
            self.llama.llama_sampler_accept(self.chain, token)

    def recount(self, tokens: Iterable[int]) -> None:
        """Begin an answer: let the penalties know these tokens only, and the grammar none; draws go on as before."""
        self.llama.llama_sampler_reset(self.llama.llama_sampler_chain_get(self.chain, 0))  # the penalties
        self.accept(tokens)
        if self.grammar:
            self.grammar.reset()


def _check(logits: NDArray[np.float32]) -> None:
    """Raise NativeError where one is no number, which llama.cpp's sorts do not expect, or none is above -inf."""
    if not logits.max() > -np.inf:
        raise NativeError("the model gave no number for any token", Remedy.WEAKER_GAMMA)
