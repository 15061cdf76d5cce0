"""`Embedder`: a text as one vector, computed by llama.cpp: the mean of a model's last hidden states."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from dps_local.engine.context import NO_MEMORY, default_threads, memory_remedy
from dps_local.engine.model import Model
from dps_local.errors import ModelError, NativeError

POOLING_MEAN = 1  # enum llama_pooling_type
PROFILE_TOKENS = 1024  # of a profile that are embedded
Vector = NDArray[np.float32]  # [n_embd], of length 1


class Embedder:
    """Embeds texts of at most n_ctx tokens with a chat model or an embedding model; longer ones lose their end."""

    def __init__(self, model: Model, n_ctx: int = PROFILE_TOKENS, n_threads: int | None = None) -> None:
        self.model, self.llama = model, model.llama
        if model.encodes and self.llama.llama_model_has_decoder(model.handle):
            raise ModelError(f"{model.name} ({model.architecture}) cannot embed text: choose an embedding model")
        self.n_ctx = min(n_ctx, model.n_ctx_train) if model.n_ctx_train else n_ctx
        parameters = self.llama.llama_context_default_params()
        # pooling needs a text's tokens in one micro-batch
        parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = self.n_ctx
        parameters.n_threads = parameters.n_threads_batch = n_threads or default_threads()
        parameters.embeddings, parameters.pooling_type, parameters.no_perf = True, POOLING_MEAN, True
        model.native.log.begin()
        self.handle = self.llama.llama_init_from_model(model.handle, parameters)
        if not self.handle:
            raise NativeError(f"{model.name} cannot embed text ({model.native.log.reason()})", memory_remedy(model))
        self._batch = self.llama.llama_batch_init(self.n_ctx, 0, 1)

    def close(self) -> None:
        if self.handle:
            self.llama.llama_batch_free(self._batch)
            self.llama.llama_free(self.handle)
            self.handle = None

    def __call__(self, text: str, cancel: threading.Event | None = None) -> Vector:
        """Return the vector of a text; raises InterruptedError soon after `cancel` is set, on the CPU."""
        tokens = self.model.prompt_tokens(text, special=False)[: self.n_ctx]
        batch = self._batch
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.logits[i] = token, i, True
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
        if memory := self.llama.llama_get_memory(self.handle):  # an encoder has none
            self.llama.llama_memory_clear(memory, True)
        self.model.native.log.begin()
        with self.model.native.ended_by(self.handle, cancel):
            status = self.llama.llama_decode(self.handle, batch)
        if status == 2:
            raise InterruptedError
        if status == NO_MEMORY:
            reason = self.model.native.log.reason()
            raise NativeError(f"{self.model.name} cannot embed text ({reason})", memory_remedy(self.model))
        pooled = None if status else self.llama.llama_get_embeddings_seq(self.handle, 0)
        if not pooled:
            raise NativeError(f"{self.model.name} cannot embed text: {self.model.native.log.reason()}")
        vector = np.ctypeslib.as_array(pooled, (self.model.n_embd_out,)).astype(np.float32)
        return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12))
