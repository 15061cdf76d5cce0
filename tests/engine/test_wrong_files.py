"""GGUF files that are no model to chat with: each is refused in one line that says what it is and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray
from tiny import N_VOCAB, TinyModel, add_vocabulary, metadata, shape, tensors

from dps_local.engine import native
from dps_local.engine.context import Context, Run
from dps_local.engine.embedding import Embedder
from dps_local.engine.model import Model
from dps_local.errors import ModelError, NativeError, Remedy
from dps_local.maps import map_file

Tensors = Mapping[str, NDArray[np.float32]]
Load = Callable[[Path], Model]

LLAMA = {f"llama.{key}": value for key, value in metadata("llama", shape("llama")).items()}
WEIGHTS = dict(tensors("llama", shape("llama"), 0))
DAMAGED = "the file is damaged, or made for another version of llama.cpp: download or convert it again"
SMALL = np.zeros((4, 4), np.float32)


def write(path: Path, architecture: str, keys: Mapping[str, Any], weights: Tensors, *, vocabulary: bool) -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    add: dict[type, Callable[[str, Any], None]] = {
        str: writer.add_string,
        bool: writer.add_bool,
        float: writer.add_float32,
        int: writer.add_uint32,
        np.uint16: writer.add_uint16,
        np.int32: writer.add_int32,
    }
    for key, value in keys.items():
        add[type(value)](key, value)
    if vocabulary:
        add_vocabulary(writer)
    for name, data in weights.items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def split(number: int) -> dict[str, Any]:
    return {"split.count": np.uint16(2), "split.no": np.uint16(number), "split.tensors.count": np.int32(len(WEIGHTS))}


def first_shard(folder: Path) -> Path:
    weights = dict(list(WEIGHTS.items())[:9])
    return write(folder / "m-00001-of-00002.gguf", "llama", LLAMA | split(0), weights, vocabulary=True)


def second_shard(folder: Path) -> Path:
    weights = dict(list(WEIGHTS.items())[9:])
    return write(folder / "m-00002-of-00002.gguf", "llama", split(1), weights, vocabulary=False)


def head_map(folder: Path) -> Path:
    map_file.save(folder / "file.gguf", "llama", "user", lambda _: None)
    return folder / "file.gguf"


def prior(folder: Path) -> Path:
    map_file.save(folder / "file.gguf", "llama", "prior", lambda _: None)
    return folder / "file.gguf"


def file(architecture: str, keys: Mapping[str, Any], weights: Tensors, *, vocabulary: bool = True) -> Any:
    return lambda folder: write(folder / "file.gguf", architecture, keys, weights, vocabulary=vocabulary)


WITHOUT = {name: data for name, data in WEIGHTS.items() if name != "blk.1.attn_k.weight"}
LORA = {f"blk.0.attn_q.weight.lora_{part}": SMALL for part in "ab"}
WRONG = {  # a file → what is said of it
    "LoRA": (
        file("llama", {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": 16.0}, LORA),
        "{} is a LoRA adapter, not a model: merge it into its model with llama.cpp's llama-export-lora, and give that",
    ),
    "control vector": (
        file("controlvector", {"controlvector.layer_count": 1}, {"direction.1": SMALL[0]}),
        "{} is a control vector, not a model: give the model that it was made for",
    ),
    "projector": (
        file("clip", {"general.type": "mmproj", "clip.has_vision_encoder": True}, {"v.patch_embd.weight": SMALL}),
        "{} is the vision or audio part (mmproj) of a model: give the language model that lies beside it",
    ),
    "importance matrix": (
        file("", {"general.type": "imatrix"}, {"blk.0.attn_q.weight.in_sum2": SMALL}),
        "{} is an importance matrix, not a model: give the model that it was made from",
    ),
    "vocabulary": (
        file("llama", LLAMA, {}),
        "{} holds a vocabulary or metadata, and no weights: download the model itself",
    ),
    "unknown architecture": (
        file("nonesuch", LLAMA, WEIGHTS),
        "llama.cpp cannot load {} (unknown model architecture: 'nonesuch'): this version of dps-local cannot run it: "
        "choose a model of another architecture",
    ),
    "missing tensor": (
        file("llama", LLAMA, WITHOUT),
        f"llama.cpp cannot load {{}} (tensor 'blk.1.attn_k.weight' not found): {DAMAGED}",
    ),
    "tensor of another shape": (
        file("llama", LLAMA, WEIGHTS | {"blk.1.attn_k.weight": SMALL}),
        "llama.cpp cannot load {} (tensor 'blk.1.attn_k.weight' has wrong shape; expected 96, 32, got 4, 4, 1, 1): "
        + DAMAGED,
    ),
    "missing key": (
        file("llama", {key: value for key, value in LLAMA.items() if key != "llama.block_count"}, WEIGHTS),
        f"llama.cpp cannot load {{}} (key not found in model: llama.block_count): {DAMAGED}",
    ),
    "no vocabulary": (
        file("llama", LLAMA, WEIGHTS, vocabulary=False),
        f"llama.cpp cannot load {{}} (key not found in model: tokenizer.ggml.model): {DAMAGED}",
    ),
    "second shard": (second_shard, "{} is part 2 of a model of 2: give the first, {folder}/m-00001-of-00002.gguf"),
    "missing shard": (
        first_shard,
        "{} is part 1 of a model of 2, and m-00002-of-00002.gguf is not beside it: download it",
    ),
    "shard under another name": (
        lambda folder: first_shard(folder).rename(folder / "file.gguf"),
        "{} is part 1 of a model of 2: its name must end in -00001-of-00002.gguf",
    ),
    "head map": (
        head_map,
        "{} is a head map, not a model",
    ),
    "prior": (
        prior,
        "{} is a prior, not a model: give the model that it was built for",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_file_that_is_no_model_says_what_it_is_and_what_to_do(tmp_path: Path, kind: str) -> None:
    make, said = WRONG[kind]
    path = make(tmp_path)
    with pytest.raises(ModelError) as info:
        Model(path)
    assert str(info.value) == said.format(path, folder=tmp_path)
    assert info.value.remedy is (Remedy.USE_AS_MAP if kind == "head map" else None)


def test_a_split_model_with_all_its_parts_loads(tmp_path: Path, load: Load) -> None:
    path = first_shard(tmp_path)
    second_shard(tmp_path)
    assert load(path).n_heads == (6, 6, 6)


# models that do not write


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Model]]:
    folder, random = tmp_path_factory.mktemp("encoders"), np.random.default_rng(0)

    def made(kind: str, sizes: Mapping[str, tuple[int, ...]], keys: Mapping[str, Any]) -> Model:
        weights = {name: random.standard_normal(dims).astype(np.float32) for name, dims in sizes.items()}
        numbers: dict[str, Any] = {"block_count": 1, "context_length": 64, "embedding_length": 32}
        numbers |= {"feed_forward_length": 64, "attention.head_count": 4, **keys}
        all_keys = {f"{kind}.{key}": value for key, value in numbers.items()} | {"tokenizer.ggml.token_type_count": 2}
        return Model(write(folder / f"{kind}-{len(keys)}.gguf", kind, all_keys, weights, vocabulary=True))

    square: tuple[int, ...] = (32, 32)
    embedding: dict[str, tuple[int, ...]] = {"token_embd.weight": (N_VOCAB, 32)}
    norms = [f"{name}.{part}" for name in ("attn_output_norm", "layer_output_norm") for part in ("weight", "bias")]
    feed: dict[str, tuple[int, ...]] = {"ffn_up.weight": (64, 32), "ffn_down.weight": (32, 64)}
    layer = {f"attn_{part}.weight": square for part in ("q", "k", "v", "output")} | dict.fromkeys(norms, (32,)) | feed
    bert = embedding | {
        "position_embd.weight": (64, 32),
        "token_embd_norm.weight": (32,),
        "token_embd_norm.bias": (32,),
    }
    bert |= {f"blk.0.{part}": dims for part, dims in layer.items()}
    epsilon = {"attention.layer_norm_epsilon": 1e-5}
    half: dict[str, tuple[int, ...]] = {f"attn_{part}.weight": square for part in "qkvo"} | feed
    half |= {"attn_norm.weight": (32,), "ffn_norm.weight": (32,), "attn_rel_b.weight": (8, 4)}
    cross: dict[str, tuple[int, ...]] = {f"cross_attn_{part}.weight": square for part in "qkvo"}
    encoder = embedding | {f"enc.blk.0.{part}": dims for part, dims in half.items()} | {"enc.output_norm.weight": (32,)}
    decoder = {f"dec.blk.0.{part}": dims for part, dims in (half | cross | {"cross_attn_norm.weight": (32,)}).items()}
    decoder |= {"dec.output_norm.weight": (32,)}
    t5_keys = {"attention.layer_norm_rms_epsilon": 1e-5, "attention.relative_buckets_count": 8}
    found = {
        "bert": made("bert", bert, epsilon | {"attention.causal": False, "pooling_type": 1}),
        "bert without keys": made("bert", bert, epsilon),  # only its contexts tell
        "t5": made("t5", encoder | decoder, t5_keys),
        "t5encoder": made("t5encoder", encoder, t5_keys),
    }
    yield found
    for model in found.values():
        model.close()


@pytest.mark.parametrize("kind", ["bert", "bert without keys", "t5", "t5encoder"])
def test_a_model_that_does_not_write_is_refused_before_it_ends_the_process(
    encoders: dict[str, Model], kind: str
) -> None:
    with pytest.raises(ModelError) as info:
        Context(encoders[kind], 64)
    assert str(info.value) == f"{encoders[kind].name} ({kind.split()[0]}) does not write text token by token"
    assert info.value.remedy is Remedy.CHAT_MODEL


def test_a_model_of_a_writing_kind_that_pools_is_an_embedding_model(tmp_path: Path, load: Load) -> None:
    path = write(tmp_path / "e.gguf", "llama", LLAMA | {"llama.pooling_type": 3}, WEIGHTS, vocabulary=True)
    with pytest.raises(ModelError, match=r"^e \(llama\) does not write text token by token$"):
        Context(load(path), 64)


@pytest.mark.parametrize("kind", ["bert", "bert without keys", "t5encoder"])
def test_an_encoder_still_embeds_text(encoders: dict[str, Model], kind: str) -> None:
    embedder = Embedder(encoders[kind])
    assert np.linalg.norm(embedder("you or the other")) == pytest.approx(1)
    embedder.close()


def test_an_encoder_with_a_decoder_embeds_no_text(encoders: dict[str, Model]) -> None:
    with pytest.raises(ModelError, match=r"^t5-2 \(t5\) cannot embed text: choose an embedding model$"):
        Embedder(encoders["t5"])


def test_a_vocabulary_with_a_token_twice_is_refused_before_it_ends_the_process(
    tiny_model: TinyModel, tmp_path: Path
) -> None:
    data, path = tiny_model().read_bytes(), tmp_path / "twice.gguf"
    assert data.count(b"\x03\0\0\0\0\0\0\0ing") == 1
    path.write_bytes(data.replace(b"\x03\0\0\0\0\0\0\0ing", b"\x03\0\0\0\0\0\0\0the"))
    with pytest.raises(ModelError, match=r"is damaged: its vocabulary has the token 'the' twice: download or convert"):
        Model(path)


# reasons of calls


def test_a_batch_that_llama_cpp_refuses_says_why(tiny_model: TinyModel, load: Load) -> None:
    context = Context(load(tiny_model()), 64)
    with pytest.raises(NativeError, match=r"^llama_decode failed with -1: invalid token\[1\] = 99999$"):
        context.decode([Run(0, 0, [1, 99999], 1)])
    with pytest.raises(NativeError, match=r"invalid token\[0\] = -5$"):  # not the reason of the call before
        context.decode([Run(0, 0, [-5], 1)])
    context.close()


def test_the_reason_of_a_call_is_its_first_error() -> None:
    log = native.Log()
    log(4, b"before: of another call\n", None)
    log.begin()
    for level, text in ((3, b"a warning"), (4, b"load: error loading model: a  b: c\n"), (4, b"load: failed to load")):
        log(level, text, None)
    assert log.reason() == "a b: c"
    log(3, b"only a warning", None)
    assert log.reason() == "only a warning"
    assert log.reason() == "llama.cpp gave no reason"
