"""`Record`: what one query gave in one arm; `RecordFile` keeps them as lines of JSON, and takes up where it stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dps_local.errors import DpsError
from dps_local.evaluation.arms import Arm

Key = tuple[str, str, str, str, str, Arm]


@dataclass(frozen=True)
class Record:
    """A query in an arm. values: numbers by metric; labels: the gold one and the chosen ones of a choice.

    nll: of the gold text at each of calibration.TEMPERATURES, nats per token, without the plausibility mask; ()
    where it was not asked for. setting, content: digests of all else that the numbers depend on: the model, the
    options and the code; the query, the user, and those whose texts the heads come from.
    """

    setting: str
    task: str
    model: str
    user: str
    query: str
    arm: Arm
    nll: tuple[float, ...] = ()
    values: dict[str, float] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    answer: str | None = None
    content: str = ""

    @property
    def key(self) -> Key:
        return self.setting, self.content, self.task, self.user, self.query, self.arm

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"arm": self.arm.as_json()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Record:
        return cls(**(data | {"arm": Arm.from_json(data["arm"]), "nll": tuple(data["nll"])}))


class RecordFile:
    """Lines of records, readable by their owner only; a line that an interruption cut off is dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records = {record.key: record for record in self._read()}

    def _read(self) -> Iterator[Record]:
        if not self.path.exists():
            return
        with self.path.open("r+b") as stream:
            whole = 0
            for number, line in enumerate(stream, 1):
                if not line.endswith(b"\n"):
                    stream.truncate(whole)
                    return
                whole += len(line)
                try:
                    yield Record.from_json(json.loads(line))
                except (ValueError, TypeError, KeyError, RecursionError, DpsError) as exc:
                    raise DpsError(
                        f"{self.path}, line {number}, is no result of eval: give --out another folder"
                    ) from exc

    def add(self, records: list[Record]) -> None:
        """Append records, so that they are on the disk before the next ones are computed."""
        text = "".join(json.dumps(record.as_json(), ensure_ascii=False) + "\n" for record in records)
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(text.encode(errors="replace"))
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as exc:
            raise DpsError(f"cannot write {self.path}: {exc.strerror or exc}") from exc
        self.records |= {record.key: record for record in records}
