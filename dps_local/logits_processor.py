"""`SteeringLogitsProcessor`: steers the answers of llama-cpp-python's `Llama`, in a program that is there already."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dps_local.engine import native
from dps_local.engine.context import MAX_INVARIANT_BATCH, N_UBATCH, Context
from dps_local.engine.model import Model
from dps_local.engine.stream import Stream, common, in_batches
from dps_local.errors import HeadMapError, ModelError, NativeError, StateError
from dps_local.maps.baking import load_map
from dps_local.maps.head_map import HeadMap
from dps_local.steering.contrast import Contrast
from dps_local.steering.draft import Draft
from dps_local.steering.mixing import Gamma
from dps_local.steering.steering import Steering

if TYPE_CHECKING:
    from llama_cpp import Llama

OUT_OF_REACH = 1000.0  # in the logits: e to minus this is 0, and a grammar may still choose among such tokens


class SteeringLogitsProcessor:
    """Samples from f + γ·(f - m) under the plausibility mask β, as `dps_local.chat.session.Session` does.

        from dps_local import SteeringLogitsProcessor
        from llama_cpp import Llama

        llama = Llama("model.gguf", n_ctx=4096)
        steering = SteeringLogitsProcessor(llama, "me.dps.gguf", gamma=0.25)
        llama.create_chat_completion(messages, logits_processor=[steering])

    Import it before llama_cpp: the package's own copy, with the patched library, takes that name then.

    A second context of `llama`'s own settings holds the muted stream. It takes over the prompt when an answer begins,
    which shows in the tokens: they are not those of the last call and one more. From now on `llama.eval` reads the
    last token of a prompt alone, as a session does, so that both streams can read it in the same way.

    head_map: a HeadMap, or the path of one or of a model with one inside. gamma: a number, or text as for --gamma;
    None takes the head map's, where it was calibrated for a contrast. Where the plausible tokens are all against a
    grammar, the others keep the order of f. Raises HeadMapError when the map does not fit, StateError when `llama` is
    closed, ModelError when it is for embeddings, or drafts tokens.

    A call raises StateError when the processor is closed or was made for another Llama. llama-cpp-python calls it where
    nothing can be raised: what goes wrong there is raised by `Llama.sample`, before the token is given out.
    """

    def __init__(
        self,
        llama: Llama,
        head_map: HeadMap | str | os.PathLike[str],
        gamma: float | str | Gamma | None = None,
        beta: float = 0.1,
    ) -> None:
        if getattr(llama, "_model", None) is None or llama._model.model is None:
            raise StateError("this Llama is closed")
        if llama.draft_model is not None or llama.context_params.n_seq_max > 1:
            raise ModelError("a Llama that drafts tokens or embeds texts cannot be steered")
        path, n_gpu_layers = Path(llama.model_path), llama.model_params.n_gpu_layers
        self.model = Model(path, n_gpu_layers, handle=llama._model.model)
        self.steering = _steering(self.model, head_map, gamma, beta)
        self._context = Context.borrowed(self.model, llama._ctx.ctx)
        self._n_max = min(MAX_INVARIANT_BATCH, llama.context_params.n_batch, llama.context_params.n_ubatch)
        self.muted = Stream(
            Context.beside(self.model, llama.context_params, n_outputs=self._n_max, batch_invariant=True)
        )
        if llama._lora_adapter is not None:
            _adapt(llama, self.muted.context)
        self.draft: Draft | None = None
        self.tokens: list[int] = []  # that the last call steered; none after an error
        self._llama = llama
        llama._stack.callback(self.close)  # a context goes before its model
        _raise_from_sample(native.load().binding.Llama)
        _read_last_token_alone(llama, self.model.layer_start(self.steering.first_layer))

    def close(self) -> None:
        """Free the second context; `Llama.close` does so, too."""
        self._context.close()
        self.muted.context.close()

    def __call__(self, input_ids: NDArray[np.intc], scores: NDArray[np.single]) -> NDArray[np.single]:
        """Return the steered logits F32 [n_vocab] after the tokens input_ids; scores: those of `llama`."""
        try:
            return self._steered(input_ids, scores)
        except BaseException as exc:
            if not _sampling.llama:
                raise
            _sampling.error = exc
            return scores

    def _steered(self, input_ids: NDArray[np.intc], scores: NDArray[np.single]) -> NDArray[np.single]:
        if self.muted.context.handle is None:
            raise StateError("this SteeringLogitsProcessor is closed: make a new one")
        if _sampling.llama not in (None, self._llama):
            raise StateError("this SteeringLogitsProcessor was made for another Llama: make one for this Llama")
        if self.steering.off:
            return scores
        tokens, seen, f = input_ids.tolist(), self.tokens, np.ascontiguousarray(scores, np.float32)
        self.tokens = []  # after an error or an interruption, the next call begins anew
        if not (self.draft and seen and tokens[:-1] == seen):
            self.draft = self._begin(tokens[:-1])
        self.draft.contrast.full.record(tokens[-1:])
        candidates, steered = self.draft.append_steered(tokens[-1], f)
        self.tokens = tokens
        logits = f - (f.max() - steered.min() + np.float32(OUT_OF_REACH))
        logits[candidates] = steered
        return np.asarray(logits, np.float32)

    def _begin(self, prompt: list[int]) -> Draft:
        """Let both streams stand behind a prompt but for its last token, which `llama` has read by now."""
        full, muted = Stream(self._context), self.muted
        for call in in_batches(prompt):
            full.record(call)
        if self.steering.scope == "all":
            muted.rewind(common(muted.tokens(), prompt))
            muted.scale(self.steering.scales)
        else:
            muted.copy_from(full)
            if not muted.context.truncate(0, len(prompt)):
                muted.clear()  # a recurrent state has no way back
            muted.scale(None)
        muted.replay(in_batches(prompt[muted.n :], min(N_UBATCH, muted.context.n_batch)))
        muted.scale(self.steering.scales)
        return Draft(Contrast(full, muted, self.steering), self._n_max)


class _Sampling(threading.local):
    """The Llama that samples a token on this thread, and what a processor could not raise meanwhile."""

    llama: Llama | None = None
    error: BaseException | None = None


_sampling = _Sampling()


def _raise_from_sample(llama_class: Any) -> None:
    """Let `sample` raise what goes wrong in a processor: it is called back from C, where errors are only printed."""
    original = llama_class.sample
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def sample(self: Llama, *arguments: Any, **options: Any) -> int:
        _sampling.llama = self
        try:
            token = int(original(self, *arguments, **options))
            if _sampling.error:
                raise _sampling.error
            return token
        finally:
            _sampling.llama = _sampling.error = None

    llama_class.sample = sample


class _ReadLastTokenAlone:
    """Takes the place of `llama.eval`: the last token of a prompt is read in a call of its own.

    layers: whose outputs are kept of single tokens.
    """

    def __init__(self, llama: Llama, layers: range) -> None:
        self.read, self.layers, self._llama = llama.eval, layers, llama

    def __call__(self, tokens: Sequence[int]) -> None:
        keep, context = native.load().set_layer_outputs, self._llama._ctx.ctx
        keep(context, 0, 0)
        if len(tokens) > 1:
            self.read(tokens[:-1])
        keep(context, self.layers.start, self.layers.stop)
        self.read(tokens[-1:])


def _read_last_token_alone(llama: Llama, layer_start: int) -> None:
    """Let `llama` read the last token of a prompt alone, and keep what the layer below a start puts out."""
    layers, before = range(max(0, layer_start - 1), layer_start), vars(llama).get("eval")
    if isinstance(before, _ReadLastTokenAlone):  # of another processor
        before.layers = range(min(layers.start, before.layers.start), max(layers.stop, before.layers.stop))
    else:
        llama.eval = _ReadLastTokenAlone(llama, layers)


def _steering(
    model: Model, head_map: HeadMap | str | os.PathLike[str], gamma: float | str | Gamma | None, beta: float
) -> Steering:
    loaded = head_map if isinstance(head_map, HeadMap) else load_map(Path(head_map))
    if not isinstance(loaded, HeadMap):
        raise HeadMapError("a cluster map needs to know who writes: give a head map of one user")
    loaded.check(model.name, model.identity)  # of another chat template: the program has prompts of its own anyway
    if gamma is None and loaded.mode == "amplify" and loaded.gamma:
        raise HeadMapError(
            "this head map was calibrated for amplification: say by gamma= how strong a contrast is to be"
        )
    strength = gamma if isinstance(gamma, Gamma) else Gamma.parse(str(loaded.gamma if gamma is None else gamma))
    return loaded.steering(model, "contrast", strength, beta)


def _adapt(llama: Llama, context: Context) -> None:
    """Let a context have the LoRA of `llama`."""
    binding = native.load().llama
    adapters = (binding.llama_adapter_lora_p_ctypes * 1)(llama._lora_adapter)
    scales = (binding.ctypes.c_float * 1)(llama.lora_scale)
    native.load().log.begin()
    if binding.llama_set_adapters_lora(context.handle, adapters, 1, scales):
        raise NativeError(f"llama.cpp does not take the LoRA a second time: {native.load().log.reason()}")
