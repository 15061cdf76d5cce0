"""How the fields of a map lie in GGUF metadata and in JSON: each field names its type, and that is all it takes.

A dataclass says `name: T = field(metadata=TYPE)`; `write_fields`, `read_fields` and `fields_as_json` do the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

import gguf
import numpy as np
from numpy.typing import NDArray

from dps_local.engine.gguf_file import GGUFFile


@dataclass(frozen=True)
class FieldType:
    """write(writer, key, value) adds a value to a file, read(file, key) gets it back; as_json makes JSON of it.

    What is missing or damaged in a file raises ValueError, TypeError or OverflowError.
    """

    write: Callable[[gguf.GGUFWriter, str, Any], None]
    read: Callable[[GGUFFile, str], Any]
    as_json: Callable[[Any], Any] = lambda value: value


FieldMetadata = Mapping[str, FieldType]


class _Map(Protocol):
    @property
    def n_layer(self) -> int: ...

    @property
    def n_head(self) -> int: ...


def write_fields(writer: gguf.GGUFWriter, record: Any, prefix: str) -> None:
    """Add the fields of a dataclass, each under `prefix` and its name."""
    for name, type_ in _types(type(record)).items():
        type_.write(writer, f"{prefix}{name}", getattr(record, name))


def read_fields(file: GGUFFile, cls: type, prefix: str) -> dict[str, Any]:
    """Return the fields of a dataclass by name, as `cls` takes them."""
    return {name: type_.read(file, f"{prefix}{name}") for name, type_ in _types(cls).items()}


def write_map(writer: gguf.GGUFWriter, map_: _Map) -> None:
    """Add the dps.* keys of a map: its shape, and its fields."""
    writer.add_uint32("dps.n_layer", map_.n_layer)
    writer.add_uint32("dps.n_head", map_.n_head)
    write_fields(writer, map_, "dps.")


def fields_as_json(record: Any) -> dict[str, Any]:
    """Return the fields of a dataclass for JSON, with None for what is no finite number."""
    return {name: type_.as_json(getattr(record, name)) for name, type_ in _types(type(record)).items()}


def _types(cls: type) -> dict[str, FieldType]:
    return {field.name: field.metadata["type"] for field in fields(cls)}


def _type(
    write: Callable[[gguf.GGUFWriter, str, Any], None],
    read: Callable[[GGUFFile, str], Any],
    as_json: Callable[[Any], Any] = lambda value: value,
) -> FieldMetadata:
    return {"type": FieldType(write, read, as_json)}


def one_of(choices: tuple[str, ...]) -> FieldMetadata:
    """A text that is one of a few."""
    return _type(gguf.GGUFWriter.add_string, lambda file, key: file.one_of(key, choices))


def optional(type_: FieldMetadata) -> FieldMetadata:
    """A field that may be None, and is then not in the file."""
    inner = type_["type"]

    def write(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
        if value is not None:
            inner.write(writer, key, value)

    return _type(
        write,
        lambda file, key: None if file.get(key) is None else inner.read(file, key),
        lambda value: None if value is None else inner.as_json(value),
    )


def record(cls: type, present: str) -> FieldMetadata:
    """A dataclass under the field's name, or None. present: its field that is in the file whenever the others are."""

    def write(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
        if value is not None:
            write_fields(writer, value, f"{key}.")

    def read(file: GGUFFile, key: str) -> Any:
        return None if file.get(f"{key}.{present}") is None else cls(**read_fields(file, cls, f"{key}."))

    return _type(write, read, lambda value: None if value is None else fields_as_json(value))


def inline(cls: type) -> FieldMetadata:
    """A dataclass whose fields lie in the file beside those of the record that it is a field of."""

    def prefix(key: str) -> str:
        return key[: key.rindex(".") + 1]

    return _type(
        lambda writer, key, value: write_fields(writer, value, prefix(key)),
        lambda file, key: cls(**read_fields(file, cls, prefix(key))),
        fields_as_json,
    )


def array(shape: Callable[[GGUFFile], tuple[int, ...]]) -> FieldMetadata:
    """Numbers F32 of a shape that other fields of the file give."""
    return _type(
        lambda writer, key, value: writer.add_array(key, value.ravel().tolist()),
        lambda file, key: np.asarray(file.get(key), np.float32).reshape(shape(file)),
        nulls,
    )


def grid_shape(file: GGUFFile) -> tuple[int, int]:
    """Return n_layer and n_head of the map in a file."""
    return int(file.get("dps.n_layer")), int(file.get("dps.n_head"))


def nulls(scores: NDArray[np.floating]) -> list[Any]:
    """Return numbers for JSON as lists, with None for what is no finite number."""
    return np.where(np.isfinite(scores), scores, None).tolist()  # type: ignore[call-overload, no-any-return]


def _read_heads(file: GGUFFile, key: str) -> tuple[tuple[int, int], ...]:
    heads = np.asarray(file.get(key, []), np.int64).reshape(-1, 2)
    if ((heads < 0) | (heads >= grid_shape(file))).any():
        raise ValueError("a chosen head is out of range")
    return tuple((int(layer), int(head)) for layer, head in heads)


def _write_heads(writer: gguf.GGUFWriter, key: str, heads: tuple[tuple[int, int], ...]) -> None:
    if heads:  # GGUF has no empty arrays
        writer.add_array(key, [n for head in heads for n in head])


def _integer(file: GGUFFile, key: str) -> int:
    return int(file.get(key))


TEXT = _type(gguf.GGUFWriter.add_string, GGUFFile.text)
TEXTS = _type(
    lambda writer, key, value: writer.add_array(key, list(value)) if value else None,  # GGUF has no empty arrays
    lambda file, key: file.texts(key),
    list,
)
NUMBER = _type(gguf.GGUFWriter.add_float64, GGUFFile.number)
COUNT = _type(gguf.GGUFWriter.add_uint32, _integer)
SEED = _type(gguf.GGUFWriter.add_int64, _integer)
COUNTS = _type(
    lambda writer, key, value: writer.add_array(key, list(value)),
    lambda file, key: tuple(int(n) for n in file.get(key)),
    list,
)
NUMBERS = _type(
    lambda writer, key, value: writer.add_array(key, list(value)) if value else None,
    lambda file, key: tuple(float(x) for x in file.get(key, [])),
    list,
)
ARCHITECTURE = _type(lambda *_: None, lambda file, _: file.text("general.architecture"))  # which each GGUF has
GRID = array(grid_shape)
HEADS = _type(_write_heads, _read_heads, lambda heads: [list(head) for head in heads])
