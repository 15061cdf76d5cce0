"""`Model`: a GGUF's weights, vocabulary and metadata, as llama.cpp loads them."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from dps_local.engine import native
from dps_local.engine.gguf_file import GGUFFile
from dps_local.engine.rpc import Endpoint, server_at
from dps_local.engine.wrong_file import IS_HEAD_MAP, remedy, what_instead
from dps_local.errors import ModelError, Remedy
from dps_local.system import memory
from dps_local.system.deep_stack import on_deep_stack
from dps_local.system.files import StrPath
from dps_local.system.progress import Notice

MEMO = 1024  # texts whose tokens are remembered
KIB, STACK_PER_KIB = 1024, 1 << 20  # bytes of stack to tokenise so many characters, of which a third was ever needed
Head = tuple[int, int]  # (layer, head)
HeadScales = NDArray[np.float32]  # [n_layer, n_head_max], 1 = untouched, 0 = muted
CONTROL = 0b1001  # enum llama_token_attr: what llama.cpp parses only where it is asked to, CONTROL and UNKNOWN
Scope = Literal["generated", "all"]  # the tokens whose heads are scaled: from the last of the prompt on, or all


class Model:
    """One model in memory; contexts share its weights. A context manager, that frees it at the end.

    n_gpu_layers: layers to put on a GPU, as llama.cpp's -ngl; None takes llama.cpp's default. rpc: servers of
    llama.cpp's RPC back end ("HOST:PORT") that share these layers with the GPUs here. repack: let llama.cpp lay
    out weights anew for quicker products, which have no backward pass (`Context.slopes`). handle: the model
    (struct llama_model *), when someone else has loaded it, and frees it.
    Raises ModelError when the file is missing, damaged or not supported.
    """

    def __init__(
        self,
        path: StrPath,
        n_gpu_layers: int | None = None,
        *,
        rpc: Sequence[str] = (),
        repack: bool = True,
        handle: Any = None,
    ) -> None:
        self.native = native.load()
        self.llama = self.native.llama
        self.path = path = Path(path)
        with GGUFFile(path) as file:
            if handle is None and (instead := what_instead(file)):
                raise ModelError(f"{path} {instead}", Remedy.USE_AS_MAP if instead == IS_HEAD_MAP else None)
            self.architecture = str(file.get("general.architecture", "unknown"))
            self.name = str(file.get("general.name") or path.stem)
            self.identity = file.identity()
            pooling = file.get(f"{self.architecture}.pooling_type")
            self._pools = isinstance(pooling, int) and pooling > 0  # as models for embeddings do
            self.chat_template: str | None = file.get("tokenizer.chat_template")
            n_head = file.get(f"{self.architecture}.attention.head_count", 0)
            n_head_kv = file.get(f"{self.architecture}.attention.head_count_kv", n_head)
            n_embd = file.get(f"{self.architecture}.embedding_length", 0)
            n_embd_head = n_embd // max(1, int(np.max(n_head)))
            n_embd_k = file.get(f"{self.architecture}.attention.key_length", n_embd_head)
            n_embd_v = file.get(f"{self.architecture}.attention.value_length", n_embd_head)
        parameters = self.llama.llama_model_default_params()
        if n_gpu_layers is not None:
            parameters.n_gpu_layers = n_gpu_layers
        parameters.use_extra_bufts = repack
        self._servers = [server_at(endpoint) for endpoint in dict.fromkeys(map(Endpoint.parse, rpc))]
        remote = [device for server in self._servers for device in server.devices]
        self._devices = [*remote, *self.native.gpus()] if n_gpu_layers != 0 else []
        self.offloads = bool(self._devices)
        if rpc:
            listed = (ctypes.c_void_p * (len(self._devices) + 1))(*self._devices, None)
            parameters.devices = ctypes.cast(listed, ctypes.c_void_p)
        self.handle, self._owned = handle, handle is None
        if self._owned:
            self.native.log.begin()
            self.handle = self.llama.llama_model_load_from_file(os.fsencode(path), parameters)
        if not self.handle:
            reason = self.native.log.reason()
            raise ModelError(f"llama.cpp cannot load {path} ({reason}): {remedy(reason, self.offloads)}")
        n_layer = int(self.llama.llama_model_n_layer(self.handle))
        self.n_heads = _per_layer(n_head, n_layer)
        self.kv_bytes = int(2 * (n_embd_k + n_embd_v) * sum(_per_layer(n_head_kv, n_layer)))  # a token, in F16
        self.vocab = self.llama.llama_model_get_vocab(self.handle)
        self.n_gpu_layers = n_gpu_layers
        # with so many layers, or as many as fit, llama.cpp puts the output matrix there, too
        self.offloads_output = self.offloads and (n_gpu_layers is None or n_gpu_layers < 0 or n_gpu_layers > n_layer)
        self.n_embd = int(self.llama.llama_model_n_embd(self.handle))
        self.n_embd_out = int(self.llama.llama_model_n_embd_out(self.handle))
        self.n_vocab = int(self.llama.llama_vocab_n_tokens(self.vocab))
        self.n_ctx_train = int(self.llama.llama_model_n_ctx_train(self.handle))

    def close(self) -> None:
        if self.handle:
            if self._owned:
                self.llama.llama_model_free(self.handle)
            self.handle, self._servers = None, []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "handle", None) and not sys.is_finalizing():
            self.close()

    @cached_property
    def rewinds(self) -> bool:
        """Whether a context can take back the last tokens; the state of recurrent layers has no way back."""
        recurrent = self.llama.llama_model_is_recurrent(self.handle) or self.llama.llama_model_is_hybrid(self.handle)
        return not recurrent

    def trained_ctx(self, n_ctx: int, notice: Notice | None = None) -> int:
        """Return n_ctx, or as many tokens as the model was trained for, where that is less; then `notice` is told."""
        if not 0 < self.n_ctx_train < n_ctx:
            return n_ctx
        if notice:
            notice(f"the context is {self.n_ctx_train} tokens: {self.name} was trained for no more")
        return self.n_ctx_train

    @cached_property
    def devices(self) -> list[dict[str, str]]:
        """Name and description of each device that may hold layers, beside the CPU."""
        return [self.native.described(device) for device in self._devices]

    def free_memory(self) -> int:
        """Return the bytes that contexts can have: of the host, or of the GPUs, where that is less.

        With a part of the layers on a GPU, a context takes some of both.
        """
        host = memory.available()
        return min(host, sum(map(self.native.free_memory, self._devices))) if self._devices else host

    @property
    def encodes(self) -> bool:
        """Whether it reads a text with an encoder first, as T5 does; by itself, its decoder ends the process."""
        return bool(self.llama.llama_model_has_encoder(self.handle))

    def check_writes(self, memory: bool = True) -> None:
        """Raise ModelError unless the model writes text token by token; memory: whether contexts keep what they read.

        llama.cpp ends the process where such a context is asked for logits.
        """
        if self.encodes or self._pools or not memory:
            raise ModelError(f"{self.name} ({self.architecture}) does not write text token by token", Remedy.CHAT_MODEL)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the tensors: what a head map is bound to."""
        return self.identity.fingerprint

    @property
    def n_layer(self) -> int:
        return len(self.n_heads)

    @property
    def n_head_max(self) -> int:
        """Largest head count of any layer: the columns of a head-scale array."""
        return max(self.n_heads, default=0)

    def heads(self) -> list[Head]:
        """Return every (layer, head), layer by layer."""
        return [(layer, head) for layer, n in enumerate(self.n_heads) for head in range(n)]

    def layer_start(self, layer: int) -> int:
        """Return the highest layer up to `layer` that needs only what the one below it puts out; 0 where none does."""
        return int(self.native.model_layer_start(self.handle, layer))

    def tokenize(self, text: str, *, special: bool, bos: bool = False) -> list[int]:
        """Return the tokens of `text`; `special` parses <|…|>-like tokens, `bos` adds what the model starts with."""
        if len(text) >= KIB:
            return self._tokenize(text, special, bos)
        key = text, special, bos
        if (tokens := self._tokenized.get(key)) is None:
            if len(self._tokenized) >= MEMO:
                self._tokenized.clear()
            tokens = self._tokenized[key] = self._tokenize(text, special, bos)
        return list(tokens)

    @cached_property
    def _tokenized(self) -> dict[tuple[str, bool, bool], list[int]]:
        """Short texts with their tokens: those of a profile come again in each prompt, and several times."""
        return {}

    def _tokenize(self, text: str, special: bool, bos: bool) -> list[int]:
        data = text.encode(errors="replace")  # a lone surrogate is no character
        n = len(data) + 8
        buffer = (ctypes.c_int32 * n)()

        def call() -> int:
            return int(self.llama.llama_tokenize(self.vocab, data, len(data), buffer, n, bos, special))

        try:
            # std::regex, which many vocabularies need, goes deeper with every character of a word
            count = call() if len(text) < KIB else on_deep_stack(call, (len(text) // KIB + 16) * STACK_PER_KIB)
        except (MemoryError, OverflowError, ValueError) as exc:
            raise ModelError(f"a text of {len(text)} characters is too long: shorten it") from exc
        if count < 0:
            raise ModelError(f"llama.cpp could not tokenize {len(data)} bytes of text")
        return list(buffer[:count])

    def piece(self, token: int) -> bytes:
        """Return the bytes of one token, empty for control tokens; a character may span several tokens."""
        buffer = ctypes.create_string_buffer(256)
        count = self.llama.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, False)
        if count < 0:
            buffer = ctypes.create_string_buffer(-count)
            count = self.llama.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, False)
        return buffer.raw[:count]

    def detokenize(self, tokens: Iterable[int]) -> str:
        return b"".join(map(self.piece, tokens)).decode(errors="replace")

    def is_eog(self, token: int) -> bool:
        """Whether the model ends its answer with this token (end of generation)."""
        return bool(self.llama.llama_vocab_is_eog(self.vocab, token))

    def is_control(self, token: int) -> bool:
        """Whether a token steers the model and is no text, such as one that ends a turn."""
        return bool(self.llama.llama_vocab_get_attr(self.vocab, token) & CONTROL)

    @cached_property
    def hidden(self) -> NDArray[np.bool_]:
        """Which tokens [n_vocab] are neither text nor end an answer."""
        tokens = range(self.n_vocab)
        return np.fromiter((self.is_control(token) and not self.is_eog(token) for token in tokens), np.bool_)

    def token_text(self, token: int) -> str:
        """Return the text of a special token as it stands in chat templates, '' when there is none."""
        text = self.llama.llama_vocab_get_text(self.vocab, token) if token >= 0 else None
        return text.decode(errors="replace") if text else ""

    @cached_property
    def bos(self) -> int:
        """Beginning-of-sequence token, -1 when the model has none."""
        return int(self.llama.llama_vocab_bos(self.vocab))

    @cached_property
    def eos(self) -> int:
        return int(self.llama.llama_vocab_eos(self.vocab))

    @cached_property
    def adds_bos(self) -> bool:
        """Whether llama.cpp puts the BOS token before a prompt of this model."""
        return bool(self.llama.llama_vocab_get_add_bos(self.vocab))

    def prompt_tokens(self, text: str, *, special: bool = True) -> list[int]:
        """Tokens of a whole templated prompt, with exactly one BOS where the model wants one."""
        return self.with_bos(self.tokenize(text, special=special))

    def with_bos(self, tokens: list[int]) -> list[int]:
        """Return the tokens of a whole prompt with exactly one BOS where the model wants one."""
        begins = not self.adds_bos or self.bos < 0 or tokens[:1] == [self.bos]
        return tokens if begins else [self.bos, *tokens]


def _per_layer(value: int | NDArray[np.integer], n_layer: int) -> tuple[int, ...]:
    """Return a hyperparameter that GGUF gives once or for each layer, for each layer."""
    return tuple(
        np.broadcast_to(value, n_layer).tolist() if np.ndim(value) == 0 else np.asarray(value)[:n_layer].tolist()
    )


def head_mask(model: Model, heads: Sequence[Head], scale: float = 0.0) -> HeadScales:
    """Return scales F32 [n_layer, n_head_max]: `scale` at `heads`, 1 elsewhere."""
    scales = np.ones((model.n_layer, model.n_head_max), np.float32)
    for layer, head in heads:
        if not (0 <= layer < model.n_layer and 0 <= head < model.n_heads[layer]):
            raise ModelError(f"{model.name} has no head {head} in layer {layer}")
        scales[layer, head] = scale
    return scales
