"""A model that carries a map in its metadata: one file to ship."""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path

from dps_local.engine import native
from dps_local.engine.gguf_file import GGUFFile
from dps_local.errors import HeadMapError
from dps_local.maps.cluster_map import ClusterMap
from dps_local.maps.head_map import HeadMap
from dps_local.maps.map_file import kind_of
from dps_local.system.files import StrPath, atomic_write


def load_map(path: StrPath) -> HeadMap | ClusterMap:
    """Read a user's map or a cluster map, from its own file or from a model; raises HeadMapError."""
    return ClusterMap.load(path) if kind_of(path) == "clusters" else HeadMap.load(path)


def bake(model_path: Path, map_path: Path, output: Path) -> None:
    """Write a copy of a model with the dps.* keys of a head map in its metadata.

    Stock llama.cpp loads the copy as before. The tensor data is copied from file to file, never held in memory.
    """
    head_map = load_map(map_path)
    with GGUFFile(model_path) as model, GGUFFile(map_path) as source:
        if (parts := len(model.shards())) > 1:
            raise HeadMapError(f"{model_path} is in {parts} parts: make one of them with `llama-gguf-split --merge`")
        head_map.check(str(model.get("general.name") or model_path.stem), model.identity())
        if output.exists() and output.samefile(model_path):
            raise HeadMapError(f"{output} is the model itself: choose another output file")
        metadata = _merged_metadata(model, source)
        with atomic_write(output) as target, model_path.open("rb") as data:
            target.write(metadata)
            data.seek(model.data_offset)
            shutil.copyfileobj(data, target, 16 << 20)


def _merged_metadata(model: GGUFFile, source: GGUFFile) -> bytes:
    """Return the model's header with its dps.* keys replaced by those of `source`, padded up to the tensor data."""
    library = native.load()
    for key in model.keys():  # noqa: SIM118 (GGUFFile is no dict)
        if key.startswith("dps."):
            library.gguf_remove_key(model.handle, key.encode())
    for key in source.keys():  # noqa: SIM118
        if not key.startswith("dps."):
            library.gguf_remove_key(source.handle, key.encode())
    library.gguf_set_kv(model.handle, source.handle)
    buffer = ctypes.create_string_buffer(library.gguf_get_meta_size(model.handle))
    library.gguf_get_meta_data(model.handle, buffer)
    return buffer.raw
