"""Tiny models with seeded random weights, as GGUF files: small enough to load in milliseconds, one for each kind of
attention that llama.cpp builds.

    llama      grouped queries: 6 heads share 2 key/value heads
    qwen2      biases on Q, K and V
    gemma3     sliding window, norms on Q and K, head size that is not n_embd / n_head, tied embeddings
    deci       another number of heads in each layer, one with linear attention, one without any
    deepseek2  latent attention (MLA): the values are decompressed after the attention
    gemma4     the upper layers have no keys and values of their own, and embeddings of each layer come in from beside
    lfm2       hybrid: a short convolution in place of attention in two of three layers
    mamba      recurrent: no attention at all
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import gguf
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Edit = Mapping[tuple[int, int], float]  # (layer, head) → factor of the head's columns of W_O

ATTENTION = ("llama", "qwen2", "gemma3", "gemma4", "deci", "deepseek2", "lfm2")
KINDS = (*ATTENTION, "mamba")

N_FF = 64
CONTEXT_LENGTH = 512
PER_LAYER = 8  # gemma4: size of a layer's own embedding of a token
LORA = 16  # deepseek2: rank of the compressed queries; keys and values share another of the same size
D_STATE, D_CONV = 4, 4  # mamba

BOS, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MERGES = ("t h", "h e", "i n", "e r", "a n", "o n", "th e", "in g", "Ġ a", "Ġ the", "o u", "y ou", "l l", "w o", "r d")


class TinyModel(Protocol):
    """The fixture `tiny_model`: returns the path of a tiny model, written once for each set of options."""

    def __call__(
        self,
        kind: str = "llama",
        *,
        head_size: int | None = None,
        edit: Edit | None = None,
        wide: bool = False,
        quantized: str | None = None,
        seed: int = 0,
        name: str = "Tiny",
        chat_template: str | None = CHATML,
        pre: str = "gpt-2",
    ) -> Path: ...


@dataclass(frozen=True)
class Shape:
    """What differs between the kinds. n_head, n_head_kv: of each layer."""

    n_embd: int
    n_head: tuple[int, ...]
    n_head_kv: tuple[int, ...]
    head_size: int
    metadata: Mapping[str, Any] = field(default_factory=dict)
    n_ff: int = N_FF

    @property
    def n_layer(self) -> int:
        return len(self.n_head)


SHAPES = {
    "llama": Shape(96, (6, 6, 6), (2, 2, 2), 16),
    "qwen2": Shape(64, (4, 4), (2, 2), 16),
    "gemma3": Shape(
        64,
        (4, 4, 4),
        (1, 1, 1),
        32,
        {"attention.sliding_window": 8, "attention.sliding_window_pattern": 2, "rope.freq_base": 1e6},
    ),
    "gemma4": Shape(
        64,
        (4,) * 6,
        (2,) * 6,
        16,
        {
            "attention.sliding_window": 8,
            "attention.sliding_window_pattern": [1, 1, 0, 1, 1, 0],
            "attention.shared_kv_layers": 3,
            "attention.key_length_swa": 16,
            "attention.value_length_swa": 16,
            "embedding_length_per_layer_input": PER_LAYER,
            "rope.freq_base": 1e6,
            "rope.freq_base_swa": 1e4,
        },
    ),
    "deci": Shape(64, (4, 2, 4, 0, 3), (2, 1, 0, 0, 3), 16),
    "deepseek2": Shape(
        64,
        (4, 4),
        (1, 1),
        16,
        {
            "attention.q_lora_rank": LORA,
            "attention.kv_lora_rank": LORA,
            "rope.dimension_count": 8,
            "leading_dense_block_count": 2,
            "expert_count": 0,
            "expert_feed_forward_length": N_FF,
            "expert_shared_count": 0,
        },
    ),
    "lfm2": Shape(64, (4, 4, 4), (0, 2, 0), 16, {"shortconv.l_cache": 3}),
    "mamba": Shape(
        64,
        (0, 0),
        (0, 0),
        0,
        {"ssm.conv_kernel": D_CONV, "ssm.inner_size": 128, "ssm.state_size": D_STATE, "ssm.time_step_rank": 8},
    ),
}


def shape(kind: str, head_size: int | None = None, wide: bool = False) -> Shape:
    """Return the shape of a kind; another head size goes with another n_embd where the architecture ties them.

    wide: every matrix has rows of 256 numbers, as the K-quants need them.
    """
    found = SHAPES[kind]
    if wide:
        n_head_kv = tuple(min(n, 2) for n in found.n_head_kv)
        return replace(found, n_embd=256, n_head=(8,) * found.n_layer, n_head_kv=n_head_kv, head_size=32, n_ff=256)
    if head_size is None:
        return found
    tied = kind in ("qwen2", "lfm2")
    return replace(found, head_size=head_size, n_embd=head_size * found.n_head[0] if tied else found.n_embd)


def write_model(
    path: Path,
    kind: str,
    *,
    head_size: int | None = None,
    edit: Edit | None = None,
    wide: bool = False,
    quantized: str | None = None,
    seed: int = 0,
    name: str = "Tiny",
    chat_template: str | None = CHATML,
    pre: str = "gpt-2",
    changes: Mapping[str, Any] | None = None,
    shard: int = 0,
) -> None:
    """Write a model whose weights depend on the shape, `quantized` and `seed` alone.

    edit: multiplies the columns of W_O that belong to a head, the oracle for head scales.
    changes: of the hyperparameters. shard: tensors of a part, behind a first one that has metadata only; 0: one file.
    quantized: a ggml type ("Q8_0") for the matrices whose rows it divides, in place of F32. With `edit`, head_size
    must be its block size at least; K-quants are random blocks, and cannot be edited. pre: how the vocabulary splits
    a text into words.
    """
    s = shape(kind, head_size, wide)
    writer = gguf.GGUFWriter(path, kind, split_max_tensors=shard, small_first_shard=shard > 0)
    writer.add_name(name)
    for key, value in (metadata(kind, s) | dict(changes or {})).items():
        _add(writer, f"{kind}.{key}", value)
    add_vocabulary(writer, pre)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    for tensor, data in tensors(kind, s, seed):
        data = edited(tensor, data, s, edit or {})
        if quantized and is_quantized(data, quantized):
            kept = gguf.GGMLQuantizationType[quantized]
            writer.add_tensor(tensor, _quantize(data, kept, seed), raw_dtype=kept)
        else:
            writer.add_tensor(tensor, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_parrot(path: Path, pieces: Sequence[bytes], name: str = "Tiny") -> None:
    """Write a model that answers everything with the same tokens, one for each of `pieces`.

    Its layers add nothing, so that each token foretells the next one: a direction of the embedding for each piece.
    """
    s, letters = shape("llama"), _byte_letters()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(name)
    for key, value in metadata("llama", s).items():
        _add(writer, f"llama.{key}", value)
    add_vocabulary(writer, more=["".join(letters[byte] for byte in piece) for piece in pieces])
    writer.add_chat_template(CHATML)
    end, first = N_VOCAB - 1, N_VOCAB
    embedding = np.zeros((N_VOCAB + len(pieces), s.n_embd), np.float32)
    embedding[:, 0] = 1
    output = np.zeros_like(embedding)
    for i, token in enumerate([*range(first, first + len(pieces)), end]):
        output[token, i] = 9
        if token != end:
            embedding[token, : 2 + i] = np.eye(2 + i)[1 + i]
    for tensor, data in tensors("llama", s, 0):
        silent = tensor.endswith(("attn_output.weight", "ffn_down.weight"))
        given = {"token_embd.weight": embedding, "output.weight": output}
        writer.add_tensor(tensor, given.get(tensor, 0 * data if silent else data))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def is_quantized(data: Array, quantized: str) -> bool:
    """Whether a tensor takes a type: matrices with rows of whole blocks do."""
    block, _ = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[quantized]]
    return data.ndim == 2 and data.shape[-1] % max(block, 32) == 0


def _quantize(data: Array, kept: gguf.GGMLQuantizationType, seed: int) -> NDArray[np.generic]:
    """Return a matrix in a ggml type; gguf-py cannot write K-quants: those are random blocks of the same spread."""
    if kept not in K_SPREAD:
        quantized: NDArray[np.generic] = gguf.quants.quantize(data, kept)
        return quantized
    block, size = gguf.GGML_QUANT_SIZES[kept]
    rows, columns = data.shape
    rng = np.random.default_rng([seed, zlib.crc32(data.tobytes())])
    blocks = rng.integers(0, 256, (rows, columns // block, size), np.uint8)
    d = np.array([data.std() / K_SPREAD[kept]], np.float16)
    if kept == gguf.GGMLQuantizationType.Q4_K:
        blocks[..., :2], blocks[..., 2:4] = d.view(np.uint8), (np.float16(7.5) * d).view(np.uint8)
    else:
        blocks[..., -2:] = d.view(np.uint8)
    return blocks.reshape(rows, -1)


# deviation of the numbers in a random block of d = 1: Q4_K has s·q - 7.5·m with s, m in 0…63, q in 0…15; Q6_K s·q with
# s in -128…127, q in -32…31
K_SPREAD = {gguf.GGMLQuantizationType.Q4_K: 258.3, gguf.GGMLQuantizationType.Q6_K: 1365.3}


def edited(tensor: str, data: Array, s: Shape, edit: Edit) -> Array:
    """Return the weights with the W_O columns of the heads in `edit` multiplied."""
    for (layer, head), factor in edit.items():
        if tensor == f"blk.{layer}.attn_output.weight":
            assert 0 <= head < s.n_head[layer]
            data[:, head * s.head_size : (head + 1) * s.head_size] *= np.float32(factor)
    return data


# --- metadata


def metadata(kind: str, s: Shape) -> dict[str, Any]:
    common: dict[str, Any] = {
        "context_length": CONTEXT_LENGTH,
        "embedding_length": s.n_embd,
        "block_count": s.n_layer,
        "feed_forward_length": s.n_ff,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "attention.head_count": _one_or_all(s.n_head),
        "attention.head_count_kv": _one_or_all(s.n_head_kv),
    }
    if kind == "deepseek2":  # what is cached: the compressed keys and values, and the rotated part of the keys
        common |= {"attention.key_length": LORA + 8, "attention.value_length": LORA}
        common |= {"attention.key_length_mla": s.head_size + 8, "attention.value_length_mla": s.head_size}
    elif s.head_size:
        common |= {"attention.key_length": s.head_size, "attention.value_length": s.head_size}
    return common | dict(s.metadata)


def _one_or_all(values: tuple[int, ...]) -> int | list[int]:
    return values[0] if len(set(values)) == 1 else list(values)


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_uint32(key, value)


def add_vocabulary(writer: gguf.GGUFWriter, pre: str = "gpt-2", more: Sequence[str] = ()) -> None:
    """A token for each byte, a few merged ones, and the control tokens of ChatML: any text can be written in it.

    more: tokens that no text is read as.
    """
    tokens = [*_byte_letters(), *(merge.replace(" ", "") for merge in MERGES), BOS, IM_START, IM_END, *more]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    control = gguf.TokenType.CONTROL
    writer.add_token_types([control if t in (BOS, IM_START, IM_END) else gguf.TokenType.NORMAL for t in tokens])
    writer.add_token_merges(list(MERGES))
    writer.add_bos_token_id(tokens.index(BOS))
    writer.add_eos_token_id(tokens.index(IM_END))
    writer.add_eot_token_id(tokens.index(IM_END))
    writer.add_add_bos_token(False)


def _byte_letters() -> list[str]:
    """Return the letter that GPT-2's vocabulary writes for each byte: itself if printable, one above U+00FF if not."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


N_VOCAB = 256 + len(MERGES) + 3


# --- weights


def tensors(kind: str, s: Shape, seed: int) -> Iterator[tuple[str, Array]]:
    """Yield each tensor's name and data, in numpy's order: (outputs, inputs).

    Queries and keys are large, so that attention is sharp and the values of one token come through: a head matters.
    """
    for name, dims, spread in _outer(kind, s):
        yield name, _random(name, dims, spread, seed)
    for layer in range(s.n_layer):
        for part, dims, spread in _layer(kind, s, layer):
            name = f"blk.{layer}.{part}"
            data = _random(name, dims, spread, seed)
            yield name, -np.exp(data) if part == "ssm_a" else data  # a decay rate


Spec = tuple[str, tuple[int, ...], float]  # name, dimensions, spread: 0 for a norm


def _outer(kind: str, s: Shape) -> Iterable[Spec]:
    tied = kind in ("gemma3", "gemma4", "lfm2", "mamba")
    yield "token_embd.weight", (N_VOCAB, s.n_embd), 1.2 if tied else 4.0  # tied: or each token foretells itself
    yield ("token_embd_norm.weight" if kind == "lfm2" else "output_norm.weight"), (s.n_embd,), 0
    if not tied:
        yield "output.weight", (N_VOCAB, s.n_embd), 2.0
    if kind == "gemma4":
        yield "rope_freqs.weight", (s.head_size // 2,), 0
        yield "per_layer_token_embd.weight", (N_VOCAB, PER_LAYER * s.n_layer), 1.0
        yield "per_layer_model_proj.weight", (PER_LAYER * s.n_layer, s.n_embd), 1.0
        yield "per_layer_proj_norm.weight", (PER_LAYER,), 0


def _layer(kind: str, s: Shape, layer: int) -> Iterable[Spec]:
    if kind == "mamba":
        yield from _mamba(s.n_embd)
        return
    if s.n_head[layer] or kind != "deci":
        yield "attn_norm.weight", (s.n_embd,), 0
    if kind == "deepseek2":
        yield from _latent_attention(s, layer)
    elif kind == "lfm2" and not s.n_head_kv[layer]:
        yield "shortconv.conv.weight", (s.n_embd, 3), 1.0
        yield "shortconv.in_proj.weight", (3 * s.n_embd, s.n_embd), 1.0
        yield "shortconv.out_proj.weight", (s.n_embd, s.n_embd), 0.5
    elif s.n_head_kv[layer]:
        yield from _attention(kind, s, layer)
    elif s.n_head[layer]:  # deci's linear attention
        yield "attn_output.weight", (s.n_embd, s.n_embd), 0.5
    yield from _feed_forward(kind, s)


def _attention(kind: str, s: Shape, layer: int) -> Iterable[Spec]:
    n_q, n_kv = s.n_head[layer] * s.head_size, s.n_head_kv[layer] * s.head_size
    for part, n in (("attn_q", n_q), ("attn_k", n_kv), ("attn_v", n_kv)):
        yield f"{part}.weight", (n, s.n_embd), 1.0 if part == "attn_v" else 1.7
        if kind == "qwen2":
            yield f"{part}.bias", (n,), 0.5
    yield "attn_output.weight", (s.n_embd, n_q), 1.0
    if kind in ("gemma3", "gemma4", "lfm2"):
        yield "attn_q_norm.weight", (s.head_size,), 0
        yield "attn_k_norm.weight", (s.head_size,), 0
    if kind in ("gemma3", "gemma4"):
        yield "post_attention_norm.weight", (s.n_embd,), 0


def _latent_attention(s: Shape, layer: int) -> Iterable[Spec]:
    n_head = s.n_head[layer]
    yield "attn_q_a.weight", (LORA, s.n_embd), 1.0
    yield "attn_q_a_norm.weight", (LORA,), 0
    yield "attn_q_b.weight", (n_head * (s.head_size + 8), LORA), 1.7
    yield "attn_kv_a_mqa.weight", (LORA + 8, s.n_embd), 1.7
    yield "attn_kv_a_norm.weight", (LORA,), 0
    yield "attn_k_b.weight", (n_head, LORA, s.head_size), 1.0
    yield "attn_v_b.weight", (n_head, s.head_size, LORA), 1.0
    yield "attn_output.weight", (s.n_embd, n_head * s.head_size), 1.0


def _feed_forward(kind: str, s: Shape) -> Iterable[Spec]:
    yield "ffn_norm.weight", (s.n_embd,), 0
    yield "ffn_gate.weight", (s.n_ff, s.n_embd), 1.0
    yield "ffn_up.weight", (s.n_ff, s.n_embd), 1.0
    yield "ffn_down.weight", (s.n_embd, s.n_ff), 1.0
    if kind in ("gemma3", "gemma4"):
        yield "post_ffw_norm.weight", (s.n_embd,), 0
    if kind == "gemma4":
        yield "inp_gate.weight", (PER_LAYER, s.n_embd), 1.0
        yield "proj.weight", (s.n_embd, PER_LAYER), 1.0
        yield "post_norm.weight", (s.n_embd,), 0


def _mamba(n_embd: int) -> Iterable[Spec]:
    inner = 2 * n_embd
    yield "attn_norm.weight", (n_embd,), 0
    yield "ssm_in.weight", (2 * inner, n_embd), 1.0
    yield "ssm_conv1d.weight", (inner, D_CONV), 1.0
    yield "ssm_conv1d.bias", (inner,), 0.1
    yield "ssm_x.weight", (8 + 2 * D_STATE, inner), 1.0
    yield "ssm_dt.weight", (inner, 8), 1.0
    yield "ssm_dt.bias", (inner,), 0.1
    yield "ssm_a", (inner, D_STATE), 0.5
    yield "ssm_d", (inner,), 0.5
    yield "ssm_out.weight", (n_embd, inner), 1.0


def _random(name: str, dims: tuple[int, ...], spread: float, seed: int) -> Array:
    """Normal numbers of the deviation spread / √inputs; around 1 for a norm."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    data = rng.standard_normal(dims, np.float32)
    if spread == 0:
        return 1 + 0.1 * data
    return data * np.float32(spread / np.sqrt(dims[-1] if len(dims) > 1 else 1))
