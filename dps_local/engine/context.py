"""`Context`: one llama.cpp context: KV cache, decoding, and the scales of attention heads."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dps_local.engine.model import HeadScales, Model
from dps_local.errors import ContextFullError, NativeError, NoSlopesError, Remedy

N_UBATCH = 512  # llama.cpp's default; larger brings nothing on a CPU
Logits = NDArray[np.float32]
LayerVectors = NDArray[np.float32]  # [n_layer - 1, n_embd], of all layers after the first
KV_STEP = 256  # attention looks at so many KV cells more at a time
MAX_INVARIANT_BATCH = 8  # tokens of a batch-invariant call: LLAMA_MAX_BATCH_INVARIANT of the patch
NO_SLOPES = "no slopes of heads: "  # how the patch begins to say why
STATE_FLAGS = 4  # LLAMA_STATE_SEQ_FLAGS_SWA_MASKED of the patch
N_TOP = 64  # logits to pick on a device: as many tokens as are plausible in all but a few steps
NO_MEMORY = -2  # what llama_decode returns where a graph or its outputs cannot be allocated
ROW_STEP = 16  # Context.decode_rows computes a multiple of so many rows


class LogitsPart(IntEnum):
    """What a call gives in the place of the logits: enum llama_logits_part_kind of the patch."""

    TOKENS = 0
    COMPARE = 1
    SLOPES = 2
    TOP = 3


class TopLogits(NamedTuple):
    """The largest logits of a call's first output: their tokens, in rising order, and F32 [n_outputs, n_top]."""

    tokens: NDArray[np.int32]
    logits: Logits


@dataclass(frozen=True)
class Run:
    """Consecutive tokens of one sequence, from position `start`; logits of the last `n_logits` of them are wanted."""

    seq: int
    start: int
    tokens: Sequence[int]
    n_logits: int = 0


class Context:
    """A context over `model` with `n_seq` sequences of `n_ctx` tokens each.

    n_outputs: tokens of one batch whose logits can be had; a large vocabulary makes them dear.
    flash_attn: None lets llama.cpp choose. type_k, type_v: enum ggml_type of the KV cache, None for F16.
    batch_invariant: up to MAX_INVARIANT_BATCH tokens of a batch get the bits that they would get one after the other,
    if their KV cells end in the same step of KV_STEP; the attribute is False where llama.cpp cannot promise that, as on
    a GPU. slopes: for `slopes`; all sequences then share n_ctx KV cells.

    Each sequence has KV cells of its own (kv_unified = false), and a sliding-window cache keeps all of them
    (swa_full), so that sequences can be cut back exactly. Equal shapes give equal bits on the CPU.
    """

    def __init__(
        self,
        model: Model,
        n_ctx: int,
        *,
        n_seq: int = 1,
        n_batch: int = N_UBATCH,
        n_outputs: int = 1,
        n_threads: int | None = None,
        flash_attn: bool | None = None,
        batch_invariant: bool = False,
        slopes: bool = False,
        type_k: int | None = None,
        type_v: int | None = None,
    ) -> None:
        parameters = model.llama.llama_context_default_params()
        parameters.n_ctx, parameters.n_seq_max = n_ctx if slopes else n_ctx * n_seq, n_seq
        parameters.n_batch, parameters.n_ubatch = max(n_batch, N_UBATCH), N_UBATCH
        parameters.n_threads = parameters.n_threads_batch = n_threads or default_threads()
        parameters.n_outputs_max = max(n_outputs, n_seq)
        parameters.kv_unified, parameters.swa_full, parameters.no_perf = slopes, True, True
        if slopes:
            flash_attn = True  # its layout of the KV cache is the one that has a backward pass
        if flash_attn is not None:
            parameters.flash_attn_type = int(flash_attn)
        if type_k is not None:
            parameters.type_k = type_k
        if type_v is not None:
            parameters.type_v = type_v
        self._make(model, parameters, batch_invariant)
        # what a KV state depends on, beside its model and tokens
        self.settings = [self.n_ctx, flash_attn, type_k, type_v, model.n_gpu_layers, model.devices]

    @classmethod
    def beside(cls, model: Model, parameters: Any, *, n_outputs: int, batch_invariant: bool) -> Context:
        """Make a context with the parameters (struct llama_context_params) of another one."""
        self, parameters = object.__new__(cls), type(parameters).from_buffer_copy(parameters)
        parameters.n_outputs_max = n_outputs
        parameters.n_threads_batch = parameters.n_threads  # other numbers of threads round otherwise
        self._make(model, parameters, batch_invariant)
        return self

    @classmethod
    def borrowed(cls, model: Model, handle: Any) -> Context:
        """Use a context (struct llama_context *) that someone else has made, and frees."""
        self = object.__new__(cls)
        self._use(model, handle, owned=False)
        return self

    def _make(self, model: Model, parameters: Any, batch_invariant: bool) -> None:
        model.check_writes()
        model.native.log.begin()
        handle = model.llama.llama_init_from_model(model.handle, parameters)
        if not handle:
            raise NativeError(
                f"llama.cpp cannot make a context of {parameters.n_ctx} tokens ({model.native.log.reason()})",
                memory_remedy(model),
            )
        self._use(model, handle, owned=True)
        model.check_writes(bool(self.memory))
        self.batch_invariant = not self.native.set_batch_invariant(handle, batch_invariant) and batch_invariant

    def _use(self, model: Model, handle: Any, *, owned: bool) -> None:
        self.model, self.llama, self.native = model, model.llama, model.native
        self.handle, self._owned = handle, owned
        self.memory = self.llama.llama_get_memory(handle)
        self.n_ctx = int(self.llama.llama_n_ctx_seq(handle))
        self.n_seq = int(self.llama.llama_n_seq_max(handle))
        self.n_batch = int(self.llama.llama_n_batch(handle))
        self._batch = self.llama.llama_batch_init(self.n_batch, 0, 1)
        self._no_memory: NativeError | None = None

    def close(self) -> None:
        if self.handle:
            self.llama.llama_batch_free(self._batch)
            if self._owned:
                self.llama.llama_free(self.handle)
            self.handle = None

    def __del__(self) -> None:
        if getattr(self, "handle", None) and self.model.handle and not sys.is_finalizing():
            self.close()

    @contextmanager
    def ended_by(self, cancel: threading.Event | None) -> Iterator[None]:
        """Let calls within a block end soon after `cancel` is set: they raise InterruptedError, on the CPU.

        What such a call has read may be left in the KV cache. A state that has no way back is read to its end.
        """
        with self.native.ended_by(self.handle, cancel if self.model.rewinds else None):
            yield

    def decode(self, runs: Sequence[Run]) -> Logits:
        """Run the model once over all `runs`, and return logits F32 [sum of n_logits, n_vocab] in their order.

        The array is llama.cpp's own buffer: the next call overwrites it. Raises ContextFullError when a sequence
        is full; the KV cache is then as it was before.
        """
        n_outputs = self._decode(runs)
        if not n_outputs:
            return np.empty((0, self.model.n_vocab), np.float32)
        logits = self.llama.llama_get_logits(self.handle)
        return np.ctypeslib.as_array(logits, (n_outputs, self.model.n_vocab))

    def compare(self, runs: Sequence[Run], targets: Sequence[int]) -> NDArray[np.float32]:
        """Run the model once, and compare the logits m of each run with the logits f of the first one, in the graph.

        Each run asks for as many logits as there are targets, and goes on a sequence of its own. Returns F32
        [n_runs, n_targets, 4]: p = softmax(m)[y] of the target y, m[y] - f[y], and the mean and the mean square of
        m - f under softmax(f).
        """
        # does the copies that are due: else llama.cpp reserves the largest comparison there can be with them, and
        # crashes where there is no memory for that
        self.llama.llama_state_seq_get_size(self.handle, 0)
        compared, _ = self._decode_part(runs, np.asarray(targets, np.int32), LogitsPart.COMPARE)
        return compared.reshape(len(runs), len(targets), 4)

    @contextmanager
    def keep_layers(self, layers: range) -> Iterator[None]:
        """Keep what these layers put out in calls within a block, for `layer_output`."""
        self._set_layer_outputs(layers)
        try:
            yield
        finally:
            self._set_layer_outputs(range(0))

    def _set_layer_outputs(self, layers: range) -> None:
        status = self.native.set_layer_outputs(self.handle, layers.start, layers.stop)
        self._check("llama_set_layer_outputs", status)

    def layer_output(self, layer: int, n_tokens: int) -> NDArray[np.float32] | None:
        """Return the output F32 [n_tokens, n_embd] of a layer in the last call; None where it was not kept.

        The architecture may have no name for it, and the last layer computes outputs only.
        """
        data = np.empty((n_tokens, self.model.n_embd), np.float32)
        status = self.native.get_layer_output(self.handle, layer, data.ctypes.data, data.size)
        return None if status else data

    @contextmanager
    def start_at(self, layer: int, layer_input: NDArray[np.float32]) -> Iterator[None]:
        """Start calls within a block at a layer, from what the one below it put out: F32 [n_tokens, n_embd].

        A call then has these tokens, once or in several sequences, and the layers below have nothing of them in their
        KV cache. layer: one that Model.layer_start returns.
        """
        data = np.ascontiguousarray(layer_input, np.float32)
        status = self.native.set_layer_start(self.handle, layer, data.ctypes.data, data.size)
        self._check("llama_set_layer_start", status)
        try:
            yield
        finally:
            self.native.set_layer_start(self.handle, 0, None, 0)

    @contextmanager
    def control_vector(self, vectors: LayerVectors | None) -> Iterator[None]:
        """Add vectors to what layers put out, for the tokens that are decoded within a block; None adds nothing."""
        if vectors is None:
            yield
            return
        data = np.ascontiguousarray(vectors, np.float32)
        pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        setting = (pointer, data.size, data.shape[1], 1, data.shape[0])
        self._check("llama_set_adapter_cvec", self.llama.llama_set_adapter_cvec(self.handle, *setting))
        try:
            yield
        finally:
            self.llama.llama_set_adapter_cvec(self.handle, None, 0, 0, 0, 0)

    def decode_rows(self, runs: Sequence[Run], rows: NDArray[np.integer]) -> Logits:
        """Run the model once, and return the logits of some tokens only: F32 [sum of n_logits, n_rows]."""
        n_ids = -(-rows.size // ROW_STEP) * ROW_STEP  # other numbers of rows would be other graphs
        ids = np.full(n_ids, rows[0], np.int32)
        ids[: rows.size] = rows
        logits, n_outputs = self._decode_part(runs, ids, LogitsPart.TOKENS)
        return logits.reshape(n_outputs, ids.size)[:, : rows.size]

    def decode_top(self, runs: Sequence[Run], n: int) -> TopLogits:
        """Run the model once, and return the n largest logits of its first output, and the others' of these tokens.

        They are picked where the logits are computed; `fetch_logits` gets the rest of them.
        """
        logits, n_outputs = self._decode_part(runs, np.zeros(min(n, self.model.n_vocab), np.int32), LogitsPart.TOP)
        logits = logits.reshape(n_outputs, -1)
        tokens = np.ctypeslib.as_array(self.native.get_logits_part_tokens(self.handle), logits.shape[1:])
        order = np.argsort(tokens)
        return TopLogits(tokens[order], logits[:, order])

    def fetch_logits(self, n_outputs: int) -> Logits:
        """Return all logits F32 [n_outputs, n_vocab] of the last `decode_top`, in llama.cpp's own buffer."""
        return np.ctypeslib.as_array(self.native.fetch_logits(self.handle), (n_outputs, self.model.n_vocab))

    def slopes(self, runs: Sequence[Run], targets: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Run the model once forwards and once backwards: the slopes of all heads' scales, for each run.

        targets: the token that follows each of the runs' outputs. Returns F32 [n_outputs] with softmax(logits)[target],
        and F32 [n_runs, n_layer, n_head_max]: the derivative of a run's sum of log softmax(logits)[target] with respect
        to the scale of each head at the run's tokens; 0 where a layer has no such head. What is in the KV cache counts
        as a constant. Needs a context made with `slopes=True`. Raises NoSlopesError where an operation of the
        architecture has no backward pass.
        """
        tokens = np.asarray(targets, np.int32)
        lengths = [len(run.tokens) for run in runs]
        with self._logits_part(tokens, LogitsPart.SLOPES):
            try:
                p = self._part(self._decode(runs))
            except NativeError as exc:
                _, said, why = str(exc).partition(NO_SLOPES)
                if said:
                    raise NoSlopesError(str(exc), why) from exc
                raise
            shape = (self.model.n_layer, sum(lengths), self.model.n_head_max)
            each = np.ctypeslib.as_array(self.native.get_head_slopes(self.handle), shape)
            starts = np.cumsum([0, *lengths[:-1]])
            return p, np.add.reduceat(each, starts, axis=1).transpose(1, 0, 2)

    def _decode_part(self, runs: Sequence[Run], tokens: NDArray[np.int32], kind: LogitsPart) -> tuple[Logits, int]:
        """Run the model once; return what llama_set_logits_part gives, flat, and the number of outputs."""
        with self._logits_part(tokens, kind):
            n_outputs = self._decode(runs)
            return self._part(n_outputs * (4 if kind is LogitsPart.COMPARE else tokens.size)), n_outputs

    @contextmanager
    def _logits_part(self, tokens: NDArray[np.int32], kind: LogitsPart) -> Iterator[None]:
        """Let calls within a block give a part of the logits."""
        try:
            status = self.native.set_logits_part(self.handle, tokens.ctypes.data, tokens.size, kind)
            self._check("llama_set_logits_part", status)
            yield
        finally:
            self.native.set_logits_part(self.handle, None, 0, kind)

    def _part(self, n: int) -> NDArray[np.float32]:
        return np.ctypeslib.as_array(self.native.get_logits_part(self.handle), (n,)).copy()

    def _check(self, function: str, status: int) -> None:
        if status:
            raise NativeError(f"{function}: {self.native.log.last()}")

    def _decode(self, runs: Sequence[Run]) -> int:
        """Run the model once over all `runs`; return the number of outputs."""
        batch, n, n_outputs = self._batch, 0, 0
        if self._no_memory:  # llama.cpp ends the process where it is asked once more
            raise self._no_memory
        if sum(len(run.tokens) for run in runs) > self.n_batch:
            raise NativeError(f"more than {self.n_batch} tokens in one batch")
        for run in runs:
            if run.start + len(run.tokens) > self.n_ctx:
                raise ContextFullError(f"the context of {self.n_ctx} tokens is full", Remedy.LARGER_CONTEXT)
            for i, token in enumerate(run.tokens):
                wanted = i >= len(run.tokens) - run.n_logits
                batch.token[n], batch.pos[n], batch.logits[n] = token, run.start + i, wanted
                batch.n_seq_id[n], batch.seq_id[n][0] = 1, run.seq
                n, n_outputs = n + 1, n_outputs + wanted
        batch.n_tokens = n
        self.native.log.begin()
        status = self.llama.llama_decode(self.handle, batch)
        if status == 2:
            raise InterruptedError
        if status == 1:
            raise ContextFullError(f"the context of {self.n_ctx} tokens is full", Remedy.LARGER_CONTEXT)
        if status == NO_MEMORY:
            reason = self.native.log.reason()
            self._no_memory = NativeError(f"no memory to compute {n} tokens ({reason})", memory_remedy(self.model))
            raise self._no_memory
        if status:
            raise NativeError(f"llama_decode failed with {status}: {self.native.log.reason()}")
        return n_outputs

    def set_head_scales(self, seq: int, scales: HeadScales | None) -> None:
        """Scale the head outputs of the tokens that sequence `seq` decodes from now on; None clears."""
        if scales is None:
            status = self.native.set_adapter_head_scale(self.handle, seq, None, 0)
        else:
            data = np.ascontiguousarray(scales, np.float32)
            status = self.native.set_adapter_head_scale(self.handle, seq, data.ctypes.data, data.size)
        self._check("llama_set_adapter_head_scale", status)

    @contextmanager
    def head_scales(self, scales: dict[int, HeadScales]) -> Iterator[None]:
        """Scale heads per sequence within a block; they are cleared at its end."""
        try:
            for seq, scale in scales.items():
                self.set_head_scales(seq, scale)
            yield
        finally:
            for seq in scales:
                self.set_head_scales(seq, None)

    def truncate(self, seq: int, n: int) -> bool:
        """Keep the first `n` tokens of a sequence; False where the memory cannot be cut there (recurrent states)."""
        return self._remove(n, -1, seq)

    def _remove(self, start: int, end: int, seq: int = 0) -> bool:
        return bool(self.llama.llama_memory_seq_rm(self.memory, seq, start, end))

    def shift(self, start: int, end: int, seq: int = 0) -> bool:
        """Forget the tokens from `start` to `end` of a sequence, and move those behind them up.

        What is kept has seen what goes (llama.cpp's context shift: keys are rotated to their new positions). False,
        with nothing done, where the memory has no positions to move, as of recurrent states.
        """
        if not self.llama.llama_memory_can_shift(self.memory) or not self._remove(start, end, seq):
            return False
        self.llama.llama_memory_seq_add(self.memory, seq, end, -1, start - end)
        self.set_state(self.state(seq), seq)  # without the holes: attention over other cells rounds otherwise
        return True

    def copy(self, source: int, target: int) -> None:
        """Make sequence `target` an exact copy of `source`."""
        self.llama.llama_memory_seq_rm(self.memory, target, -1, -1)
        self.llama.llama_memory_seq_cp(self.memory, source, target, -1, -1)

    def state(self, seq: int = 0) -> memoryview:
        """Return the KV state of a sequence in llama.cpp's own format."""
        buffer = np.empty(self.llama.llama_state_seq_get_size_ext(self.handle, seq, STATE_FLAGS), np.uint8)
        arguments = (_bytes_at(buffer), buffer.size, seq, STATE_FLAGS)
        return buffer[: self.llama.llama_state_seq_get_data_ext(self.handle, *arguments)].data

    def set_state(self, state: bytes | memoryview, seq: int = 0) -> None:
        """Replace the KV state of a sequence by one that `state` returned for a context of the same settings."""
        buffer = np.frombuffer(state, np.uint8)
        arguments = (_bytes_at(buffer), buffer.size, seq, STATE_FLAGS)
        self.native.log.begin()
        if self.llama.llama_state_seq_set_data_ext(self.handle, *arguments) != buffer.size:
            raise NativeError(f"llama.cpp did not take a KV state: {self.native.log.reason()}")


def _bytes_at(buffer: NDArray[np.uint8]) -> Any:
    """Return a pointer (uint8_t *) to an array, which it keeps alive."""
    return buffer.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))


def memory_remedy(model: Model) -> Remedy:
    """Return what helps where llama.cpp finds no memory."""
    return Remedy.LESS_GPU_MEMORY if model.offloads else Remedy.LESS_MEMORY


def default_threads() -> int:
    """Return the processors that this process may use, at most 16: more rarely help token generation."""
    n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(n, 16)
