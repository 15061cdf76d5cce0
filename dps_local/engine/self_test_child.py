"""What the self-test does, in a process of its own: load a tiny model, split a text, decode, compare what is equal.

    python -m dps_local.engine.self_test_child FOLDER CPU [GPU]

FOLDER/report.jsonl says how far it came, one JSON object a line, so that it can be read whatever ends the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from dps_local.engine import native
from dps_local.engine.context import Context, Logits, Run
from dps_local.engine.model import HeadScales, Model, head_mask
from dps_local.errors import DpsError, ModelError

# ggml has kernels, and some CPUs a packed layout, for each type of weights: of each layer Q, K and V; W_O; the rest
TYPES = (("Q4_0", "F16", "Q4_K"), ("Q4_1", "Q4_0", "Q6_K"), ("Q4_K", "Q8_0", "Q8_0"), ("F16", "Q4_1", "Q4_1"))
# a block of random bits: where its scale d lies, and its minimum and how many d that is, and its deviation at d = 1
LAYOUT = {
    "Q4_0": (0, None, 0.0, 4.6),
    "Q4_1": (0, 2, -7.5, 4.6),
    "Q8_0": (0, None, 0.0, 73.9),
    "Q4_K": (0, 2, 7.5, 258.3),
    "Q6_K": (208, None, 0.0, 1365.3),
}
N_EMBD, N_HEAD, N_HEAD_KV, N_VOCAB = 256, 8, 2, 256
HEAD_SIZE = N_EMBD // N_HEAD  # a block of each type of W_O: a head's columns can be zero without touching the others
MUTED = [(layer, 3) for layer in range(len(TYPES))]
TOKENS = np.random.default_rng(14).integers(0, N_VOCAB, 44).tolist()
N = 4  # tokens at the end whose logits are compared
PROMPT, ANSWER = TOKENS[:-N], Run(0, len(TOKENS) - N, TOKENS[-N:], N)  # more than 32 tokens: another kernel
N_CTX = 256
# splits texts by regular expressions; the first letters are those of GPT-2's vocabulary for a space and a line break
LETTERS = ["Ġ", "Ċ", *map(chr, range(0x21, 0x7F)), "th"]
TEXT, TEXT_TOKENS = "the 12 days", [*map(LETTERS.index, ("th", *"eĠ12Ġdays"))]

# the largest difference of two logits that is allowed, in units of their deviation
MUTED_ALLOWED = 1e-3
ROUNDING = 0.25  # of quantized activations, and of a GPU's kernels; 0.08 on a CPU with AVX-512


class Failure(Exception):
    """A check computed another number than it should."""


def write_model(path: Path, *, zeroed: bool = False, exact: bool = False) -> None:
    """Write a llama of seeded random weights in all TYPES.

    zeroed: without the W_O columns of the MUTED heads. exact: the same numbers in F32.
    """
    writer = gguf.GGUFWriter(path, "llama")
    add_vocabulary(writer)
    writer.add_context_length(N_CTX)
    writer.add_embedding_length(N_EMBD)
    writer.add_block_count(len(TYPES))
    writer.add_feed_forward_length(N_EMBD)
    writer.add_head_count(N_HEAD)
    writer.add_head_count_kv(N_HEAD_KV)
    writer.add_layer_norm_rms_eps(1e-5)
    for name, kind, rows in _matrices():
        data = _random_matrix(name, kind, rows, zeroed=zeroed)
        if exact:
            writer.add_tensor(name, gguf.quants.dequantize(data, kind))
        else:
            writer.add_tensor(name, data, raw_dtype=kind)
    norms = [f"blk.{layer}.{part}_norm" for layer in range(len(TYPES)) for part in ("attn", "ffn")]
    for name in ("output_norm", *norms):
        writer.add_tensor(f"{name}.weight", np.ones(N_EMBD, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_vocabulary(writer: gguf.GGUFWriter) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([*LETTERS, *(f"<{i}>" for i in range(N_VOCAB - len(LETTERS)))])
    writer.add_token_merges(["t h"])
    writer.add_add_bos_token(False)


def write_broken(path: Path) -> None:
    """Write a model that is a vocabulary alone."""
    writer = gguf.GGUFWriter(path, "llama")
    add_vocabulary(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def _matrices() -> Iterator[tuple[str, gguf.GGMLQuantizationType, int]]:
    """Yield the name, type and rows of each matrix; all have N_EMBD columns."""
    kinds = gguf.GGMLQuantizationType
    yield "token_embd.weight", kinds.Q8_0, N_VOCAB
    yield "output.weight", kinds.Q6_K, N_VOCAB
    for layer, (qkv, output, feed_forward) in enumerate(TYPES):
        yield f"blk.{layer}.attn_q.weight", kinds[qkv], N_EMBD
        yield f"blk.{layer}.attn_k.weight", kinds[qkv], N_HEAD_KV * HEAD_SIZE
        yield f"blk.{layer}.attn_v.weight", kinds[qkv], N_HEAD_KV * HEAD_SIZE
        yield f"blk.{layer}.attn_output.weight", kinds[output], N_EMBD
        for part in ("gate", "up", "down"):
            yield f"blk.{layer}.ffn_{part}.weight", kinds[feed_forward], N_EMBD


def _random_matrix(name: str, kind: gguf.GGMLQuantizationType, rows: int, *, zeroed: bool) -> NDArray[Any]:
    """Return numbers of the deviation 1/√N_EMBD as bytes of a type; the norm behind the embeddings evens their size."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    deviation = N_EMBD**-0.5
    if kind == gguf.GGMLQuantizationType.F16:
        data: NDArray[Any] = (deviation * rng.standard_normal((rows, N_EMBD))).astype(np.float16)
    else:
        block, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = rng.integers(0, 256, (rows, N_EMBD // block, size), np.uint8)
        at, at_minimum, minimum, deviation_at_1 = LAYOUT[kind.name]
        d = np.float16(deviation / deviation_at_1)
        blocks[..., at : at + 2] = np.array([d]).view(np.uint8)
        if at_minimum is not None:
            blocks[..., at_minimum : at_minimum + 2] = np.array([minimum * d], np.float16).view(np.uint8)
        data = blocks.reshape(rows, -1)
    for layer, head in MUTED:
        if zeroed and name == f"blk.{layer}.attn_output.weight":
            data.reshape(rows, N_HEAD, -1)[:, head] = 0
    return data


def answer(model: Model, scales: HeadScales | None = None) -> Logits:
    """Return the logits F32 [N, N_VOCAB] of the last tokens, with heads scaled."""
    context = Context(model, N_CTX, n_outputs=N)
    context.set_head_scales(0, scales)
    context.decode([Run(0, 0, PROMPT)])
    return context.decode([ANSWER]).copy()


def answer_beside(model: Model, scales: dict[int, HeadScales]) -> Logits:
    """Return the same logits, computed in one batch with those of a second sequence; scales: of each sequence."""
    context = Context(model, N_CTX, n_seq=2, n_outputs=2 * N)
    with context.head_scales(scales):
        context.decode([Run(seq, 0, PROMPT) for seq in range(2)])
        return context.decode([Run(seq, ANSWER.start, ANSWER.tokens, N) for seq in range(2)])[:N].copy()


def equal(actual: Logits, expected: Logits, allowed: float) -> None:
    """Raise Failure where two arrays of logits differ by more than is allowed."""
    difference = float(np.abs(actual - expected).max() / expected.std())
    if not difference <= allowed:  # a NaN differs
        raise Failure(f"off by {difference:.2g} of the logits' deviation ({allowed:g} is allowed)")


def check(folder: Path, device: str, begin: Callable[[str], None]) -> None:
    """Run all checks on one device, "CPU" or "GPU"; raises Failure. begin: called with each check's name before it."""
    on_cpu = device == "CPU"
    rounding = 0.0 if on_cpu else ROUNDING
    begin("loading a model")
    try:
        model, zeroed = (Model(folder / f"{name}.gguf", 0 if on_cpu else None) for name in ("model", "zeroed"))
    except ModelError as exc:
        raise Failure(str(exc).partition("): ")[0] + ")") from exc  # without what to do about a file
    mask, ones = head_mask(model, MUTED), head_mask(model, [])

    begin("splitting a text into tokens")
    if model.tokenize(TEXT, special=True) != TEXT_TOKENS or model.detokenize(TEXT_TOKENS) != TEXT:
        raise Failure("other tokens than those of the text")

    begin("a file without weights")
    with contextlib.suppress(ModelError):
        Model(folder / "broken.gguf", 0 if on_cpu else None)
        raise Failure("it is taken for a model")

    begin("plain decoding")
    plain = answer(model)
    equal(plain, answer(Model(folder / "exact.gguf", 0)), ROUNDING)

    begin("a muted head")
    muted = answer(model, mask)
    equal(muted, answer(zeroed), MUTED_ALLOWED)
    if np.abs(muted - plain).max() < ROUNDING * plain.std():
        raise Failure("muting changes nothing")

    begin("a scale of one")
    equal(answer(model, ones), plain, 0.0)
    equal(answer_beside(model, {0: ones, 1: mask}), answer_beside(model, {}), rounding)

    begin("a batch of tokens")
    context = Context(model, N_CTX, n_outputs=N, batch_invariant=True)
    context.decode([Run(0, 0, PROMPT)])
    steps = [Run(0, ANSWER.start + i, [token], 1) for i, token in enumerate(ANSWER.tokens)]
    single = np.concatenate([context.decode([step]).copy() for step in steps])
    context.truncate(0, ANSWER.start)
    rounding = 0.0 if context.batch_invariant else ROUNDING  # a GPU's and AMX's kernels promise nothing
    equal(context.decode([ANSWER]), single, rounding)
    context.truncate(0, ANSWER.start)
    rows = np.arange(0, N_VOCAB, 16)
    equal(context.decode_rows([ANSWER], rows), single[:, rows], rounding)


def has_own_cxx(library: native.Native) -> bool:
    """Whether the libraries bring C++'s runtime in themselves: linked statically, and for others to see."""
    if not hasattr(found := ctypes.CDLL(str(library.library("llama"))), "_ZSt9terminatev"):
        return False
    place = SymbolPlace()
    ctypes.CDLL(None).dladdr(ctypes.cast(found._ZSt9terminatev, ctypes.c_void_p), ctypes.byref(place))
    return Path(os.fsdecode(place.file or b"")).parent == library.lib


class SymbolPlace(ctypes.Structure):
    # typedef struct { const char * dli_fname; void * dli_fbase; const char * dli_sname; void * dli_saddr; } Dl_info;
    _fields_ = (
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


def main(folder: Path, devices: list[str]) -> None:
    with (folder / "report.jsonl").open("w") as report:

        def say(**line: Any) -> None:
            print(json.dumps(line), file=report, flush=True)

        try:
            importlib.import_module("scipy.special")  # whose C++ runtime a second one gets confused with
            library = native.load()
            say(
                engine={
                    "libllama": str(library.library("llama")),
                    "llama_cpp_python": library.version,
                    "backends": library.backends(),
                    "features": library.features(),
                }
            )
            if sys.platform == "linux" and has_own_cxx(library):
                say(own_cxx=True)
            write_broken(folder / "broken.gguf")
            write_model(folder / "model.gguf")
            write_model(folder / "zeroed.gguf", zeroed=True)
            write_model(folder / "exact.gguf", exact=True)
            for device in devices:
                if device == "CPU" or library.gpus():
                    check(folder, device, lambda step, device=device: say(step=step, device=device))  # type: ignore[misc]
            say(passed=True)
        except Failure as exc:
            say(failed=str(exc))
        except DpsError as exc:
            say(error=str(exc))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
