"""`Prior`: how to steer one model for one kind of writing before anything of the person is known (`.prior.gguf`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dps_local.maps.fields import COUNT, COUNTS, NUMBER, TEXT, fields_as_json, inline, nulls, record
from dps_local.maps.model_map import ModelMap
from dps_local.maps.population import Population
from dps_local.maps.quadratic_error import QuadraticError
from dps_local.maps.scored_heads import Scores, grid


@dataclass(frozen=True, eq=False, kw_only=True)
class Prior(ModelMap):
    """What many people's texts of one kind of writing say about one model's heads: numbers, none of the texts.

    writing: the kind, such as "mail". source, licence: of the texts. n_heads: of each layer. nll: of the texts, in nats
    per token. error: of the steps of all people but one, on that one. Raises ValueError where the population has
    another number of heads.
    """

    kind = "prior"

    writing: str = field(metadata=TEXT)
    source: str = field(metadata=TEXT)
    licence: str = field(metadata=TEXT)
    people: int = field(metadata=COUNT)
    texts: int = field(metadata=COUNT)
    tokens: int = field(metadata=COUNT)
    nll: float = field(metadata=NUMBER)
    n_heads: tuple[int, ...] = field(metadata=COUNTS)
    population: Population = field(metadata=inline(Population))
    error: QuadraticError = field(metadata=record(QuadraticError, present="gammas"))

    def __post_init__(self) -> None:
        if self.error is None:  # in a file
            raise ValueError("nothing says what its steps were worth")
        if min(self.n_heads) < 0 or sum(self.n_heads) != len(self.population.mu):
            raise ValueError("layers and slopes have other numbers of heads")

    @property
    def n_layer(self) -> int:
        return len(self.n_heads)

    @property
    def n_head(self) -> int:
        return max(self.n_heads)

    @property
    def step(self) -> Scores:
        """δ by which it steers, F32 [n_layer, n_head_max], NaN where there is no head."""
        return grid(self.n_heads, self.population.step)

    def as_json(self) -> dict[str, Any]:
        """Return what a reader wants to know, for JSON: the step, and not the matrices; null where there is no head."""
        population = self.population
        return {
            "n_layer": self.n_layer,
            "n_head": self.n_head,
            **{name: value for name, value in fields_as_json(self).items() if name != "population"},
            "step": nulls(self.step),
            "length": population.fisher.length(population.step),
            "dispersion": population.dispersion,
            "spread": population.spread,
            "lambdas": population.lambdas.tolist(),
        }
