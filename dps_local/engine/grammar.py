"""`Grammar`: which tokens may come next in an answer, by a GBNF grammar of llama.cpp's."""

from __future__ import annotations

import codecs
import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dps_local.engine.model import Model
from dps_local.errors import NativeError, SettingsError


class Grammar:
    """The answer so far, as the grammar has read it.

    What would not stand in the text as llama.cpp reads it is out, too: control tokens, and bytes that are no UTF-8.

    gbnf: its rules; the first one is `root`. Raises SettingsError where llama.cpp cannot use it, as where a rule begins
    with itself.
    """

    def __init__(self, model: Model, gbnf: str) -> None:
        self.model, self.llama, self._begun = model, model.llama, b""  # of a character that is several tokens
        model.native.log.begin()
        self.handle: Any = self.llama.llama_sampler_init_grammar(model.vocab, gbnf.encode(), b"root")
        if not self.handle:
            raise SettingsError(f"llama.cpp cannot use the grammar: {model.native.log.reason()}")

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self.llama.llama_sampler_free(self.handle)

    def clone(self) -> Grammar:
        other = object.__new__(Grammar)
        other.model, other.llama, other._begun = self.model, self.llama, self._begun
        other.handle = self.llama.llama_sampler_clone(self.handle)
        return other

    def reset(self) -> None:
        """Begin a new answer."""
        self.llama.llama_sampler_reset(self.handle)
        self._begun = b""

    def rule_out(self, candidates: Any, ids: NDArray[np.integer], logits: NDArray[np.float32]) -> None:
        """Set the logits of candidates (struct llama_token_data_array) that may not come next to -inf.

        ids, logits: the same candidates as arrays.
        """
        self.llama.llama_sampler_apply(self.handle, ctypes.byref(candidates))
        logits[self.model.hidden[ids]] = -np.inf
        if self._begun:
            for i in np.flatnonzero(logits > -np.inf):
                if self._behind(int(ids[i])) is None:
                    logits[i] = -np.inf
        if not logits.max() > -np.inf:
            raise NativeError(f"{self.model.name} has no token that the grammar lets come next")

    def accept(self, token: int) -> None:
        """Read the token that was drawn, which `rule_out` has left in: any other one ends the process."""
        self.llama.llama_sampler_accept(self.handle, token)
        self._begun = self._behind(token) or b""

    def _behind(self, token: int) -> bytes | None:
        """Return the beginning of a character that a token leaves, None where it is no UTF-8."""
        data = self._begun + self.model.piece(token)
        try:
            return data[codecs.utf_8_decode(data, "strict", False)[1] :]
        except UnicodeDecodeError:
            return None
