"""GGUF metadata and tensors, read by ggml itself: the Python reader takes seconds on a vocabulary of 262k tokens."""

from __future__ import annotations

import ctypes
import hashlib
import io
import math
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dps_local.engine import native
from dps_local.engine.identity import Identity
from dps_local.errors import ModelError, Remedy
from dps_local.system.files import StrPath

# enum gguf_type, in order (gguf.h); strings and arrays have no fixed size
_DTYPES: dict[int, type[np.generic]] = {
    0: np.uint8,
    1: np.int8,
    2: np.uint16,
    3: np.int16,
    4: np.uint32,
    5: np.int32,
    6: np.float32,
    7: np.bool_,
    10: np.uint64,
    11: np.int64,
    12: np.float64,
}
_STRING, _ARRAY = 8, 9
_TEXTS = _ARRAY.to_bytes(4, "little") + _STRING.to_bytes(4, "little")  # begins an array of texts
# what no number and no prompt depends on: names, how tensors lie in files, and a map that was baked in
_NAMING = ("general.", "split.", "dps.")
_NUMBERS = ("general.architecture", "general.tensor_extra.")  # of these, what one does depend on
_TEMPLATE = "tokenizer.chat_template"

Value = str | int | float | bool | list[str] | NDArray[Any]


@dataclass(frozen=True)
class Tensor:
    name: str
    shape: tuple[int, ...]  # ggml's order, always 4 numbers
    type: int  # enum ggml_type
    offset: int  # bytes from the start of the file
    size: int  # bytes


def regular_file(path: Path) -> Path:
    """Return `path` when it is a readable file; raise ModelError otherwise."""
    if path.is_dir():
        raise ModelError(f"{path} is a folder: give the path of a GGUF file")
    if not path.exists():
        raise ModelError(f"{path} does not exist", Remedy.FILE_OR_NAME)
    if not os.access(path, os.R_OK):
        raise ModelError(f"{path} is not readable: check its permissions")
    return path


class GGUFFile:
    """The metadata of one GGUF file; the tensor data stays on disk. Use it as a context manager."""

    def __init__(self, path: StrPath) -> None:
        self._native = native.load()
        self.path = path = regular_file(Path(path))
        self._native.log.begin()
        self.handle: int | None = self._native.gguf_init_from_file(
            os.fsencode(path), native.GGUFInitParams(no_alloc=True, ctx=None)
        )
        if self.handle is None:
            raise ModelError(f"{path} is not a GGUF file, or it is damaged: {self._native.log.reason()}")
        n_kv = self._native.gguf_get_n_kv(self.handle)
        self._index = {self._native.gguf_get_key(self.handle, i).decode(errors="replace"): i for i in range(n_kv)}

    def __enter__(self) -> GGUFFile:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        if self.handle is not None:
            self._native.gguf_free(self.handle)
            self.handle = None

    def keys(self) -> list[str]:
        return list(self._index)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of `key`: a str, int, float, bool, a list of str, or an array."""
        return self._value(self._index[key]) if key in self._index else default

    def text(self, key: str) -> str:
        """Return the text of `key`; raises ValueError when it is missing or no text."""
        value = self.get(key)
        if not isinstance(value, str):
            raise ValueError(f"{key} is no text")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Return the texts of `key`, none where it is missing; raises ValueError when it is no array of texts."""
        value = self.get(key, [])
        if not isinstance(value, list):
            raise ValueError(f"{key} is no array of texts")
        return tuple(value)

    def number(self, key: str) -> float:
        """Return the finite number of `key`; raises ValueError or TypeError when it is none."""
        value = float(self.get(key))
        if not math.isfinite(value):
            raise ValueError(f"{key} is {value}")
        return value

    def one_of(self, key: str, allowed: tuple[Any, ...]) -> Any:
        """Return the value of `key`; raises ValueError when it is not one of those allowed."""
        if (value := self.get(key)) not in allowed:
            raise ValueError(f"{key} is {value!r}")
        return value

    def _value(self, i: int) -> Value:
        kind = self._native.gguf_get_kv_type(self.handle, i)
        if kind == _STRING:
            return str(self._native.gguf_get_val_str(self.handle, i).decode(errors="replace"))
        if kind == _ARRAY:
            return self._array(i)
        value = _copy(self._native.gguf_get_val_data(self.handle, i), 1, _DTYPES[kind])[0].item()
        assert isinstance(value, int | float)
        return value

    def _array(self, i: int) -> list[str] | NDArray[Any]:
        kind, n = self._native.gguf_get_arr_type(self.handle, i), self._native.gguf_get_arr_n(self.handle, i)
        if kind == _STRING:
            strings = (self._native.gguf_get_arr_str(self.handle, i, j) for j in range(n))
            return [s.decode(errors="replace") for s in strings]
        return _copy(self._native.gguf_get_arr_data(self.handle, i), n, _DTYPES[kind])

    @property
    def data_offset(self) -> int:
        """Bytes from the start of the file to the tensor data."""
        return int(self._native.gguf_get_data_offset(self.handle))

    def tensors(self) -> Iterator[Tensor]:
        n, h = self._native, self.handle
        for i in range(n.gguf_get_n_tensors(h)):
            yield Tensor(
                n.gguf_get_tensor_name(h, i).decode(errors="replace"),
                tuple(_copy(n.gguf_get_tensor_ne(h, i), 4, np.int64).tolist()),
                n.gguf_get_tensor_type(h, i),
                self.data_offset + n.gguf_get_tensor_offset(h, i),
                n.gguf_get_tensor_size(h, i),
            )

    def identity(self) -> Identity:
        """Return which model this is: in another order, in other files or under another name, it is still the same."""
        metadata, template = hashlib.sha256(), hashlib.sha256()
        for key, value in sorted(self._raw_metadata.items()):
            if key.startswith(_NUMBERS) or not key.startswith(_NAMING):
                digest = template if key.startswith(_TEMPLATE) else metadata
                digest.update(f"{key} {len(value)}\n".encode() + value)
        return Identity(self.fingerprint(), metadata.hexdigest(), template.hexdigest())

    def repeated(self, key: str) -> str | None:
        """Return a text that stands twice in an array of texts, None where each is another; empty ones do not count."""
        data, seen, at = self._raw_metadata.get(key, b""), set[bytes](), 16  # behind the types and the number of texts
        if data[:8] != _TEXTS:
            return None
        while at < len(data):
            end = at + 8 + int.from_bytes(data[at : at + 8], "little")
            if (text := data[at + 8 : end]) in seen:
                return text.decode(errors="replace")
            if text:
                seen.add(text)
            at = end
        return None

    @cached_property
    def _raw_metadata(self) -> dict[str, bytes]:
        """Return the type and value of each key as the bytes in the file: string by string, ggml's way is slow."""
        with self.path.open("rb") as file:
            data = file.read(self.data_offset)
        stream, metadata = io.BytesIO(data), dict[str, bytes]()

        def number(n: int = 8) -> int:
            return int.from_bytes(stream.read(n), "little")

        stream.seek(16)  # magic, version, number of tensors
        for _ in range(number()):
            key, start = stream.read(number()).decode(errors="replace"), stream.tell()
            n, kind = 1, number(4)
            if kind == _ARRAY:
                kind, n = number(4), number()
            if kind == _STRING:
                for _ in range(n):
                    stream.seek(number(), os.SEEK_CUR)
            else:
                stream.seek(n * np.dtype(_DTYPES[kind]).itemsize, os.SEEK_CUR)
            metadata[key] = data[start : stream.tell()]
        return metadata

    def fingerprint(self) -> str:
        """Return a SHA-256 over every tensor's name, shape, type and three samples of its data.

        It depends on the tensors alone, so it survives a change of metadata (`dps-local bake`) and of how many files
        they are in, and it differs between fine-tunes and quantisations of one model. Samples of 4 KiB keep it
        immediate on large files.
        """
        digest = hashlib.sha256()
        with ExitStack() as stack:
            shards = [self, *(stack.enter_context(GGUFFile(path)) for path in self.shards()[1:])]
            files = {shard: stack.enter_context(shard.path.open("rb")) for shard in shards}
            tensors = [(t, shard) for shard in shards for t in shard.tensors()]
            for t, shard in sorted(tensors, key=lambda pair: pair[0].name):
                digest.update(f"{t.name} {t.shape} {t.type} {t.size}\n".encode())
                block = min(4096, t.size)
                for start in (0, (t.size - block) // 2, t.size - block):
                    files[shard].seek(t.offset + start)
                    data = files[shard].read(block)
                    if len(data) < block:
                        raise ModelError(f"{shard.path} is cut off: tensor {t.name} is incomplete; download it again")
                    digest.update(data)
        return digest.hexdigest()

    def shards(self) -> list[Path]:
        """Return the files that the model is in, this one first; raises ModelError when it is not the first of them."""
        n, i = (x if isinstance(x := self.get(f"split.{name}"), int) else 0 for name in ("count", "no"))
        if not 1 < n < 1 << 16:
            return [self.path]
        stem = self.path.name.removesuffix(_shard("", i, n))
        if stem == self.path.name:
            raise ModelError(f"{self.path} is part {i + 1} of a model of {n}: its name must end in {_shard('', i, n)}")
        paths = [self.path.with_name(_shard(stem, k, n)) for k in range(n)]
        if i:
            raise ModelError(f"{self.path} is part {i + 1} of a model of {n}: give the first, {paths[0]}")
        if missing := [path.name for path in paths if not path.exists()]:
            raise ModelError(f"{self.path} is part 1 of a model of {n}, and {missing[0]} is not beside it: download it")
        return paths


def _shard(stem: str, i: int, n: int) -> str:
    """Return the name of part i of n, as llama.cpp has it."""
    return f"{stem}-{i + 1:05d}-of-{n:05d}.gguf"


def _copy(address: int | None, n: int, dtype: type[np.generic]) -> NDArray[Any]:
    if not address or n == 0:
        return np.empty(0, dtype)
    return np.frombuffer(ctypes.string_at(address, n * np.dtype(dtype).itemsize), dtype).copy()
