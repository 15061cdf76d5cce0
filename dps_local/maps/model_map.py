"""`ModelMap`: what head maps, cluster maps and priors share: the model that they are bound to, and their file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Self, get_args

from dps_local.engine.identity import Identity
from dps_local.engine.model import Model, Scope
from dps_local.maps import map_file
from dps_local.maps.fields import ARCHITECTURE, TEXT, one_of, optional, read_fields, write_map
from dps_local.system.files import StrPath


def bound_to(model: Model) -> dict[str, Any]:
    """Return the fields by which a map belongs to a model."""
    return {"model": model.name, "architecture": model.architecture, **asdict(model.identity)}


@dataclass(frozen=True, eq=False, kw_only=True)
class ModelMap(ABC):
    """A map of one model's heads, as GGUF metadata. metadata, template: as in Identity."""

    kind: ClassVar[map_file.MapKind]

    model: str = field(metadata=TEXT)
    architecture: str = field(metadata=ARCHITECTURE)
    fingerprint: str = field(metadata=TEXT)
    metadata: str | None = field(default=None, metadata=optional(TEXT))
    template: str | None = field(default=None, metadata=optional(TEXT))
    scope: Scope = field(metadata=one_of(get_args(Scope)))

    @property
    @abstractmethod
    def n_layer(self) -> int: ...

    @property
    @abstractmethod
    def n_head(self) -> int: ...

    @property
    def identity(self) -> Identity:
        return Identity(self.fingerprint, self.metadata, self.template)

    def check(self, model_name: str, identity: Identity) -> str:
        """Raise HeadMapError unless this map was made for that model; return what to say of its chat template."""
        return map_file.check(self.kind, self.model, self.identity, model_name, identity)

    def save(self, path: StrPath) -> None:
        """Write a GGUF file, readable by its owner only, whole or not at all."""
        map_file.save(path, self.architecture, self.kind, lambda writer: write_map(writer, self))

    @classmethod
    def load(cls, path: StrPath) -> Self:
        """Read such a file, or a model that a map of this kind was baked into; raises HeadMapError."""
        with map_file.opened(path, cls.kind) as file:
            return cls(**read_fields(file, cls, "dps."))
