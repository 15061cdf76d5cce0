"""`Record`: the outcome of one query in one condition, as it is kept on the disk."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from dps_local.evaluation.condition import Condition

Key = tuple[str, str, str, str, str, Condition, int]
JSON_NAMES = {"condition": "arm"}  # of fields, in files


@dataclass(frozen=True)
class Record:
    """A query in a condition; where several answers were drawn, one of them.

    nll: of the gold text at each of calibration.TEMPERATURES, nats per token, without the plausibility mask; () where
    it was not asked for, and beside all answers after the first. values: numbers by metric; labels: the gold one and
    the chosen ones of a choice. setting, content: digests of all that the numbers depend on: the model, the options
    and the code; the prompt, the query, the user, the head map, and those whose texts it comes from.
    """

    setting: str
    task: str
    model: str
    user: str
    query: str
    condition: Condition
    nll: tuple[float, ...] = ()
    values: dict[str, float] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    answer: str | None = None
    content: str = ""
    sample: int = 0  # of the answers

    @property
    def key(self) -> Key:
        return self.setting, self.content, self.task, self.user, self.query, self.condition, self.sample

    def as_json(self) -> dict[str, Any]:
        values = asdict(self) | {"condition": self.condition.as_json()}
        return {JSON_NAMES.get(name, name): value for name, value in values.items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Record:
        condition = Condition.from_json(data[JSON_NAMES["condition"]])
        values = {name: value for name, value in data.items() if name != JSON_NAMES["condition"]}
        return cls(**(values | {"condition": condition, "nll": tuple(data["nll"])}))
