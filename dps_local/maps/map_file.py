"""Map files (`.dps.gguf`): what scoring found, as GGUF metadata, by itself or baked into its model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import gguf

from dps_local.engine.gguf_file import GGUFFile
from dps_local.engine.identity import Identity
from dps_local.errors import HeadMapError, ModelError
from dps_local.system.files import atomic_write

FORMAT = 2
Kind = Literal["user", "clusters"]
WHAT = {"user": "a head map", "clusters": "a cluster map"}


def save(path: Path, architecture: str, kind: Kind, fill: Callable[[gguf.GGUFWriter], None]) -> None:
    """Write a map, readable by its owner only, whole or not at all; `fill` adds its dps.* keys."""
    with atomic_write(path) as target, contextlib.closing(gguf.GGUFWriter(target.name, architecture)) as writer:
        writer.add_type("adapter")
        writer.add_string("adapter.type", "dps")
        writer.add_uint32("dps.format", FORMAT)
        writer.add_string("dps.kind", kind)
        fill(writer)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()


def kind_of(path: Path) -> Kind | None:
    """Return what kind of map a file is, or has baked in; None where there is none. Raises HeadMapError."""
    with _gguf(path) as file:
        return file.one_of("dps.kind", (*WHAT, None))  # type: ignore[no-any-return]


@contextlib.contextmanager
def opened(path: Path, kind: Kind) -> Iterator[GGUFFile]:
    """Open a file for reading its map; what is missing or damaged in it becomes a HeadMapError."""
    with _gguf(path) as file:
        version = file.get("dps.format")
        if version is None:
            raise HeadMapError(f"{path} holds no head map: make one with `dps-local score`")
        if not isinstance(version, int) or version != FORMAT:
            raise HeadMapError(f"{path} has head map format {version}, expected {FORMAT}: score again")
        found = file.get("dps.kind")
        if found != kind and found in WHAT:
            raise HeadMapError(f"{path} is {WHAT[found]}, and {WHAT[kind]} is needed here")
        if found != kind:
            raise ValueError(f"dps.kind is {found!r}")
        yield file


@contextlib.contextmanager
def _gguf(path: Path) -> Iterator[GGUFFile]:
    try:
        with GGUFFile(path) as file:
            yield file
    except ModelError as exc:
        raise HeadMapError(str(exc)) from exc
    except (TypeError, ValueError, OverflowError) as exc:
        raise HeadMapError(f"{path} is a damaged head map ({exc}): score again") from exc


def fill_identity(writer: gguf.GGUFWriter, identity: Identity) -> None:
    writer.add_string("dps.fingerprint", identity.fingerprint)
    for name in ("metadata", "template"):
        if digest := getattr(identity, name):
            writer.add_string(f"dps.{name}", digest)


def read_identity(file: GGUFFile) -> Identity:
    """Return which model a map belongs to, as far as it says."""
    known = set(file.keys())
    others = (file.text(key) if key in known else None for key in ("dps.metadata", "dps.template"))
    return Identity(file.text("dps.fingerprint"), *others)


def check(made_for: str, expected: Identity, model_name: str, found: Identity) -> str:
    """Raise HeadMapError unless a map's model is the one at hand; return what to say where the prompts are others."""
    score = "score this one with `dps-local score`"
    if found.fingerprint != expected.fingerprint:
        raise HeadMapError(
            f"this head map belongs to {made_for!r} (fingerprint {expected.fingerprint[:12]}), not to {model_name!r} "
            f"({found.fingerprint[:12]}): use that model, or {score}"
        )
    if expected.metadata not in (None, found.metadata):
        raise HeadMapError(
            f"this head map was made for {made_for!r} with other hyperparameters or another tokenizer than "
            f"{model_name!r} has: use that file, or {score}"
        )
    if expected.template in (None, found.template):
        return ""
    return (
        f"{model_name} has another chat template than this head map was made with: `dps-local score` makes one for it"
    )
