"""What is wrong with a GGUF file that is no model to write with, and what to do about it."""

from __future__ import annotations

import re

from dps_local.gguf_file import GGUFFile

_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
_NO_MODELS = {  # by adapter.type, general.type or general.architecture
    "dps": "is a head map, not a model: give it as --map, beside the --model that it was made for",
    "lora": "is a LoRA adapter, not a model: merge it into its model with llama.cpp's llama-export-lora, and give that",
    "controlvector": "is a control vector, not a model: give the model that it was made for",
    "imatrix": "is an importance matrix, not a model: give the model that it was made from",
    "clip": "is the vision or audio part (mmproj) of a model: give the language model that lies beside it",
    "adapter": "is an adapter, not a model: give the model that it was made for",
}


def what_instead(file: GGUFFile) -> str | None:
    """Return what a file is that holds no model or a part of one, and what to do; None where it may hold a model."""
    for key in ("adapter.type", "general.type", "general.architecture"):
        if isinstance(found := file.get(key), str) and found in _NO_MODELS:
            return _NO_MODELS[found]
    count = file.get("split.count", 0)
    if isinstance(count, int) and count > 1:
        return _shard(file)
    if next(file.tensors(), None) is None:
        return "holds a vocabulary or metadata, and no weights: download the model itself"
    return None


def _shard(file: GGUFFile) -> str | None:
    """Return what is wrong with a part of a split model: it is not the first, or others are missing."""
    named = _SHARD.fullmatch(file.path.name)
    if not named:
        return "is a part of a split model under another name: name its parts …-00001-of-0000N.gguf, as they were"
    name, number, of = named.groups()
    if int(number) != 1:
        return f"is part {int(number)} of a split model: give the first part, {name}-00001-of-{of}.gguf"
    parts = [f"{name}-{i:05}-of-{of}.gguf" for i in range(1, int(of) + 1)]
    missing = [part for part in parts if not (file.path.parent / part).exists()]
    return f"needs {', '.join(missing)} beside it: download all parts of the model" if missing else None


def remedy(reason: str) -> str:
    """Return what to do about a model that llama.cpp does not load, by the reason that it gave."""
    if "unknown model architecture" in reason:
        return "this version of dps-local cannot run it: choose a model of another architecture"
    if "alloc" in reason or "memory" in reason:
        return "close other programs, or choose a smaller model"
    return "the file is damaged, or made for another version of llama.cpp: download or convert it again"
