"""`HeadMap`: scores of attention heads and the chosen ones, as GGUF metadata (`.dps.gguf`, or baked into a model)."""

from __future__ import annotations

import contextlib
import ctypes
import math
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
from numpy.typing import NDArray

from dps_local import native
from dps_local.errors import HeadMapError, ModelError
from dps_local.files import atomic_write
from dps_local.gguf_file import GGUFFile

FORMAT = 1
Scores = NDArray[np.float32]  # [n_layer, n_head_max], NaN where a layer has no such head, or none that can be muted
Head = tuple[int, int]  # (layer, head)


@dataclass(frozen=True, eq=False)
class HeadMap:
    """Preference Contribution Scores of one profile on one model, and the heads chosen by them.

    pcs, pcs_stderr: nats per target token, mean over examples and its standard error.
    null_control: largest |PCS| of an intervention that changes nothing (0 on a CPU).
    """

    model: str
    architecture: str
    fingerprint: str
    scope: Literal["generated", "all"]
    examples: int
    tokens: int  # scored target tokens, all examples together
    nll: float  # of the user's text with all heads, nats per token, mean over examples
    pcs: Scores
    pcs_stderr: Scores
    null_control: float
    selected: tuple[Head, ...]  # best first
    gamma: float

    @property
    def n_layer(self) -> int:
        return int(self.pcs.shape[0])

    @property
    def n_head(self) -> int:
        return int(self.pcs.shape[1])

    @property
    def unscored_layers(self) -> list[int]:
        """Layers without a head that can be muted: recurrent ones, or attention of the architecture's own."""
        return [int(layer) for layer in np.flatnonzero(np.isnan(self.pcs).all(axis=1))]

    def check(self, model_name: str, fingerprint: str) -> None:
        """Raise HeadMapError unless this map was made for the model with that fingerprint."""
        if fingerprint != self.fingerprint:
            raise HeadMapError(
                f"this head map belongs to {self.model!r} (fingerprint {self.fingerprint[:12]}), not to "
                f"{model_name!r} ({fingerprint[:12]}): use that model, or score this one with `dps-local score`"
            )

    def save(self, path: Path) -> None:
        """Write a .dps.gguf, readable by its owner only, whole or not at all."""
        with tempfile.TemporaryDirectory() as folder, atomic_write(path) as target:
            self._write(Path(folder) / "map.gguf")
            target.write((Path(folder) / "map.gguf").read_bytes())

    def _write(self, path: Path) -> None:
        with contextlib.closing(gguf.GGUFWriter(path, self.architecture)) as writer:
            self._fill(writer)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()

    def _fill(self, writer: gguf.GGUFWriter) -> None:
        writer.add_type("adapter")
        writer.add_string("adapter.type", "dps")
        writer.add_uint32("dps.format", FORMAT)
        writer.add_string("dps.model", self.model)
        writer.add_string("dps.fingerprint", self.fingerprint)
        writer.add_string("dps.scope", self.scope)
        writer.add_uint32("dps.examples", self.examples)
        writer.add_uint32("dps.tokens", self.tokens)
        writer.add_float64("dps.nll", self.nll)
        writer.add_uint32("dps.n_layer", self.n_layer)
        writer.add_uint32("dps.n_head", self.n_head)
        writer.add_array("dps.pcs", self.pcs.ravel().tolist())
        writer.add_array("dps.pcs_stderr", self.pcs_stderr.ravel().tolist())
        writer.add_float64("dps.null_control", self.null_control)
        if self.selected:  # GGUF has no empty arrays
            writer.add_array("dps.selected", [n for head in self.selected for n in head])
        writer.add_float64("dps.gamma", self.gamma)

    @classmethod
    def load(cls, path: Path) -> HeadMap:
        """Read a .dps.gguf or a model that a map was baked into; raises HeadMapError."""
        try:
            with GGUFFile(path) as file:
                return cls._read(file)
        except ModelError as exc:
            raise HeadMapError(str(exc)) from exc

    @classmethod
    def _read(cls, file: GGUFFile) -> HeadMap:
        version = file.get("dps.format")
        if version is None:
            raise HeadMapError(f"{file.path} holds no head map: make one with `dps-local score`")
        if not isinstance(version, int) or version != FORMAT:
            raise HeadMapError(f"{file.path} has head map format {version}, expected {FORMAT}: score again")
        try:
            return cls._parse(file)
        except (TypeError, ValueError, OverflowError) as exc:
            raise HeadMapError(f"{file.path} is a damaged head map ({exc}): score again") from exc

    @classmethod
    def _parse(cls, file: GGUFFile) -> HeadMap:
        shape = (int(file.get("dps.n_layer")), int(file.get("dps.n_head")))
        return cls(
            model=_text(file, "dps.model"),
            architecture=_text(file, "general.architecture"),
            fingerprint=_text(file, "dps.fingerprint"),
            scope=_scope(file.get("dps.scope")),
            examples=int(file.get("dps.examples")),
            tokens=int(file.get("dps.tokens")),
            nll=_finite(file, "dps.nll"),
            pcs=np.asarray(file.get("dps.pcs"), np.float32).reshape(shape),
            pcs_stderr=np.asarray(file.get("dps.pcs_stderr"), np.float32).reshape(shape),
            null_control=_finite(file, "dps.null_control"),
            selected=_heads(file.get("dps.selected", []), shape),
            gamma=_finite(file, "dps.gamma"),
        )

    def as_json(self) -> dict[str, Any]:
        """Return the contract's JSON object; null where a layer has fewer heads."""
        return {
            "model": self.model,
            "architecture": self.architecture,
            "fingerprint": self.fingerprint,
            "n_layer": self.n_layer,
            "n_head": self.n_head,
            "scope": self.scope,
            "examples": self.examples,
            "tokens": self.tokens,
            "nll": self.nll,
            "pcs": _nulls(self.pcs),
            "pcs_stderr": _nulls(self.pcs_stderr),
            "null_control": self.null_control,
            "selected": [list(head) for head in self.selected],
            "gamma": self.gamma,
        }


def _text(file: GGUFFile, key: str) -> str:
    value = file.get(key)
    if not isinstance(value, str):
        raise ValueError(f"{key} is no text")
    return value


def _finite(file: GGUFFile, key: str) -> float:
    value = float(file.get(key))
    if not math.isfinite(value):
        raise ValueError(f"{key} is {value}")
    return value


def _scope(value: object) -> Literal["generated", "all"]:
    if value == "generated":
        return "generated"
    if value == "all":
        return "all"
    raise ValueError(f"scope {value!r}")


def _heads(flat: Any, shape: tuple[int, int]) -> tuple[Head, ...]:
    heads = np.asarray(flat, np.int64).reshape(-1, 2)
    if ((heads < 0) | (heads >= shape)).any():
        raise ValueError("a chosen head is out of range")
    return tuple((int(layer), int(head)) for layer, head in heads)


def _nulls(scores: Scores) -> list[list[float | None]]:
    return [[None if np.isnan(x) else float(x) for x in row] for row in scores]


def select(pcs: Scores, k: int) -> tuple[Head, ...]:
    """Return the k heads of the highest PCS, best first, but never one whose PCS is not above zero."""
    order = np.argsort(-np.nan_to_num(pcs, nan=-np.inf).ravel(), kind="stable")[:k]
    heads = [(int(i) // pcs.shape[1], int(i) % pcs.shape[1]) for i in order]
    return tuple(h for h in heads if pcs[h] > 0)


def top_k(n_heads: int, fraction: float = 0.04) -> int:
    """Return K for a model of n_heads heads: the paper keeps about 4 %, here at least one."""
    return max(1, round(fraction * n_heads))


def bake(model_path: Path, map_path: Path, output: Path) -> None:
    """Write a copy of a model with the dps.* keys of a head map in its metadata.

    Stock llama.cpp loads the copy as before. The tensor data is copied from file to file, never held in memory.
    """
    head_map = HeadMap.load(map_path)
    with GGUFFile(model_path) as model, GGUFFile(map_path) as source:
        head_map.check(str(model.get("general.name") or model_path.stem), model.fingerprint())
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
