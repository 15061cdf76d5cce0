"""What is wrong with a GGUF file that is no model to write with, and what to do about it."""

from __future__ import annotations

from dps_local.engine.gguf_file import GGUFFile

IS_HEAD_MAP = "is a head map, not a model"
IS_PRIOR = "is a prior, not a model: give the model that it was built for"
_NO_MODELS = {  # by adapter.type, general.type or general.architecture
    "dps": IS_HEAD_MAP,
    "lora": "is a LoRA adapter, not a model: merge it into its model with llama.cpp's llama-export-lora, and give that",
    "controlvector": "is a control vector, not a model: give the model that it was made for",
    "imatrix": "is an importance matrix, not a model: give the model that it was made from",
    "clip": "is the vision or audio part (mmproj) of a model: give the language model that lies beside it",
    "adapter": "is an adapter, not a model: give the model that it was made for",
}


def what_instead(file: GGUFFile) -> str | None:
    """Return what a file is that holds no model, and what to do; None where it may hold one.

    Raises ModelError for a part of a split model that is not the first, or is alone.
    """
    for key in ("adapter.type", "general.type", "general.architecture"):
        if isinstance(kind := file.get(key), str) and kind in _NO_MODELS:
            return IS_PRIOR if kind == "dps" and file.get("dps.kind") == "prior" else _NO_MODELS[kind]
    if len(file.shards()) == 1 and next(file.tensors(), None) is None:
        return "holds a vocabulary or metadata, and no weights: download the model itself"
    if (token := file.repeated("tokenizer.ggml.tokens")) is not None:  # where llama.cpp ends the process
        return f"is damaged: its vocabulary has the token {token!r} twice: download or convert it again"
    return None


def remedy(reason: str, offloads: bool) -> str:
    """Return what to do about a model that llama.cpp does not load, by the reason that it gave."""
    if "unknown model architecture" in reason:
        return "this version of dps-local cannot run it: choose a model of another architecture"
    if "alloc" in reason or "memory" in reason:
        fewer = "put fewer layers on the GPU, " if offloads else ""
        return f"{fewer}close other programs, or choose a smaller model"
    return "the file is damaged, or made for another version of llama.cpp: download or convert it again"
