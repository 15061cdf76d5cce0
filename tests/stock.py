"""Computes logits with stock llama.cpp, in a process of its own: `python stock.py REQUEST.json`.

The request says what the `stock_logits` fixture in conftest.py says. This script shares no code with dps_local, and
the environment names the libraries: LLAMA_CPP_LIB_PATH, with the llama_cpp binding on PYTHONPATH.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as llama
import numpy as np
from numpy.typing import NDArray

LOG_CALLBACK = llama.llama_log_callback(lambda *_: None)  # kept: a collected callback crashes


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text())
    assert not hasattr(llama._lib, "llama_set_adapter_head_scale"), "this is not stock llama.cpp"
    llama.llama_log_set(LOG_CALLBACK, ctypes.c_void_p(0))
    llama.llama_backend_init()
    model = llama.llama_model_load_from_file(os.fsencode(request["model"]), llama.llama_model_default_params())
    assert model, "stock llama.cpp cannot load the model"
    context = llama.llama_init_from_model(model, parameters(request))
    assert context
    logits = [decode(model, context, **chunk) for chunk in request["chunks"]]
    np.save(request["output"], np.concatenate(logits))


def parameters(request: dict[str, Any]) -> Any:
    p = llama.llama_context_default_params()
    p.n_ctx, p.n_seq_max, p.n_batch, p.n_ubatch = request["n_ctx"], 1, request["n_batch"], 512
    p.n_outputs_max = max(chunk["n_logits"] for chunk in request["chunks"])
    p.n_threads = p.n_threads_batch = request["n_threads"]
    p.kv_unified, p.swa_full = False, True
    return p


def decode(model: Any, context: Any, start: int, tokens: list[int], n_logits: int) -> NDArray[np.float32]:
    """Decode the tokens from position `start` on; return the logits of the last `n_logits` of them."""
    batch = llama.llama_batch_init(len(tokens), 0, 1)
    for i, token in enumerate(tokens):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = token, start + i, 1, 0
        batch.logits[i] = i >= len(tokens) - n_logits
    batch.n_tokens = len(tokens)
    assert llama.llama_decode(context, batch) == 0
    llama.llama_batch_free(batch)
    n_vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    return np.ctypeslib.as_array(llama.llama_get_logits(context), (n_logits, n_vocab)).copy()


if __name__ == "__main__":
    main()
