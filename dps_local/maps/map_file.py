"""Map files (`.dps.gguf`, `.prior.gguf`): what scoring found, as GGUF metadata, by itself or baked into its model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import gguf

from dps_local.engine.gguf_file import GGUFFile
from dps_local.engine.identity import Identity
from dps_local.errors import HeadMapError, ModelError, Remedy
from dps_local.system.files import StrPath, atomic_write

FORMAT = 4
MapKind = Literal["user", "clusters", "prior"]
WHAT = {"user": "a head map", "clusters": "a cluster map", "prior": "a prior"}


@dataclass(frozen=True)
class _Words:
    """What errors call a map, and what helps: against a file without one, one of another model, one of another file."""

    noun: str
    again: str
    command: str
    none: Remedy
    other_model: Remedy
    other_file: Remedy


_MAP = _Words("head map", "score again", "score", Remedy.SCORE, Remedy.OTHER_MODEL_OR_SCORE, Remedy.OTHER_FILE_OR_SCORE)
_PRIOR = _Words(
    "prior", "build it again", "prior build", Remedy.PRIOR, Remedy.OTHER_MODEL_OR_PRIOR, Remedy.OTHER_FILE_OR_PRIOR
)


def _words(kind: MapKind) -> _Words:
    return _PRIOR if kind == "prior" else _MAP


def save(path: StrPath, architecture: str, kind: MapKind, write: Callable[[gguf.GGUFWriter], None]) -> None:
    """Write a map, readable by its owner only, whole or not at all; `write` adds its dps.* keys."""
    with atomic_write(path) as target, contextlib.closing(gguf.GGUFWriter(target.name, architecture)) as writer:
        writer.add_type("adapter")
        writer.add_string("adapter.type", "dps")
        writer.add_uint32("dps.format", FORMAT)
        writer.add_string("dps.kind", kind)
        write(writer)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()


def kind_of(path: StrPath) -> MapKind | None:
    """Return what kind of map a file is, or has baked in; None where there is none. Raises HeadMapError."""
    with _gguf(path, _MAP) as file:
        return file.one_of("dps.kind", (*WHAT, None))  # type: ignore[no-any-return]


@contextlib.contextmanager
def opened(path: StrPath, kind: MapKind) -> Iterator[GGUFFile]:
    """Open a file for reading its map; what is missing or damaged in it becomes a HeadMapError."""
    words = _words(kind)
    with _gguf(path, words) as file:
        version = file.get("dps.format")
        if version is None:
            raise HeadMapError(f"{path} holds no {words.noun}", words.none)
        if not isinstance(version, int) or version != FORMAT:
            raise HeadMapError(f"{path} has {words.noun} format {version}, expected {FORMAT}: {words.again}")
        stored = file.get("dps.kind")
        if stored != kind and stored in WHAT:
            raise HeadMapError(f"{path} is {WHAT[stored]}, and {WHAT[kind]} is needed here")
        if stored != kind:
            raise ValueError(f"dps.kind is {stored!r}")
        yield file


@contextlib.contextmanager
def _gguf(path: StrPath, words: _Words) -> Iterator[GGUFFile]:
    try:
        with GGUFFile(path) as file:
            yield file
    except ModelError as exc:
        raise HeadMapError(str(exc), exc.remedy) from exc
    except (TypeError, ValueError, OverflowError) as exc:
        raise HeadMapError(f"{path} is a damaged {words.noun} ({exc}): {words.again}") from exc


def check(kind: MapKind, made_for: str, expected: Identity, model_name: str, identity: Identity) -> str:
    """Raise HeadMapError unless a map's model is the one at hand; return what to say where the prompts are others."""
    words = _words(kind)
    if identity.fingerprint != expected.fingerprint:
        raise HeadMapError(
            f"this {words.noun} belongs to {made_for!r} (fingerprint {expected.fingerprint[:12]}), not to "
            f"{model_name!r} ({identity.fingerprint[:12]})",
            words.other_model,
        )
    if expected.metadata not in (None, identity.metadata):
        raise HeadMapError(
            f"this {words.noun} was made for {made_for!r} with other hyperparameters or another tokenizer than "
            f"{model_name!r} has",
            words.other_file,
        )
    if expected.template in (None, identity.template):
        return ""
    return (
        f"{model_name} has another chat template than this {words.noun} was made with: "
        f"`dps-local {words.command}` makes one for it"
    )
