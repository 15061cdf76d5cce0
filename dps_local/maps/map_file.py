"""Map files (`.dps.gguf`): what scoring found, as GGUF metadata, by itself or baked into its model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Literal

import gguf

from dps_local.engine.gguf_file import GGUFFile
from dps_local.engine.identity import Identity
from dps_local.errors import HeadMapError, ModelError, Remedy
from dps_local.system.files import StrPath, atomic_write

FORMAT = 3
MapKind = Literal["user", "clusters"]
WHAT = {"user": "a head map", "clusters": "a cluster map"}


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
    with _gguf(path) as file:
        return file.one_of("dps.kind", (*WHAT, None))  # type: ignore[no-any-return]


@contextlib.contextmanager
def opened(path: StrPath, kind: MapKind) -> Iterator[GGUFFile]:
    """Open a file for reading its map; what is missing or damaged in it becomes a HeadMapError."""
    with _gguf(path) as file:
        version = file.get("dps.format")
        if version is None:
            raise HeadMapError(f"{path} holds no head map", Remedy.SCORE)
        if not isinstance(version, int) or version != FORMAT:
            raise HeadMapError(f"{path} has head map format {version}, expected {FORMAT}: score again")
        stored = file.get("dps.kind")
        if stored != kind and stored in WHAT:
            raise HeadMapError(f"{path} is {WHAT[stored]}, and {WHAT[kind]} is needed here")
        if stored != kind:
            raise ValueError(f"dps.kind is {stored!r}")
        yield file


@contextlib.contextmanager
def _gguf(path: StrPath) -> Iterator[GGUFFile]:
    try:
        with GGUFFile(path) as file:
            yield file
    except ModelError as exc:
        raise HeadMapError(str(exc), exc.remedy) from exc
    except (TypeError, ValueError, OverflowError) as exc:
        raise HeadMapError(f"{path} is a damaged head map ({exc}): score again") from exc


def check(made_for: str, expected: Identity, model_name: str, identity: Identity) -> str:
    """Raise HeadMapError unless a map's model is the one at hand; return what to say where the prompts are others."""
    if identity.fingerprint != expected.fingerprint:
        raise HeadMapError(
            f"this head map belongs to {made_for!r} (fingerprint {expected.fingerprint[:12]}), not to {model_name!r} "
            f"({identity.fingerprint[:12]})",
            Remedy.OTHER_MODEL_OR_SCORE,
        )
    if expected.metadata not in (None, identity.metadata):
        raise HeadMapError(
            f"this head map was made for {made_for!r} with other hyperparameters or another tokenizer than "
            f"{model_name!r} has",
            Remedy.OTHER_FILE_OR_SCORE,
        )
    if expected.template in (None, identity.template):
        return ""
    return (
        f"{model_name} has another chat template than this head map was made with: `dps-local score` makes one for it"
    )
